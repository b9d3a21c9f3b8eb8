//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are system calls that programs seldom need and that holes in the kernel were often reached by. Each is made
// so that it does nothing: an error other than the layer's tells that the kernel has begun to work on it.
var calls = []layer{
	{"keyctl", func() error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		return except(err, unix.ENOKEY)
	}},
	{"io_uring", func() error {
		var params [120]byte
		return descriptor(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	}},
	{"bpf", func() error {
		array := [5]uint32{unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1}
		return descriptor(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&array)), unsafe.Sizeof(array))
	}},
	{"userfaultfd", func() error {
		const userModeOnly = 1
		return descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|userModeOnly, 0, 0)
	}},
	{"perf_event_open", func() error {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
		attr.Size = uint32(unsafe.Sizeof(attr))
		return closed(unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC))
	}},
	{"ptrace", func() error { return except(unix.PtraceSeize(1<<22-1), unix.ESRCH) }},
	{"mount", func() error { return except(unix.Mount("none", "/", "no-such-type", 0, ""), unix.ENODEV) }},
	{"clone, new user namespace", func() error { return again("nothing", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}, nil) }},
	{"those of i386", func() error { return again("i386", nil, nil) }},
	{"ioctl TIOCSTI", typeIntoTerminal},
	{"socket AF_PACKET", socket(unix.AF_PACKET, unix.SOCK_RAW)},
	{"socket AF_VSOCK", socket(unix.AF_VSOCK, unix.SOCK_STREAM)},
	{"socket AF_ALG", socket(unix.AF_ALG, unix.SOCK_SEQPACKET)},
	{"mknod", func() error {
		const path = "/dev/layers-null"
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
			return err
		}
		return os.Remove(path)
	}},
}

// except takes an error that comes after the layer for none.
func except(err error, later unix.Errno) error {
	if errors.Is(err, later) {
		return nil
	}
	return err
}

// descriptor makes a system call that gives a descriptor.
func descriptor(call, a, b, c uintptr) error {
	fd, _, errno := unix.Syscall(call, a, b, c)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// closed closes what could be opened.
func closed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func socket(family, kind int) func() error {
	return func() error { return closed(unix.Socket(family, kind, 0)) }
}

// again starts this program to attempt something that needs a process of its own, or may end it.
func again(what string, attr *syscall.SysProcAttr, stdin *os.File) error {
	cmd := exec.Command("/proc/self/exe", what)
	cmd.SysProcAttr = attr
	if stdin != nil { // a nil file would be no nil reader
		cmd.Stdin = stdin
	}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return unix.Errno(exit.ExitCode())
	}
	return err
}

// attempt is what the program does when started again; it gives an errno; 0: it was let through.
func attempt(what string) int {
	switch what {
	case "i386":
		if n := getpid386(); n < 0 {
			return int(-n)
		}
	case "TIOCSTI":
		key := byte('x')
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&key)))
		return int(errno)
	}
	return 0
}

// typeIntoTerminal makes a terminal, and starts a process on it which types into it, as a guest would type into that of
// the program that has started it.
func typeIntoTerminal() error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return let("no terminal")
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return let("no terminal")
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return let("no terminal")
	}
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return let("no terminal")
	}
	defer terminal.Close()
	return again("TIOCSTI", &syscall.SysProcAttr{Setsid: true, Setctty: true}, terminal)
}
