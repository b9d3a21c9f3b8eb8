#include "attempt.h"
#include <sys/swap.h>

int main(void)
{
	int fd = open("swap", O_WRONLY | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 16) < 0)
		broken("swap");
	/* Who may is told that the file is none to swap to. */
	if (swapon(here("swap"), 0) < 0 && errno != EINVAL)
		held("swapon: %s", strerror(errno));
	escaped("swapon looks at the file");
}
