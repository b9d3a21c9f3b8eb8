#include "attempt.h"
#include <linux/capability.h>
#include <sys/prctl.h>

int main(void)
{
	const int wanted[] = {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_MODULE, CAP_MKNOD, CAP_SYS_CHROOT, CAP_DAC_READ_SEARCH};
	int ways = 0;
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct d[2];
		if (syscall(SYS_capget, &h, d) < 0)
			broken("capget");
		int word = wanted[i] / 32, bit = 1u << wanted[i] % 32;
		d[word].effective |= bit, d[word].permitted |= bit, d[word].inheritable |= bit;
		ways += detail("capset", syscall(SYS_capset, &h, d));
		ways += detail("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, wanted[i], 0, 0));
	}
	if (ways)
		escaped("%d capabilities", ways);
	held("none of %zu can be had", sizeof wanted / sizeof *wanted);
}
