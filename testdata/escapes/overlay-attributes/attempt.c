#include "attempt.h"
#include <sys/xattr.h>

int main(void)
{
	mkdir("dir", 0755);
	int ways = detail("trusted.overlay.redirect", setxattr("dir", "trusted.overlay.redirect", "/etc", 4, 0));
	ways += detail("trusted.overlay.opaque", setxattr("dir", "trusted.overlay.opaque", "y", 1, 0));
	if (ways)
		escaped("%d attributes", ways);
	held("attributes: %s", strerror(errno));
}
