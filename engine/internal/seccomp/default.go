package seccomp

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// allowed are the system calls of ordinary software, whatever their arguments. What isn't here, and in none of the
// lists below, is denied: among it the kernel's keyrings, which know no namespaces; io_uring, bpf, userfaultfd and
// perf_event_open, in which most of the kernel's holes of late were; ptrace, process_vm_* and pidfd_getfd, by which
// a process takes over another; mounting in its old and new forms; other namespaces; handles of files; fanotify;
// sync, which has the whole machine's file systems written (syncfs is there, and libc's sync knows no errors);
// modules, kexec, swap, accounting, quotas and the clock, which are the host's; and what is obsolete.
const allowed = `
	access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
	fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fdatasync fgetxattr file_getattr file_setattr flistxattr
	flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat
	lchown lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir
	mkdirat mknod mknodat name_to_handle_at newfstatat pread64 preadv preadv2 pwrite64 pwritev
	pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile
	setxattr setxattrat splice stat statfs statmount statx symlink symlinkat sync_file_range syncfs tee truncate
	umask unlink unlinkat utime utimensat utimes vmsplice write writev

	epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 inotify_add_watch
	inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_submit pipe
	pipe2 poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime

	brk cachestat get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mlock mlock2
	mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
	remap_file_pages set_mempolicy set_mempolicy_home_node

	execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid getppid getsid gettid
	pidfd_open pidfd_send_signal process_mrelease restart_syscall rseq rseq_slice_yield set_robust_list
	set_thread_area set_tid_address setpgid setsid uprobe uretprobe vfork wait4 waitid arch_prctl

	futex futex_requeue futex_wait futex_waitv futex_wake

	kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
	rt_tgsigqueueinfo sigaltstack tgkill tkill

	capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups
	setregid setresgid setresuid setreuid setuid

	getcpu getpriority getrlimit getrusage ioprio_get sched_get_priority_max sched_get_priority_min sched_getaffinity
	sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_yield setrlimit sysinfo times uname

	alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
	timer_delete timer_getoverrun timer_gettime timer_settime

	accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
	sendto shutdown

	mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
	semop semtimedop shmat shmctl shmdt shmget

	getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self
`

// What system calls take, from the kernel's headers.
const (
	newNamespaces = 0x7e020000 // CLONE_NEWNS, …CGROUP, …UTS, …IPC, …USER, …PID, …NET
	newTime       = 0x80       // CLONE_NEWTIME; in clone, part of the signal's number

	fSetFlags = 4
	fSetLease = 1024
	fNotify   = 1026

	tiocSTI   = 0x5412
	tiocLinux = 0x541c

	afUnix    = 1
	afInet    = 2
	afInet6   = 10
	afNetlink = 16

	netlinkRoute = 0

	solSocket             = 1
	soAttachFilter        = 26
	soAttachBPF           = 50
	soAttachReuseportCBPF = 51
	soAttachReuseportEBPF = 52

	seccompSetModeFilter = 1 // of seccomp
	prSetSeccomp         = 22
	seccompModeFilter    = 2 // of prctl

	agentPID = 1

	prioUser   = 2
	ioprioUser = 3
)

// protocols are those of the internet that need no module of the kernel: any, ICMP, TCP, UDP, ICMPv6, MPTCP.
var protocols = []uint64{0, 1, 6, 17, 58, 262}

// personalities are Linux's own, with uname(2)'s answer of 32 bits or of version 2.6, or addresses that are
// not randomised; and the question what it is.
var personalities = []uint64{0, 0x8, 0x20000, 0x20008, 0x40000, 0xffffffff}

// oDirect is O_DIRECT by architecture, as runtime.GOARCH names them.
var oDirect = map[string]uint64{"amd64": 0x4000, "arm64": 0x10000}

// Default is the profile of a sandbox that names none, on an architecture. What it denies is EPERM, or what the kernel says that
// hasn't got it. It is the caller's to change.
func Default(arch string) *specs.LinuxSeccomp {
	p := &profile{}
	p.allow(allowed)
	// libc uses clone then, whose flags can be looked at.
	p.deny(enosys, "clone3")
	// Of the kernel's asynchronous reads and writes there is a number for the whole machine, fs.aio-max-nr, which one
	// guest could take.
	p.deny(enosys, "io_setup")
	p.allow("clone", bits(0, newNamespaces, 0))
	p.allow("unshare", bits(0, newNamespaces|newTime, 0))
	for _, v := range personalities {
		p.allow("personality", is(0, v))
	}
	p.direct(oDirect[arch])
	p.allow("open openat")
	// A lease keeps others from opening a file; a notification keeps a directory that is the host's busy.
	p.deny(eperm, "fcntl", is(1, fSetLease))
	p.deny(eperm, "fcntl", is(1, fNotify))
	p.allow("fcntl")
	// Both put input into a terminal, as if its user had typed it.
	p.deny(eperm, "ioctl", is(1, tiocSTI))
	p.deny(eperm, "ioctl", is(1, tiocLinux))
	p.allow("ioctl")
	p.sockets()
	p.filters()
	p.sparing()
	errno := uint(eperm)
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, Syscalls: p.list}
}

