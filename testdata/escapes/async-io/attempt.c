#include "attempt.h"

int main(void)
{
	unsigned long context = 0;
	result("io_setup", syscall(SYS_io_setup, 1, &context));
}
