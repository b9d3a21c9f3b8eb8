package seccomp_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// verdict is what the default profile says to a call, whose numbers are amd64's and arm64's; -1: it isn't there.
type verdict struct {
	name         string
	amd64, arm64 int32
	args         []uint64
	want         uint32
}

const highBit = 1 << 40 // which the kernel ignores in what is an int

func a(args ...uint64) []uint64 { return args }

var verdicts = []verdict{
	{"read", 0, 63, nil, allow},
	{"execve", 59, 221, nil, allow},
	{"landlock_restrict_self", 446, 446, nil, allow},
	{"memfd_create", 319, 279, nil, allow},
	{"pidfd_open", 434, 434, nil, allow},
	{"arch_prctl", 158, -1, nil, allow},

	{"ptrace", 101, 117, nil, eperm},
	{"process_vm_readv", 310, 270, nil, eperm},
	{"process_vm_writev", 311, 271, nil, eperm},
	{"process_madvise", 440, 440, nil, eperm},
	{"pidfd_getfd", 438, 438, nil, eperm},
	{"kcmp", 312, 272, nil, eperm},
	{"keyctl", 250, 219, nil, eperm},
	{"add_key", 248, 217, nil, eperm},
	{"request_key", 249, 218, nil, eperm},
	{"io_uring_setup", 425, 425, nil, eperm},
	{"io_uring_enter", 426, 426, nil, eperm},
	{"io_uring_register", 427, 427, nil, eperm},
	{"io_setup", 206, 0, nil, enosys},
	{"userfaultfd", 323, 282, nil, eperm},
	{"bpf", 321, 280, nil, eperm},
	{"perf_event_open", 298, 241, nil, eperm},
	{"fanotify_init", 300, 262, nil, eperm},
	{"mount", 165, 40, nil, eperm},
	{"umount2", 166, 39, nil, eperm},
	{"pivot_root", 155, 41, nil, eperm},
	{"chroot", 161, 51, nil, eperm},
	{"open_tree", 428, 428, nil, eperm},
	{"move_mount", 429, 429, nil, eperm},
	{"fsopen", 430, 430, nil, eperm},
	{"fsconfig", 431, 431, nil, eperm},
	{"fsmount", 432, 432, nil, eperm},
	{"fspick", 433, 433, nil, eperm},
	{"mount_setattr", 442, 442, nil, eperm},
	{"open_tree_attr", 467, 467, nil, eperm},
	{"setns", 308, 268, nil, eperm},
	{"open_by_handle_at", 304, 265, nil, eperm},
	{"kexec_load", 246, 104, nil, eperm},
	{"init_module", 175, 105, nil, eperm},
	{"finit_module", 313, 273, nil, eperm},
	{"swapon", 167, 224, nil, eperm},
	{"reboot", 169, 142, nil, eperm},
	{"acct", 163, 89, nil, eperm},
	{"quotactl", 179, 60, nil, eperm},
	{"clock_settime", 227, 112, nil, eperm},
	{"clock_adjtime", 305, 266, nil, eperm},
	{"adjtimex", 159, 171, nil, eperm},
	{"syslog", 103, 116, nil, eperm},
	{"sethostname", 170, 161, nil, eperm},
	{"iopl", 172, -1, nil, eperm},
	{"ioperm", 173, -1, nil, eperm},
	{"modify_ldt", 154, -1, nil, eperm},
	{"uselib", 134, -1, nil, eperm},

	{"clone3", 435, 435, nil, enosys},
	{"openat2", 437, 437, nil, enosys},
	{"a gap", 400, 300, nil, enosys},
	{"newer", 999, 999, nil, enosys},

	{"clone of Go's threads", 56, 220, a(0x50f00), allow},
	{"clone of Go's commands", 56, 220, a(0x4000 | 0x100 | 0x1000 | 17), allow},
	{"clone with a user namespace", 56, 220, a(0x10000000 | 17), eperm},
	{"clone with mounts", 56, 220, a(0x20000 | 17), eperm},
	{"clone with a signal that looks like a time namespace", 56, 220, a(0x80), allow},
	{"unshare files", 272, 97, a(0x400), allow},
	{"unshare users", 272, 97, a(0x10000000), eperm},
	{"unshare networks and more", 272, 97, a(0x40000000 | 0x400), eperm},
	{"unshare time", 272, 97, a(0x80), eperm},

	{"unix socket", 41, 198, a(1, 1, 0), allow},
	{"TCP", 41, 198, a(2, 1, 6), allow},
	{"UDP over IPv6", 41, 198, a(10, 2, 0), allow},
	{"MPTCP", 41, 198, a(2, 1, 262), allow},
	{"SCTP", 41, 198, a(2, 1, 132), eprotonosupport},
	{"raw", 41, 198, a(10, 3, 255), eprotonosupport},
	{"routes", 41, 198, a(16, 3, 0), allow},
	{"netfilter", 41, 198, a(16, 3, 12), eprotonosupport},
	{"AF_VSOCK", 41, 198, a(40, 1, 0), eafnosupport},
	{"AF_VSOCK in disguise", 41, 198, a(highBit|40, 1, 0), eafnosupport},
	{"AF_ALG", 41, 198, a(38, 5, 0), eafnosupport},
	{"AF_PACKET", 41, 198, a(17, 3, 0), eafnosupport},
	{"pair", 53, 199, a(1, 1, 0), allow},
	{"TIPC pair", 53, 199, a(30, 1, 0), eafnosupport},

	{"open", 2, -1, a(0, 0x10000|0x800), allow}, // a directory
	{"openat", 257, -1, a(0, 0, 0x10000|0x800), allow},
	{"openat on arm64", -1, 56, a(0, 0, 0x4000|0x800), allow},
	{"open of O_DIRECT", 2, -1, a(0, 0x4000|2), einval},
	{"openat of O_DIRECT", 257, -1, a(0, 0, 0x4000|2), einval},
	{"openat of O_DIRECT on arm64", -1, 56, a(0, 0, 0x10000|2), einval},
	{"openat of O_DIRECT in disguise", 257, -1, a(0, 0, highBit|0x4000), einval},
	{"F_SETFL of O_DIRECT", 72, -1, a(3, 4, 0x4000|2), einval},
	{"F_SETFL of O_DIRECT in disguise", 72, -1, a(3, highBit|4, highBit|0x4000), einval},
	{"F_SETFL of O_DIRECT on arm64", -1, 25, a(3, 4, 0x10000), einval},
	{"F_SETFD", 72, 25, a(3, 2, 0x14000), allow},
	{"SO_REUSEADDR", 54, 208, a(3, 1, 2), allow},
	{"an option of TCP with a filter's number", 54, 208, a(3, 6, 26), allow},
	{"SO_ATTACH_FILTER", 54, 208, a(3, 1, 26), eperm},
	{"SO_ATTACH_FILTER in disguise", 54, 208, a(3, highBit|1, highBit|26), eperm},
	{"SO_DETACH_FILTER", 54, 208, a(3, 1, 27), allow},
	{"SO_ATTACH_BPF", 54, 208, a(3, 1, 50), eperm},
	{"SO_ATTACH_REUSEPORT_CBPF", 54, 208, a(3, 1, 51), eperm},
	{"SO_ATTACH_REUSEPORT_EBPF", 54, 208, a(3, 1, 52), eperm},

	{"seccomp's strict mode", 317, 277, a(0, 0, 0), allow},
	{"a filter of system calls", 317, 277, a(1, 0, 0), einval},
	{"a filter of system calls in disguise", 317, 277, a(highBit|1, 0, 0), einval},
	{"what seccomp can do", 317, 277, a(2, 0, 0), allow},
	{"a filter by prctl", 157, 167, a(22, 2), einval},
	{"a filter by prctl in disguise", 157, 167, a(highBit|22, 2), einval},
	{"strict mode by prctl", 157, 167, a(22, 1), allow},
	{"PR_SET_NAME", 157, 167, a(15, 2), allow},

	{"FIONREAD", 16, 29, a(0, 0x541b), allow},
	{"TIOCSTI", 16, 29, a(0, 0x5412), eperm},
	{"TIOCSTI in disguise", 16, 29, a(0, highBit|0x5412), eperm},
	{"TIOCLINUX", 16, 29, a(0, 0x541c), eperm},
	{"F_SETFL", 72, 25, a(3, 4, 0x800), allow},
	{"F_SETOWN", 72, 25, a(3, 8), allow},
	{"F_SETLEASE", 72, 25, a(3, 1024), eperm},
	{"F_SETLEASE in disguise", 72, 25, a(3, highBit|1024), eperm},
	{"F_NOTIFY", 72, 25, a(3, 1026), eperm},

	{"personality asked for", 135, 92, a(0xffffffff), allow},
	{"personality asked for with -1", 135, 92, a(1<<64 - 1), allow},
	{"personality of another system", 135, 92, a(0x0003), eperm},
	{"READ_IMPLIES_EXEC", 135, 92, a(0x400000), eperm},
	{"own limits", 302, 261, a(0, 7), allow},
	{"the agent's limits", 302, 261, a(1, 7), eperm},
	{"the agent's limits in disguise", 302, 261, a(highBit|1, 7), eperm},
	{"the agent's scheduler", 144, 119, a(1), eperm},
	{"the agent's processors", 203, 122, a(1), eperm},
	{"the agent's priority", 141, 140, a(0, 1, 19), eperm},
	{"own priority", 141, 140, a(0, 0, 19), allow},
	{"the agent's priority of input and output", 251, 30, a(1, 1, 0), eperm},
}

