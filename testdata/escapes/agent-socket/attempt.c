#include "attempt.h"
#include <sys/un.h>

/* greet connects to a socket, sends what is no message, and shows what comes back. */
static long greet(const char *path, int type)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	char buf[256];
	int fd = socket(AF_UNIX, type, 0), dir;
	if (strlen(path) >= sizeof to.sun_path) { /* its directory is opened then, as it would be by a real one */
		char parent[4096], *slash;
		snprintf(parent, sizeof parent, "%s", path);
		slash = strrchr(parent, '/');
		*slash = 0;
		dir = open(parent, O_PATH);
		snprintf(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d/%s", dir, slash + 1);
	} else {
		strcpy(to.sun_path, path);
	}
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		return -1;
	memset(buf, 0xff, sizeof buf);
	send(fd, buf, sizeof buf, MSG_NOSIGNAL);
	long n = recv(fd, buf, sizeof buf - 1, MSG_WAITALL);
	if (n > 0)
		printf("it says %.*s\n", (int)n, buf);
	return n;
}

int main(void)
{
	const char *agent = getenv("AGENT_SOCKET");
	int ways = 0;
	if (agent)
		ways += detail("the agent's socket", greet(agent, SOCK_SEQPACKET));
	ways += detail("a socket of the host's", greet(canary("CANARY_SOCKET"), SOCK_STREAM));
	FILE *f = fopen("/proc/net/unix", "r");
	char line[4096];
	if (!f)
		broken("/proc/net/unix");
	while (fgets(line, sizeof line, f)) {
		char *path = strpbrk(line, "/@");
		if (!path)
			continue;
		path[strcspn(path, "\n")] = 0;
		if (strcmp(path, canary("CANARY_SOCKET")) == 0 || (agent && strcmp(path, agent) == 0)) {
			printf("/proc/net/unix tells of %s\n", path);
			ways++;
		}
	}
	if (ways)
		escaped("%d ways to sockets of the host's", ways);
	held("no socket of the host's is there");
}
