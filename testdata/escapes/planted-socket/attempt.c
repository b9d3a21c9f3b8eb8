#include "attempt.h"
#include <sys/un.h>

int main(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char paths[9000];
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1) < 0)
		broken("socket");
	if (symlink("/dev/tty", "tty") < 0 || symlink("/dev/ptmx", "ptmx") < 0)
		broken("symlink");
	snprintf(paths, sizeof paths, "%s", here("socket"));
	strcat(strcat(paths, " "), here("tty"));
	strcat(strcat(paths, " "), here("ptmx"));
	planted(paths);
}
