#include "attempt.h"

int main(void)
{
	int kinds[] = {CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, 0x80 /* CLONE_NEWTIME */}, ways = 0;
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		ways += detail("unshare", unshare(kinds[i]));
	if (ways)
		escaped("%d kinds of namespaces", ways);
	held("unshare: %s", strerror(errno));
}
