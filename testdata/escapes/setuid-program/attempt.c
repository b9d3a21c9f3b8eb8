#include "attempt.h"

int main(int argc, char **argv)
{
	if (argc > 1)
		_exit(geteuid() == 0 ? 42 : 43);
	const char *copy = "./program";
	char buf[65536];
	int from = open("/proc/self/exe", O_RDONLY), status;
	int to = open(copy, O_WRONLY | O_CREAT | O_EXCL, 0755);
	for (long n; (n = read(from, buf, sizeof buf)) > 0;)
		if (write(to, buf, n) != n)
			broken("copy");
	if (from < 0 || to < 0 || close(to) < 0)
		broken("copy");
	if (chmod(copy, 04755) < 0)
		held("chmod: %s", strerror(errno));
	pid_t child = fork();
	if (child == 0) {
		if (setgid(1000) < 0 || setuid(1000) < 0)
			broken("setuid");
		execl(copy, copy, "as a user", NULL);
		broken("exec");
	}
	waitpid(child, &status, 0);
	unlink(copy);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 42)
		escaped("a user became root");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 43)
		held("the program ran as its user");
	broken("run");
}
