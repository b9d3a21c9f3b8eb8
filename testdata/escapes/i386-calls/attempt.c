#include "attempt.h"

static void none(int sig)
{
	(void)sig;
	absent("int 0x80: a fault, so the kernel has no such entry, or what it runs on hasn't");
}

int main(void)
{
	long r;
	signal(SIGSEGV, none);
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L /* i386's getpid */) : "memory");
	if ((int)r == -ENOSYS)
		held("int 0x80: no such call");
	errno = r < 0 ? -(int)r : 0;
	result("int 0x80", r < 0 ? -1 : 0);
}
