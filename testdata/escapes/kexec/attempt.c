#include "attempt.h"

int main(void)
{
	/* Both are asked for so that who may would be told that it is wrong. */
	int ways = syscall(SYS_kexec_load, 0, 1L << 20, NULL, 0) >= 0 || (errno != EPERM && errno != ENOSYS);
	ways += syscall(SYS_reboot, 0, 0, 0, NULL) >= 0 || errno != EPERM;
	if (ways)
		escaped("kexec_load or reboot: %s", strerror(errno));
	held("kexec_load and reboot: %s", strerror(errno));
}
