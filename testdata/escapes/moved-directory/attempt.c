#include "attempt.h"

int main(void)
{
	char up[512] = "", outside[4096];
	int ways = 0;
	/* Without a sandbox there is no mount: the directory is where it is. */
	snprintf(outside, sizeof outside, "%s/../shared/sub", canary("CANARY_DIR"));
	if (chdir(outside) < 0 && chdir("/data/sub") < 0)
		broken("chdir");
	int dir = open(".", O_RDONLY | O_DIRECTORY);
	planted_and_wait("/data/sub");
	for (int i = 0; i < 12; i++) {
		char path[4096];
		strcat(up, "../");
		snprintf(path, sizeof path, "%ssecret", up);
		ways += show(AT_FDCWD, path) > 0;
		ways += show(dir, path) > 0;
		snprintf(path, sizeof path, "%s%s", up, canary("CANARY_FILE") + 1);
		ways += show(AT_FDCWD, path) > 0;
	}
	if (ways)
		escaped("the host's file is above it");
	held("above is nothing: %s", strerror(errno));
}
