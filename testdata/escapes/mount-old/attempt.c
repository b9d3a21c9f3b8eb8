#include "attempt.h"

int main(void)
{
	int ways = 0;
	mkdir("at", 0755);
	ways += detail("mount a tmpfs", mount("none", "at", "tmpfs", 0, NULL));
	ways += detail("mount a proc", mount("none", "at", "proc", 0, NULL));
	ways += detail("bind", mount("/", "at", NULL, MS_BIND, NULL));
	ways += detail("propagate", mount(NULL, "at", NULL, MS_SHARED, NULL));
	ways += detail("unmount a mask", umount2("/proc/keys", MNT_DETACH));
	if (ways)
		escaped("%d ways to mount", ways);
	held("mount: %s", strerror(errno));
}
