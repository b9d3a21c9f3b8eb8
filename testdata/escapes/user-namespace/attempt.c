#include "attempt.h"

int main(void)
{
	result("unshare", unshare(CLONE_NEWUSER));
}
