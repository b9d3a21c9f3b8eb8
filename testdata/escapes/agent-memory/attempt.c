#include "attempt.h"
#include <sys/ptrace.h>
#include <sys/uio.h>

int main(void)
{
	int ways = 0;
	char byte;
	struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
	ways += detail("open /proc/1/mem", open("/proc/1/mem", O_RDWR));
	ways += detail("open /proc/1/maps", open("/proc/1/maps", O_RDONLY));
	long r = syscall(SYS_process_vm_readv, 1, &local, 1, &remote, 1, 0);
	ways += detail("process_vm_readv of PID 1", r < 0 && errno == EFAULT ? 0 : r);
	r = ptrace(PTRACE_SEIZE, 1, 0, 0);
	ways += detail("ptrace PID 1", r);
	if (ways)
		escaped("%d ways to the memory of PID 1", ways);
	held("no way to the memory of PID 1");
}
