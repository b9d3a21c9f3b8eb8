#include "attempt.h"
#include <sys/prctl.h>

int main(void)
{
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)
		escaped("it never was so");
	result("prctl", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}
