#include "attempt.h"

int main(void)
{
	int ways = detail("sethostname", sethostname("escaped", 7));
	ways += detail("setdomainname", setdomainname("escaped", 7));
	if (ways)
		escaped("the name was changed");
	held("sethostname: %s", strerror(errno));
}
