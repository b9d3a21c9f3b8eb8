#include "attempt.h"

int main(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		broken("f");
	signal(SIGIO, SIG_IGN);
	result("F_SETLEASE", fcntl(fd, F_SETLEASE, F_WRLCK));
}
