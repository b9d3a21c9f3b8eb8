#include "attempt.h"
#include <linux/capability.h>
#include <sys/xattr.h>

int main(void)
{
	struct vfs_cap_data all = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
				   .data = {{.permitted = ~0u}, {.permitted = ~0u}}};
	int fd = open("program", O_WRONLY | O_CREAT, 0755);
	if (fd < 0)
		broken("program");
	result("setxattr of security.capability", fsetxattr(fd, "security.capability", &all, sizeof all, 0));
}
