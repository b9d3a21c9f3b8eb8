#include "attempt.h"
#include <sys/file.h>

int main(void)
{
	const char *path = canary("CANARY_LOCK");
	int fd = open(path, O_RDONLY);
	if (fd < 0) { /* in a sandbox what it shares with the host are programs */
		path = "/usr/bin/nproc";
		fd = open(path, O_RDONLY);
	}
	if (fd < 0)
		broken(path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		held("flock: %s", strerror(errno));
	planted(path);
}
