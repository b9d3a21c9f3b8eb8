#include "attempt.h"
#include <linux/keyctl.h>

int main(void)
{
	int rings[] = {KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING, KEY_SPEC_PROCESS_KEYRING};
	for (unsigned i = 0; i < sizeof rings / sizeof *rings; i++) {
		char buf[256];
		long id = syscall(SYS_keyctl, KEYCTL_SEARCH, rings[i], "user", canary("CANARY_KEY"), 0);
		if (!detail("search", id))
			continue;
		long n = syscall(SYS_keyctl, KEYCTL_READ, id, buf, sizeof buf);
		if (detail("read", n))
			escaped("key %ld is %.*s", id, (int)n, buf);
		escaped("key %ld is there", id);
	}
	held("no keyring has it: %s", strerror(errno));
}
