//go:build linux && cgo

package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SetHostname sets the host name of a sandbox, which is pid's. The sandbox can't.
func SetHostname(pid int, name string) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return os.NewSyscallError("sethostname", unix.Sethostname([]byte(name)))
	})
}
