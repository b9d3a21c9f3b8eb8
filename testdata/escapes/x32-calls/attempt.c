#include "attempt.h"

int main(void)
{
	const long x32 = 0x40000000;
	result("x32's getpid", syscall(x32 | SYS_getpid));
}
