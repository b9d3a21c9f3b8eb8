#include "attempt.h"
#include <sys/time.h>
#include <sys/timex.h>

int main(void)
{
	/* Who may set it is told that these are none, and the clock stays as it is. */
	struct timex t = {.modes = ADJ_TICK, .tick = 1};
	if (adjtimex(&t) < 0 && errno == EINVAL)
		escaped("adjtimex asks for a better speed");
	held("adjtimex: %s", strerror(errno));
}
