#include "attempt.h"

int main(void)
{
	/* Who may is told that it is none. */
	if (syscall(SYS_finit_module, -1, "", 0) < 0 && errno == EBADF)
		escaped("finit_module looks at the descriptor");
	if (errno == ENOSYS)
		absent("this kernel has no modules");
	held("finit_module: %s", strerror(errno));
}
