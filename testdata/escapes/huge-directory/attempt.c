#include "attempt.h"

int main(void)
{
	char name[256];
	memset(name, 'n', sizeof name);
	if (mkdir("many", 0755) < 0 || chdir("many") < 0)
		broken("mkdir");
	int fd = open("first", O_CREAT | O_WRONLY, 0644);
	if (fd < 0)
		broken("first");
	for (int i = 0; i < 20000; i++) {
		snprintf(name + 200, sizeof name - 200, "%d", i);
		if (link("first", name) < 0)
			break; /* a file has no more names */
	}
	planted(here("."));
}
