#include "attempt.h"

int main(void)
{
	int ways = 0;
	int fd = open("/proc/1/exe", O_WRONLY);
	/* A program that runs is busy: where this is said, nothing but that is in the way, and not for long. */
	ways += detail("open /proc/1/exe to write", fd < 0 && errno == ETXTBSY ? 0 : fd);
	int path = open("/proc/1/exe", O_PATH);
	if (detail("open /proc/1/exe", path)) {
		char again[64];
		snprintf(again, sizeof again, "/proc/self/fd/%d", path);
		fd = open(again, O_WRONLY);
		ways += detail("open it again to write", fd < 0 && errno == ETXTBSY ? 0 : fd);
	}
	if (ways)
		escaped("the program of PID 1 could be written");
	held("the program of PID 1 is out of reach");
}
