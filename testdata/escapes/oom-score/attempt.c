#include "attempt.h"

static long put(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	long n = fd < 0 ? -1 : write(fd, value, strlen(value));
	close(fd);
	return n;
}

int main(void)
{
	/* No lower than is possible without privileges, unless it is given them. */
	int ways = detail("oom_score_adj of its own", put("/proc/self/oom_score_adj", "-1000"));
	if (ways)
		escaped("the kernel's choice was changed");
	held("the kernel's choice is as it was");
}
