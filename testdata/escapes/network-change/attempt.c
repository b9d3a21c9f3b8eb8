#include "attempt.h"
#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

int main(void)
{
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg a;
		struct rtattr attr;
		uint32_t address;
	} add = {
		.h = {.nlmsg_len = sizeof add, .nlmsg_type = RTM_NEWADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
		.a = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 1},
		.attr = {.rta_len = RTA_LENGTH(4), .rta_type = IFA_LOCAL},
		.address = htonl(0x7f090909),
	};
	char buf[4096];
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	if (fd < 0)
		held("netlink: %s", strerror(errno));
	if (send(fd, &add, sizeof add, 0) < 0)
		held("send: %s", strerror(errno));
	if (recv(fd, buf, sizeof buf, 0) < (long)sizeof(struct nlmsghdr))
		broken("recv");
	struct nlmsgerr *e = NLMSG_DATA((struct nlmsghdr *)buf);
	errno = -e->error;
	result("RTM_NEWADDR", e->error ? -1 : 0);
}
