#include "attempt.h"
#include <netinet/in.h>

int main(void)
{
	int ways = detail("IPv4", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	ways += detail("IPv6", socket(AF_INET6, SOCK_RAW, IPPROTO_RAW));
	ways += detail("ICMP", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	if (ways)
		escaped("%d kinds of raw sockets", ways);
	held("raw sockets: %s", strerror(errno));
}
