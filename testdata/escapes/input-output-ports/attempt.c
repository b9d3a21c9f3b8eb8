#include "attempt.h"
#include <sys/io.h>

int main(void)
{
	int r = ioperm(0x80, 1, 1);
	if (r < 0 && errno == ENOSYS)
		absent("this kernel has no ioperm");
	result("ioperm", r);
}
