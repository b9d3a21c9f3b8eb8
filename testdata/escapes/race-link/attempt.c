#include "attempt.h"
#include <pthread.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static void *swap(void *none)
{
	for (;;)
		if (syscall(SYS_renameat2, AT_FDCWD, "dir", AT_FDCWD, "link", RENAME_EXCHANGE) < 0)
			broken("renameat2");
	return none;
}

int main(void)
{
	pthread_t t;
	if (mkdir("dir", 0755) < 0 || symlink(canary("CANARY_DIR"), "link") < 0)
		broken("plant");
	int fd = open("dir/secret", O_WRONLY | O_CREAT, 0644);
	if (fd < 0 || pthread_create(&t, NULL, swap, NULL))
		broken("begin");
	planted(here("dir/secret"));
}