// direct denies direct transfers, whose flag is given, as a file system does that has none: for each piece of a file the kernel
// keeps a note that counts for nobody's memory, of half a million pieces for one call; while that lasts, which a guest decides,
// the file is locked, and the process neither ends nor stops. Where openat2 has its flags can't be looked at.
func (p *profile) direct(flag uint64) {
	if flag == 0 {
		return
	}
	p.deny(einval, "open", bits(1, flag, flag))
	p.deny(einval, "openat", bits(2, flag, flag))
	p.deny(einval, "fcntl", is(1, fSetFlags), bits(2, flag, flag))
	p.deny(enosys, "openat2")
}

// sockets allows families and protocols that ordinary software uses. The others are where a guest reaches the
// machine's hypervisor (AF_VSOCK), the kernel's ciphers (AF_ALG), or has rare modules loaded.
func (p *profile) sockets() {
	p.allow("socket socketpair", is(0, afUnix))
	for _, family := range []uint64{afInet, afInet6} {
		for _, protocol := range protocols {
			p.allow("socket", is(0, family), is(2, protocol))
		}
		p.deny(eprotonosupport, "socket", is(0, family))
	}
	p.allow("socket", is(0, afNetlink), is(2, netlinkRoute)) // for getifaddrs and ip
	p.deny(eprotonosupport, "socket", is(0, afNetlink))
	p.deny(eafnosupport, "socket socketpair")
}

// filters denies programs that the kernel compiles and keeps: of sockets and of system calls. They count for nobody's
// memory, all of them have one bound for the machine (net.core.bpf_jit_limit), and thousands that end at once, with
// the sockets that have them, were seen to stop Linux 6.18 for good: their ends are deferred work that waits for a
// mutex, whose owner waits for work that comes after them. A kernel without seccomp filters says EINVAL, which
// libseccomp and its users know.
func (p *profile) filters() {
	for _, option := range []uint64{soAttachFilter, soAttachBPF, soAttachReuseportCBPF, soAttachReuseportEBPF} {
		p.deny(eperm, "setsockopt", is(1, solSocket), is(2, option))
	}
	p.allow("setsockopt")
	p.deny(einval, "seccomp", is(0, seccompSetModeFilter))
	p.allow("seccomp")
	p.deny(einval, "prctl", is(0, prSetSeccomp), specs.LinuxSeccompArg{Index: 1, Value: seccompModeFilter, Op: specs.OpEqualTo})
	p.allow("prctl")
}

// sparing keeps root in the sandbox from slowing down or choking the agent's process. Its threads have numbers of
// their own, which can't be told here. By one of them the limits of all could be changed: nobody can change another's.
func (p *profile) sparing() {
	p.deny(eperm, "prlimit64", is(0, agentPID))
	p.allow("prlimit64", is(0, 0))                                             // the caller's
	p.allow("prlimit64", specs.LinuxSeccompArg{Index: 2, Op: specs.OpEqualTo}) // a question
	p.deny(eperm, "prlimit64")
	const scheduling = "sched_setaffinity sched_setattr sched_setparam sched_setscheduler"
	p.deny(eperm, scheduling, is(0, agentPID))
	p.allow(scheduling)
	const priorities = "setpriority ioprio_set" // of a process, a group, a user
	p.deny(eperm, priorities, is(1, agentPID))
	p.deny(eperm, "setpriority", is(0, prioUser))
	p.deny(eperm, "ioprio_set", is(0, ioprioUser))
	p.allow(priorities)
}

// profile collects entries.
type profile struct{ list []specs.LinuxSyscall }

func (p *profile) allow(names string, args ...specs.LinuxSeccompArg) {
	p.list = append(p.list, specs.LinuxSyscall{Names: strings.Fields(names), Action: specs.ActAllow, Args: args})
}

func (p *profile) deny(errno uint, names string, args ...specs.LinuxSeccompArg) {
	p.list = append(p.list, specs.LinuxSyscall{Names: strings.Fields(names), Action: specs.ActErrno, ErrnoRet: &errno, Args: args})
}

// is holds if an argument is v in the 32 bits that the kernel looks at. Comparing all 64 would let a guest set one
// of those above to get past what is denied.
func is(i uint, v uint64) specs.LinuxSeccompArg { return bits(i, 0xffffffff, v) }

// bits holds if an argument is v in the bits of mask.
func bits(i uint, mask, v uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: i, Value: mask, ValueTwo: v, Op: specs.OpMaskedEqual}
}
