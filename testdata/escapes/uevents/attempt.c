#include "attempt.h"
#include <linux/netlink.h>

int main(void)
{
	int ways = detail("uevents", socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
	ways += detail("netfilter", socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
	ways += detail("xfrm", socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM));
	ways += detail("audit", socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT));
	if (ways)
		escaped("%d families", ways);
	held("netlink: %s", strerror(errno));
}
