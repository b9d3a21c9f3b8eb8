#include "attempt.h"
#include <sys/quota.h>

int main(void)
{
	result("quotactl", syscall(SYS_quotactl, QCMD(Q_SYNC, USRQUOTA), NULL, 0, NULL));
}
