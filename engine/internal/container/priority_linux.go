//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Favour has the kernel run an agent's threads before all else in its sandbox, but for the one whose name is given.
// A priority counts within a cgroup alone, so that this takes nothing of others; and what the sandbox starts is of the
// thread that it leaves out, and can't raise its own. It is no error if this program may not: it lacks CAP_SYS_NICE then.
func Favour(pid int, except string) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	for _, thread := range threads {
		err = errors.Join(err, favour(dir, thread.Name(), except))
	}
	if err != nil {
		return fmt.Errorf("raise priority: %w", err)
	}
	return nil
}

func favour(dir, thread, except string) error {
	const first = -20 // see setpriority(2)
	comm, err := os.ReadFile(dir + "/" + thread + "/comm")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || strings.TrimSpace(string(comm)) == except {
		return nil
	}
	if err != nil {
		return err
	}
	tid, err := strconv.Atoi(thread)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, tid, first)
	}
	if err == unix.ESRCH || err == unix.EACCES || err == unix.EPERM {
		return nil
	}
	return os.NewSyscallError("setpriority", err)
}
