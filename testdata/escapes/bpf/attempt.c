#include "attempt.h"
#include <linux/bpf.h>

int main(void)
{
	union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
	struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr prog = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)code, .insn_cnt = 2, .license = (uintptr_t)""};
	int ways = detail("BPF_MAP_CREATE", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
	ways += detail("BPF_PROG_LOAD", syscall(SYS_bpf, BPF_PROG_LOAD, &prog, sizeof prog));
	if (ways)
		escaped("%d calls of bpf", ways);
	held("bpf: %s", strerror(errno));
}
