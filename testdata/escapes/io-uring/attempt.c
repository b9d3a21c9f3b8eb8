#include "attempt.h"

int main(void)
{
	char params[256] = {0};
	result("io_uring_setup", syscall(SYS_io_uring_setup, 4, params));
}
