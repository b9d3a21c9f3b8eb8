/* What the attempts in C have in common: the protocol, see README.md beside this file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* end says the verdict, and ends the attempt with the status that belongs to it. */
static inline void end(const char *word, int status, const char *fmt, va_list args)
{
	printf("%s: ", word);
	vprintf(fmt, args);
	printf("\n");
	fflush(stdout);
	_exit(status);
}

#define VERDICT(word, status)                                    \
	__attribute__((format(printf, 1, 2), noreturn, unused))      \
	static void word(const char *fmt, ...)                       \
	{                                                            \
		va_list args;                                            \
		va_start(args, fmt);                                     \
		end(#word, status, fmt, args);                           \
		__builtin_unreachable();                                 \
	}

VERDICT(escaped, 0)
VERDICT(held, 3)
VERDICT(absent, 5)

/* broken is for what the attempt itself needs: that it failed says nothing of the sandbox. */
__attribute__((noreturn, unused)) static void broken(const char *what)
{
	perror(what);
	_exit(1);
}

/* result is the verdict on a call that gives -1 and errno where it is refused. */
__attribute__((noreturn, unused)) static void result(const char *what, long r)
{
	if (r >= 0)
		escaped("%s went well", what);
	held("%s: %s", what, strerror(errno));
}

/* detail tells of one of several ways, and gives whether it led somewhere. */
__attribute__((unused)) static int detail(const char *what, long r)
{
	if (r >= 0)
		printf("%s went well\n", what);
	else
		printf("%s: %s\n", what, strerror(errno));
	return r >= 0;
}

/* show prints what a file has, up to 4 KiB, and gives how much that is, or -1. */
__attribute__((unused)) static long show(int dir, const char *path)
{
	char buf[4096];
	int fd = openat(dir, path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return -1;
	long n = read(fd, buf, sizeof buf);
	int saved = errno;
	close(fd);
	if (n > 0) {
		fwrite(buf, 1, n, stdout);
		printf("\n");
	}
	errno = saved;
	return n;
}

/* planted says which paths the host is to act on, and waits until it has. */
__attribute__((unused)) static void planted_and_wait(const char *paths)
{
	char c;
	printf("planted: %s\n", paths);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
}

/* planted is planted_and_wait for an attempt that ends with it. */
__attribute__((noreturn, unused)) static void planted(const char *paths)
{
	planted_and_wait(paths);
	_exit(4);
}

/* canary gives the value of a variable that the test sets. */
__attribute__((unused)) static const char *canary(const char *name)
{
	const char *v = getenv(name);
	if (!v) {
		errno = EINVAL;
		broken(name);
	}
	return v;
}

/* here gives the absolute path of a name in the working directory. */
__attribute__((unused)) static const char *here(const char *name)
{
	static char path[8192];
	char dir[4096];
	if (!getcwd(dir, sizeof dir))
		broken("getcwd");
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}
