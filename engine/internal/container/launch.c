//go:build linux && cgo

// The first steps of a sandbox's first process, until it executes the agent. They are in C since a Go program has threads
// before it can take any: one that enters a user namespace must not.
//
// The processes here share the memory of the host program, so that it needn't be copied, as after vfork(2). They run on
// stacks of their own, but with the thread's own storage, which means errno: the thread that called launch_start calls no
// other C until they are done. They take no memory, no lock, and no signal.

#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

// How many nanoseconds later than it asked for a thread of the agent's may be woken. One of the Go runtime's sleeps for no
// more than 20 us at a time while others wait in system calls, as one does for each command: with the kernel's default it
// is woken ten times each millisecond. A thread that starts a command takes it back, for that to inherit the default.
#define AGENT_SLACK 1000000

// libc's own look at, and mark, the thread that they take for theirs: they are where it may be cancelled.
#define openat(...) syscall(SYS_openat, __VA_ARGS__)
#define open(path, flags) syscall(SYS_openat, AT_FDCWD, path, flags, 0)
#define close(fd) syscall(SYS_close, fd)
#define read(fd, buf, n) syscall(SYS_read, fd, buf, n)
#define write(fd, buf, n) syscall(SYS_write, fd, buf, n)
#define fcntl(fd, cmd, arg) syscall(SYS_fcntl, fd, cmd, arg)

// fail ends the process with an error.
static void fail(struct launch *l, const char *step, const char *what)
{
	l->err = errno;
	l->step = step;
	l->what = what;
	_exit(1);
}

static void check(struct launch *l, long got, const char *step, const char *what)
{
	if (got < 0)
		fail(l, step, what);
}

// directory opens, and makes where it is missing, the directory at, below root. No link is followed: the template's are
// not to be trusted with the kernel's own file systems.
static int directory(struct launch *l, int root, const char *at)
{
	char name[NAME_MAX + 1];
	int dir = dup(root);
	check(l, dir, "dup", at);
	for (const char *rest = at; *rest;) {
		size_t n = strcspn(rest, "/");
		if (n > NAME_MAX) {
			errno = ENAMETOOLONG;
			fail(l, "open", at);
		}
		memcpy(name, rest, n);
		name[n] = 0;
		rest += n + (rest[n] == '/');
		int below = openat(dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC, 0);
		if (below < 0 && errno == ENOENT) {
			check(l, mkdirat(dir, name, 0755), "mkdir", at);
			below = openat(dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC, 0);
		}
		check(l, below, "open", at);
		close(dir);
		dir = below;
	}
	return dir;
}

// mount_own mounts on a directory below root.
static void mount_own(struct launch *l, int root, const struct own_mount *m)
{
	int dir = directory(l, root, m->at);
	check(l, fchdir(dir), "chdir", m->at);
	check(l, mount(m->source, ".", m->type, m->flags, m->data), "mount", m->at);
	close(dir);
}

// populate puts nodes and links into the sandbox's /dev. In a user namespace no node can be made: the host's are bound.
static void populate(struct launch *l, int root)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
	};
	int dev = directory(l, root, "dev");
	check(l, fchdir(dev), "chdir", "dev");
	for (const char *const *d = l->devices; *d; d++) {
		const char *name = *d + strlen("/dev/");
		int fd = openat(dev, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
		check(l, fd, "create", *d);
		close(fd);
		check(l, mount(*d, name, NULL, MS_BIND, NULL), "bind", *d);
	}
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		check(l, symlinkat(links[i][0], dev, links[i][1]), "symlink", links[i][1]);
	close(dev);
}

// enter_root makes root the root of the process's mounts, and takes all others away, see pivot_root(2).
static void enter_root(struct launch *l, int root)
{
	int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	check(l, old, "open", "/");
	check(l, fchdir(root), "chdir", l->root);
	check(l, syscall(SYS_pivot_root, ".", "."), "pivot_root", l->root);
	check(l, fchdir(old), "chdir", "/");
	check(l, mount("", ".", NULL, MS_SLAVE | MS_REC, NULL), "mount", "/");
	check(l, umount2(".", MNT_DETACH), "umount", "/");
	check(l, chdir("/"), "chdir", "/");
	close(old);
}

// put writes to a file.
static void put(struct launch *l, const struct setting *s)
{
	int fd = open(s->path, O_WRONLY | O_CLOEXEC);
	check(l, fd, "open", s->path);
	size_t n = strlen(s->value);
	ssize_t got = write(fd, s->value, n);
	if (got >= 0 && (size_t)got < n) {
		errno = EIO;
		got = -1;
	}
	check(l, got, "write", s->path);
	close(fd);
}

// protect makes what is at a path read-only.
static void protect(struct launch *l, const char *path)
{
	struct statfs st;
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0) {
		if (errno == ENOENT)
			return;
		fail(l, "bind", path);
	}
	check(l, statfs(path, &st), "statfs", path);
	unsigned long keep = st.f_flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC);
	check(l, mount(path, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | keep, NULL), "remount", path);
}

// mask hides what is at a path.
static void mask(struct launch *l, const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0) {
		if (errno == ENOENT)
			return;
		fail(l, "stat", path);
	}
	if (S_ISDIR(st.st_mode))
		check(l, mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_blocks=1,nr_inodes=1"), "mask", path);
	else
		check(l, mount("/dev/null", path, NULL, MS_BIND, NULL), "mask", path);
}

