#include "attempt.h"
#include <sys/fanotify.h>

int main(void)
{
	int ways = detail("by descriptor", fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
	ways += detail("by identity", fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0));
	if (ways)
		escaped("fanotify_init went well");
	held("fanotify_init: %s", strerror(errno));
}
