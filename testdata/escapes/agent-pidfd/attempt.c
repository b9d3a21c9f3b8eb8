#include "attempt.h"

int main(void)
{
	int pidfd = syscall(SYS_pidfd_open, 1, 0), ways = 0;
	if (pidfd < 0)
		broken("pidfd_open");
	for (int fd = 0; fd < 32; fd++) {
		int got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		if (got < 0)
			continue;
		ways++;
		show(got, "secret");
	}
	if (ways)
		escaped("%d descriptors of PID 1", ways);
	held("pidfd_getfd: %s", strerror(errno));
}
