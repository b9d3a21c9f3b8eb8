#include "attempt.h"
#include <sys/personality.h>

int main(void)
{
	result("personality", personality(READ_IMPLIES_EXEC | MMAP_PAGE_ZERO));
}
