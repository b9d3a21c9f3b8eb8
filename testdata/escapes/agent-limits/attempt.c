#include "attempt.h"
#include <sys/resource.h>

int main(void)
{
	int ways = 0;
	struct rlimit64 { uint64_t cur, max; } files;
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	struct sched_param idle = {0};
	if (detail("prlimit of PID 1", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, NULL, &files)))
		ways += detail("set it", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, &files, NULL));
	ways += detail("sched_setaffinity of PID 1", sched_setaffinity(1, sizeof one, &one));
	ways += detail("sched_setscheduler of PID 1", sched_setscheduler(1, SCHED_IDLE, &idle));
	ways += detail("setpriority of PID 1", setpriority(PRIO_PROCESS, 1, 19));
	ways += detail("ioprio_set of PID 1", syscall(SYS_ioprio_set, 1, 1, 3 << 13));
	if (ways)
		escaped("%d ways to slow down PID 1", ways);
	held("PID 1 is as it was");
}
