#include "attempt.h"

int main(void)
{
	int ways = 0;
	mkdir("at", 0755);
	int fs = syscall(SYS_fsopen, "tmpfs", 0);
	if (detail("fsopen", fs)) {
		ways++;
		detail("fsconfig", syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0));
		int mnt = syscall(SYS_fsmount, fs, 0, 0);
		if (detail("fsmount", mnt))
			detail("move_mount", syscall(SYS_move_mount, mnt, "", AT_FDCWD, "at", 4 /* MOVE_MOUNT_F_EMPTY_PATH */));
	}
	ways += detail("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
	ways += detail("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0));
	if (ways)
		escaped("%d ways to mount", ways);
	held("the mount calls: %s", strerror(errno));
}