// loopback_up sets the flag of the interface, see netdevice(7).
static void loopback_up(struct launch *l)
{
	struct ifreq lo = {.ifr_name = "lo"};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check(l, s, "socket", "lo");
	check(l, ioctl(s, SIOCGIFFLAGS, &lo), "get flags", "lo");
	lo.ifr_flags |= IFF_UP;
	check(l, ioctl(s, SIOCSIFFLAGS, &lo), "set flags", "lo");
	close(s);
}

// drop leaves the process, and all that it will execute, the capabilities of l alone.
static void drop(struct launch *l)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(l->caps >> cap & 1))
			check(l, prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "drop capability", NULL);
	check(l, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear capabilities", NULL);
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{0}};
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted = (unsigned)(l->caps >> 32 * i);
	check(l, syscall(SYS_capset, &head, data), "capset", NULL);
}

// null_stdio makes the sandbox's null device the descriptors 0 to 2.
static void null_stdio(struct launch *l)
{
	int null = open("/dev/null", O_RDWR);
	check(l, null, "open", "/dev/null");
	for (int fd = 0; fd < 3; fd++)
		check(l, dup2(null, fd), "dup", "/dev/null");
	if (null > 2)
		close(null);
}

// default_signals gives every signal its default action, which for the first process of a PID namespace is none, and lets
// all in. A handler of the host program's must never run here.
static void default_signals(void)
{
	unsigned long action[4] = {0}, none = 0; // struct sigaction of the kernel's, with SIG_DFL, and no signals
	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, action, NULL, sizeof none);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

// first is the sandbox's first process, in its namespaces.
static int first(void *arg)
{
	struct launch *l = arg;
	umask(0);
	check(l, syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "join session keyring", NULL);
	if (l->flags & CLONE_NEWNET)
		loopback_up(l);
	// The copy of the mounts that this namespace began with is locked, but a copy of that isn't.
	check(l, mount("", "/", NULL, MS_SLAVE | MS_REC, NULL), "mount", "/");
	check(l, mount(l->root, l->root, NULL, MS_BIND | MS_REC, NULL), "bind", l->root);
	int root = open(l->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	check(l, root, "open", l->root);
	for (const struct own_mount *m = l->mounts; m->at; m++)
		mount_own(l, root, m);
	populate(l, root);
	enter_root(l, root);
	close(root);
	check(l, sethostname(l->hostname, strlen(l->hostname)), "sethostname", NULL);
	for (const struct setting *s = l->sysctls; s->path; s++)
		put(l, s);
	for (const char *const *p = l->readonly; *p; p++)
		protect(l, *p);
	for (const char *const *p = l->masked; *p; p++)
		mask(l, *p);
	for (const struct setting *s = l->labels; s->path; s++)
		put(l, s);
	null_stdio(l);
	umask(022);
	check(l, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs", NULL);
	check(l, prctl(PR_SET_TIMERSLACK, AGENT_SLACK, 0, 0, 0), "timer slack", NULL);
	drop(l);
	default_signals();
	check(l, execve(l->argv[0], l->argv, l->envp), "execute", l->argv[0]);
	return 1;
}

// keep_few leaves the process the descriptors that it needs, the program's among them, and gives them the numbers in their
// order from 3 on. All others go at once: some are locks and ends of pipes that the host program is about to close.
static void keep_few(struct launch *l)
{
	enum { PROGRAM = 3, OWN = 5, END = 7, ABOVE = 16 };
	int from[] = {l->fds[0], l->fds[1], l->go, l->user_ns};
	for (int i = 0; i < END - PROGRAM; i++)
		check(l, from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, ABOVE), "dup", NULL);
	for (int i = 0; i < END - PROGRAM; i++)
		check(l, syscall(SYS_dup3, from[i], PROGRAM + i, PROGRAM + i < OWN ? 0 : O_CLOEXEC), "dup", NULL);
	check(l, syscall(SYS_close_range, END, ~0U, 0), "close_range", NULL);
	l->go = OWN;
	l->user_ns = OWN + 1;
}

// second enters the user namespace, and starts the first process of the others, as the host program's child. It ends when
// that has executed the program, or has ended.
static int second(void *arg)
{
	struct launch *l = arg;
	char c;
	keep_few(l);
	if (read(l->go, &c, 1) != 1)
		_exit(1); // the host program has given up, or died
	for (const struct setting *s = l->cgroups; s->path; s++)
		put(l, s);
	check(l, setns(l->user_ns, CLONE_NEWUSER), "enter user namespace", NULL);
	// Not by libc's functions, which change all threads that they know of.
	check(l, syscall(SYS_setgroups, 0, NULL), "setgroups", NULL);
	check(l, syscall(SYS_setresgid, 0, 0, 0), "setresgid", NULL);
	check(l, syscall(SYS_setresuid, 0, 0, 0), "setresuid", NULL);
	l->pid = clone(first, l->stacks + 2 * LAUNCH_STACK, CLONE_VM | CLONE_VFORK | CLONE_PARENT | l->flags, l);
	check(l, l->pid, "clone", NULL);
	_exit(0);
}

int launch_start(struct launch *l)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int pid = clone(second, l->stacks + LAUNCH_STACK, CLONE_VM, l);
	if (pid < 0)
		pid = -errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid;
}
