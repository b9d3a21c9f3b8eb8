#include "attempt.h"

int main(void)
{
	char buf[64];
	result("modify_ldt", syscall(SYS_modify_ldt, 0, buf, sizeof buf));
}