func TestDefault(t *testing.T) {
	native, other := machine(t, seccomp.Default("amd64"), "amd64"), machine(t, seccomp.Default("arm64"), "arm64")
	for _, v := range verdicts {
		if got := native(with(amd64, uint32(v.amd64), v.args...)); v.amd64 >= 0 && got != v.want {
			t.Errorf("on amd64 %s is %#x, want %#x", v.name, got, v.want)
		}
		if got := other(with(arm64, uint32(v.arm64), v.args...)); v.arm64 >= 0 && got != v.want {
			t.Errorf("on arm64 %s is %#x, want %#x", v.name, got, v.want)
		}
	}
	for nr := range uint32(2048) {
		for _, c := range []call{with(i386, nr), with(arm64, nr), with(amd64, 0x40000000|nr)} {
			if got := native(c); got != enosys {
				t.Errorf("on amd64 %d of architecture %#x is %#x, want ENOSYS", c.nr, c.arch, got)
			}
		}
		if got := other(with(arm, nr)); got != enosys {
			t.Errorf("on arm64 %d of arm is %#x, want ENOSYS", nr, got)
		}
	}
}

// TestDefaultIsOCI writes the profile as others read it.
func TestDefaultIsOCI(t *testing.T) {
	text, err := json.Marshal(seccomp.Default("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	again := parse(t, string(text))
	if want := seccomp.Default("amd64"); !reflect.DeepEqual(withoutNil(again), withoutNil(want)) {
		t.Error("it isn't the same after it was written and read")
	}
	for _, s := range again.Syscalls { // a name that is misspelt would be left out
		s.Action = specs.ActTrap
		s.ErrnoRet = nil
		if _, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{s}}, "amd64"); err != nil {
			t.Error(err)
		}
	}
}

// withoutNil makes empty lists alike.
func withoutNil(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	for i := range p.Syscalls {
		if len(p.Syscalls[i].Args) == 0 {
			p.Syscalls[i].Args = nil
		}
	}
	return p
}

// TestDefaultIsFast keeps the program short where it matters: what is always allowed the kernel decides once, and
// for the rest the way is as the logarithm.
func TestDefaultIsFast(t *testing.T) {
	p, err := seccomp.Compile(seccomp.Default("amd64"), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(p.Code))
	if len(p.Code) > 600 {
		t.Errorf("%d instructions, want fewer", len(p.Code))
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := seccomp.Compile(seccomp.Default("amd64"), "amd64"); err != nil {
			b.Fatal(err)
		}
	}
}
