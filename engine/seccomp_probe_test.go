package engine_test

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// further says as whom a probe gets further where no seccomp profile is in its way. What capabilities guard first is
// refused all the same.
type further int

const (
	nobody further = iota
	root
	anybody
)

// probe is a system call that the default profile denies. Its other arguments are such that it does no harm where
// it isn't.
type probe struct {
	name string
	nr   uintptr
	args [6]uintptr
	want syscall.Errno
	weak further
}

const (
	none    = ^uintptr(0) // no descriptor, and no flags
	nowhere = 1           // no address
	highBit = 1 << 40     // which the kernel ignores in an int
)

func args(a ...uintptr) (all [6]uintptr) {
	copy(all[:], a)
	return all
}

var probes = []probe{
	{"keyctl", unix.SYS_KEYCTL, args(0, ^uintptr(2), 0), unix.EPERM, anybody},
	{"add_key", unix.SYS_ADD_KEY, args(nowhere, nowhere), unix.EPERM, anybody},
	{"request_key", unix.SYS_REQUEST_KEY, args(nowhere, nowhere), unix.EPERM, anybody},
	{"vsock", unix.SYS_SOCKET, args(unix.AF_VSOCK, unix.SOCK_STREAM, 0), unix.EAFNOSUPPORT, nobody}, // the host may not have it
	{"vsock in disguise", unix.SYS_SOCKET, args(highBit|unix.AF_VSOCK, unix.SOCK_STREAM, 0), unix.EAFNOSUPPORT, nobody},
	{"ciphers", unix.SYS_SOCKET, args(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), unix.EAFNOSUPPORT, nobody},
	{"packets", unix.SYS_SOCKET, args(unix.AF_PACKET, unix.SOCK_RAW, 0), unix.EAFNOSUPPORT, anybody},
	{"raw", unix.SYS_SOCKET, args(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), unix.EPROTONOSUPPORT, anybody},
	{"uevents", unix.SYS_SOCKET, args(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT), unix.EPROTONOSUPPORT, anybody},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, args(1, nowhere), unix.EPERM, anybody},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER, args(none), unix.EPERM, anybody},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER, args(none, none), unix.EPERM, anybody},
	{"io_setup", unix.SYS_IO_SETUP, args(1, nowhere), unix.ENOSYS, anybody},
	{"userfaultfd", unix.SYS_USERFAULTFD, args(0x10001), unix.EPERM, anybody},
	{"bpf", unix.SYS_BPF, args(1, nowhere, 1<<20), unix.EPERM, anybody}, // of a map that is there, which no sysctl denies
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, args(nowhere, 0, 0, none, none), unix.EPERM, anybody},
	{"sync", unix.SYS_SYNC, args(), unix.EPERM, anybody},
	{"fanotify_init", unix.SYS_FANOTIFY_INIT, args(0x200, 1<<31), unix.EPERM, anybody},

	{"ptrace", unix.SYS_PTRACE, args(unix.PTRACE_PEEKDATA, 1<<30), unix.EPERM, anybody},
	{"process_vm_readv", unix.SYS_PROCESS_VM_READV, args(1, 0, 0, 0, 0, none), unix.EPERM, anybody},
	{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, args(1, 0, 0, 0, 0, none), unix.EPERM, anybody},
	{"process_madvise", unix.SYS_PROCESS_MADVISE, args(none, 0, 0, 0, none), unix.EPERM, anybody},
	{"pidfd_getfd", unix.SYS_PIDFD_GETFD, args(none, 0, 0), unix.EPERM, anybody},
	{"kcmp", unix.SYS_KCMP, args(1<<30, 1<<30), unix.EPERM, anybody},
	{"move_pages", unix.SYS_MOVE_PAGES, args(0, 0, 0, 0, 0, none), unix.EPERM, anybody},

	{"mount", unix.SYS_MOUNT, args(nowhere, nowhere, nowhere), unix.EPERM, anybody},
	{"umount2", unix.SYS_UMOUNT2, args(nowhere, 0xff00), unix.EPERM, anybody},
	{"pivot_root", unix.SYS_PIVOT_ROOT, args(nowhere, nowhere), unix.EPERM, nobody},
	{"chroot", unix.SYS_CHROOT, args(nowhere), unix.EPERM, anybody},
	{"open_tree", unix.SYS_OPEN_TREE, args(none, nowhere, none), unix.EPERM, anybody},
	{"move_mount", unix.SYS_MOVE_MOUNT, args(none, nowhere, none, nowhere), unix.EPERM, nobody},
	{"fsopen", unix.SYS_FSOPEN, args(nowhere, none), unix.EPERM, nobody},
	{"fsconfig", unix.SYS_FSCONFIG, args(none, 99), unix.EPERM, anybody},
	{"fsmount", unix.SYS_FSMOUNT, args(none, none), unix.EPERM, nobody},
	{"fspick", unix.SYS_FSPICK, args(none, nowhere, none), unix.EPERM, nobody},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR, args(none, nowhere, none), unix.EPERM, anybody},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, args(none, nowhere), unix.EPERM, nobody},

	{"unshare users", unix.SYS_UNSHARE, args(unix.CLONE_NEWUSER | unix.CLONE_VFORK), unix.EPERM, anybody},
	{"unshare time", unix.SYS_UNSHARE, args(unix.CLONE_NEWTIME | unix.CLONE_VFORK), unix.EPERM, anybody},
	{"setns", unix.SYS_SETNS, args(none, 0), unix.EPERM, anybody},
	{"clone3", unix.SYS_CLONE3, args(0, 0), unix.ENOSYS, anybody},

	{"kexec_load", unix.SYS_KEXEC_LOAD, args(0, 1<<20), unix.EPERM, nobody},
	{"init_module", unix.SYS_INIT_MODULE, args(nowhere), unix.EPERM, nobody},
	{"finit_module", unix.SYS_FINIT_MODULE, args(none), unix.EPERM, nobody},
	{"delete_module", unix.SYS_DELETE_MODULE, args(nowhere), unix.EPERM, nobody},
	{"swapon", unix.SYS_SWAPON, args(nowhere, none), unix.EPERM, anybody},
	{"swapoff", unix.SYS_SWAPOFF, args(nowhere), unix.EPERM, nobody},
	{"reboot", unix.SYS_REBOOT, args(0), unix.EPERM, nobody},
	{"acct", unix.SYS_ACCT, args(nowhere), unix.EPERM, nobody},
	{"quotactl", unix.SYS_QUOTACTL, args(0xff, nowhere), unix.EPERM, anybody},
	{"clock_settime", unix.SYS_CLOCK_SETTIME, args(9999, nowhere), unix.EPERM, anybody},
	{"settimeofday", unix.SYS_SETTIMEOFDAY, args(nowhere), unix.EPERM, anybody},
	{"clock_adjtime", unix.SYS_CLOCK_ADJTIME, args(9999, nowhere), unix.EPERM, anybody},
	{"adjtimex", unix.SYS_ADJTIMEX, args(nowhere), unix.EPERM, anybody},
	{"syslog", unix.SYS_SYSLOG, args(99), unix.EPERM, nobody},
	{"sethostname", unix.SYS_SETHOSTNAME, args(nowhere, 1<<20), unix.EPERM, nobody},
	{"setdomainname", unix.SYS_SETDOMAINNAME, args(nowhere, 1<<20), unix.EPERM, nobody},
	{"personality", unix.SYS_PERSONALITY, args(0x400000), unix.EPERM, anybody},
	{"newer than the profile", 1000, args(), unix.ENOSYS, nobody},

	{"TIOCSTI", unix.SYS_IOCTL, args(none, unix.TIOCSTI), unix.EPERM, anybody},
	{"TIOCSTI in disguise", unix.SYS_IOCTL, args(none, highBit|unix.TIOCSTI), unix.EPERM, anybody},
	{"TIOCLINUX", unix.SYS_IOCTL, args(none, 0x541c), unix.EPERM, anybody},
	{"SO_ATTACH_FILTER", unix.SYS_SETSOCKOPT, args(none, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER), unix.EPERM, anybody},
	{"SO_ATTACH_BPF", unix.SYS_SETSOCKOPT, args(none, unix.SOL_SOCKET, unix.SO_ATTACH_BPF), unix.EPERM, anybody},
	{"SO_ATTACH_REUSEPORT_CBPF", unix.SYS_SETSOCKOPT, args(none, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF), unix.EPERM, anybody},
	{"SO_ATTACH_REUSEPORT_EBPF", unix.SYS_SETSOCKOPT, args(none, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF), unix.EPERM, anybody},
	{"seccomp filter", unix.SYS_SECCOMP, args(unix.SECCOMP_SET_MODE_FILTER, 0, nowhere), unix.EINVAL, anybody},
	{"seccomp filter by prctl", unix.SYS_PRCTL, args(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, nowhere), unix.EINVAL, anybody},
	{"F_SETLEASE", unix.SYS_FCNTL, args(none, unix.F_SETLEASE), unix.EPERM, anybody},
	{"F_SETFL of O_DIRECT", unix.SYS_FCNTL, args(none, unix.F_SETFL, unix.O_DIRECT), unix.EINVAL, anybody},
	{"openat of O_DIRECT", unix.SYS_OPENAT, args(none, nowhere, unix.O_DIRECT), unix.EINVAL, anybody},
	{"openat2", unix.SYS_OPENAT2, args(none, nowhere, nowhere, 0), unix.ENOSYS, anybody},
	{"F_NOTIFY", unix.SYS_FCNTL, args(none, unix.F_NOTIFY), unix.EPERM, anybody},

	{"the agent's limits", unix.SYS_PRLIMIT64, args(1, unix.RLIMIT_NOFILE), unix.EPERM, root},
	{"another's limits", unix.SYS_PRLIMIT64, args(1<<30, unix.RLIMIT_NOFILE, nowhere), unix.EPERM, anybody},
	{"a user's priority", unix.SYS_SETPRIORITY, args(unix.PRIO_USER, 1<<30, 0), unix.EPERM, anybody},
	{"a user's input and output", unix.SYS_IOPRIO_SET, args(3, 1<<30, 0xffff), unix.EPERM, anybody},
	{"the agent's processors", unix.SYS_SCHED_SETAFFINITY, args(1, 8, nowhere), unix.EPERM, anybody},
	{"the agent's scheduler", unix.SYS_SCHED_SETSCHEDULER, args(1, none), unix.EPERM, anybody},
	{"the agent's parameters", unix.SYS_SCHED_SETPARAM, args(1, 0), unix.EPERM, anybody},
	{"the agent's attributes", unix.SYS_SCHED_SETATTR, args(1, 0), unix.EPERM, anybody},
	{"the agent's priority", unix.SYS_SETPRIORITY, args(unix.PRIO_PROCESS, 1, 0), unix.EPERM, root},
	{"the agent's input and output", unix.SYS_IOPRIO_SET, args(1, 1, 0xffff), unix.EPERM, anybody},
}

