#include "attempt.h"

int main(void)
{
	result("AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM, 0));
}
