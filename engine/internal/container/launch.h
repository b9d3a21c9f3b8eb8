#include <stddef.h>

// One mount of a sandbox's own, as mount(2) takes it. at is below the root file system, without a slash before it.
struct own_mount {
	const char *source, *type, *data, *at;
	unsigned long flags;
};

// What to write to a file.
struct setting {
	const char *path, *value;
};

// What there is to launch. Lists end with an entry of null pointers. It stays in place until launch is done.
struct launch {
	int go;      // a pipe: the process goes on when it can be read, and gives up when its other end is closed
	int user_ns; // the user namespace
	int fds[2];  // the program's descriptors 3 and 4
	const struct setting *cgroups; // to be entered by the process itself, or none
	long flags;  // the namespaces to make, see clone(2)
	const char *root, *hostname;
	const struct own_mount *mounts;
	const char *const *devices;   // names in /dev
	const struct setting *sysctls;
	const struct setting *labels; // of the program
	const char *const *masked, *const *readonly;
	unsigned long long caps;
	char *const *argv, *const *envp;
	char *stacks; // two of LAUNCH_STACK bytes

	// What became of it:
	int pid;          // the program's
	int err;          // an errno, or 0
	const char *step; // at which that came
	const char *what; // what the step was about; or null
};

enum { LAUNCH_STACK = 65536 };

// launch_start starts a process, and gives its number, or minus an errno. It waits for go, so that it can be put into a
// cgroup. Then it starts the first of a sandbox, l->pid, and ends when that has executed the program, or has ended.
int launch_start(struct launch *l);