// amd64Probes are probes of calls that arm64 doesn't have.
var amd64Probes = []probe{
	{"iopl", 172, args(99), unix.EPERM, anybody},
	{"ioperm", 173, args(1<<20, 1), unix.EPERM, anybody},
	{"modify_ldt", 154, args(99), unix.EPERM, anybody},
	{"ustat", 136, args(0, nowhere), unix.EPERM, anybody},
	{"x32", 0x40000000 | 39, args(), unix.ENOSYS, nobody}, // the host may not have it
}

// allProbes are those of this architecture.
func allProbes() []probe {
	if runtime.GOARCH == "amd64" {
		return append(probes[:len(probes):len(probes)], amd64Probes...)
	}
	return probes
}

func init() {
	// Inside a sandbox: makes each probe's call and prints the error number.
	helpers["probes"] = func([]string) error {
		for _, p := range allProbes() {
			_, _, errno := unix.Syscall6(p.nr, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], p.args[5])
			fmt.Printf("%s\t%d\n", p.name, int(errno))
		}
		fmt.Printf("clone users\t%d\n", int(cloneUsers()))
		return nil
	}
}

// cloneUsers starts a program in a user namespace.
func cloneUsers() syscall.Errno {
	cmd := exec.Command("/usr/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	err := cmd.Run()
	var errno syscall.Errno
	_ = errors.As(err, &errno)
	return errno
}
