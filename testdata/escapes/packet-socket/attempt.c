#include "attempt.h"
#include <arpa/inet.h>

int main(void)
{
	result("AF_PACKET", socket(AF_PACKET, SOCK_RAW, htons(3)));
}
