#include "attempt.h"
#include <sys/ioctl.h>

int main(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), ways = 0;
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		broken("posix_openpt");
	if (fork() > 0) {
		int status;
		wait(&status);
		_exit(WEXITSTATUS(status));
	}
	setsid();
	int tty = open(ptsname(master), O_RDWR);
	if (tty < 0)
		broken("terminal");
	ioctl(tty, TIOCSCTTY, 0);
	ways += detail("TIOCSTI", ioctl(tty, TIOCSTI, "x"));
	ways += detail("TIOCSTI with a high bit", syscall(SYS_ioctl, tty, 1L << 40 | TIOCSTI, "x"));
	if (ways)
		escaped("input was put into the terminal");
	held("TIOCSTI: %s", strerror(errno));
}
