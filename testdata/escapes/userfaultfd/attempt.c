#include "attempt.h"

int main(void)
{
	result("userfaultfd", syscall(SYS_userfaultfd, 1 | O_CLOEXEC));
}
