#include "attempt.h"

int main(void)
{
	const char *options = "none,name=nestbox-escape"; /* no controllers, and it is gone with its mount */
	mkdir("groups", 0755);
	if (mount("none", "groups", "cgroup", 0, options) < 0 &&
	    (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) < 0 || mount("none", "groups", "cgroup", 0, options) < 0)) {
		if (errno == ENODEV)
			absent("the kernel has no cgroup v1");
		held("mount: %s", strerror(errno));
	}
	int fd = open("groups/release_agent", O_WRONLY); /* and nothing is written */
	int saved = errno;
	close(fd);
	umount2("groups", MNT_DETACH);
	errno = saved;
	result("open release_agent", fd);
}
