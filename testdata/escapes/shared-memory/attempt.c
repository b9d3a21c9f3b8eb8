#include "attempt.h"

int main(void)
{
	char path[4096];
	snprintf(path, sizeof path, "/dev/shm/%s", canary("CANARY_SHM"));
	result("to read the host's shared memory", show(AT_FDCWD, path));
}
