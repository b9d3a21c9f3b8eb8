#include "attempt.h"

int main(void)
{
	for (long nr = 480; nr < 1200; nr++)
		if (syscall(nr, -1, -1, -1, -1, -1, -1) >= 0 || errno != ENOSYS)
			escaped("call %ld: %s", nr, strerror(errno));
	held("no such call");
}
