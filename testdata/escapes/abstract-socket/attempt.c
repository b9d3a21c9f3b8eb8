#include "attempt.h"
#include <stddef.h>
#include <sys/un.h>

int main(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	char buf[256];
	int n = snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "%s", canary("CANARY_ABSTRACT"));
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		broken("socket");
	if (connect(fd, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + n) < 0)
		held("connect: %s", strerror(errno));
	n = recv(fd, buf, sizeof buf, 0);
	escaped("connected, and was told %.*s", n < 0 ? 0 : n - 1, buf);
}
