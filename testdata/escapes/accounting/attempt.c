#include "attempt.h"

int main(void)
{
	/* A directory is none to note in, as who may is told. */
	if (syscall(SYS_acct, "/") < 0 && errno != EISDIR && errno != EACCES)
		held("acct: %s", strerror(errno));
	if (errno == ENOSYS)
		absent("this kernel has no accounting");
	escaped("acct looks at the file");
}
