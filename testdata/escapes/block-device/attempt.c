#include "attempt.h"
#include <sys/sysmacros.h>

int main(void)
{
	char line[256], name[64], path[128];
	unsigned major, minor;
	int ways = 0;
	FILE *f = fopen("/proc/partitions", "r");
	if (!f)
		broken("/proc/partitions");
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%u %u %*u %63s", &major, &minor, name) != 3)
			continue;
		snprintf(path, sizeof path, "/dev/%s", name);
		ways += open(path, O_RDONLY) >= 0;
		if (mknod("node", S_IFBLK | 0600, makedev(major, minor)) == 0) {
			ways += open("node", O_RDONLY) >= 0; /* and nothing is read */
			unlink("node");
		}
	}
	if (mknod("node", S_IFBLK | 0600, makedev(7, 0)) == 0) {
		ways++;
		unlink("node");
	}
	if (ways)
		escaped("%d ways to a disk", ways);
	held("mknod: %s", strerror(errno));
}
