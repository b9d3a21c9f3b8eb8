#include "attempt.h"

int main(void)
{
	result("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0));
}
