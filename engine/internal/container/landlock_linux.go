//go:build linux && cgo

package container

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LandlockABI is the version of the kernel's Landlock, see landlock(7); 0: it has none, or it isn't enabled.
func LandlockABI() int {
	v, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// scope keeps the calling thread, and all that it starts, from connecting to the abstract unix sockets of others, which
// belong to a network namespace and to no file. A sandbox with the host's network would reach those of the host.
//
// It is done here, to the thread that starts a sandbox, and not by the agent: Landlock before Linux 7.0 restricts a
// thread, and commands that different threads of the agent started would be kept from each other. Nothing else is
// handled: what the file system and signals are to a sandbox its namespaces decide, and a ruleset for files would
// keep the sandbox's first process from mounting any.
func scope() error {
	if LandlockABI() < ScopesABI {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}
	size := unsafe.Offsetof(attr.Scoped) + unsafe.Sizeof(attr.Scoped)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}
