#include "attempt.h"
#include <sys/sysmacros.h>

int main(void)
{
	const struct {
		const char *path;
		int minor;
	} list[] = {{"/dev/mem", 1}, {"/dev/port", 4}, {"/dev/kmsg", 11}};
	int ways = 0;
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		ways += detail(list[i].path, open(list[i].path, O_RDONLY | O_NONBLOCK));
		if (detail("mknod", mknod("node", S_IFCHR | 0600, makedev(1, list[i].minor)))) {
			ways += detail("open", open("node", O_RDONLY | O_NONBLOCK));
			unlink("node");
		}
	}
	if (ways)
		escaped("%d ways to memory", ways);
	held("mknod: %s", strerror(errno));
}
