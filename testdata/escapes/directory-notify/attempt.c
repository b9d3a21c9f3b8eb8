#include "attempt.h"

int main(void)
{
	int fd = open("/usr/bin", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		broken("/usr/bin");
	signal(SIGIO, SIG_IGN);
	result("F_NOTIFY", fcntl(fd, F_NOTIFY, DN_CREATE));
}
