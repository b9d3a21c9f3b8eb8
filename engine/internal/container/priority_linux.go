//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Favour has the kernel run an agent's threads before all else in its sandbox, however many processes that has at work.
// A priority counts within a cgroup alone, so that this takes nothing of others; what the sandbox starts is of ordinary
// priority, and can't raise its own. So is a thread that the agent's runtime is about to make. It is no error if this
// program may not: it lacks CAP_SYS_NICE then.
func Favour(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	attr := &unix.SchedAttr{
		Size:   unix.SizeofSchedAttr,
		Policy: unix.SCHED_NORMAL,
		Flags:  unix.SCHED_FLAG_RESET_ON_FORK, // see sched(7)
		Nice:   -20,
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err == nil {
			err = os.NewSyscallError("sched_setattr", unix.SchedSetAttr(tid, attr, 0))
		}
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.ESRCH) { // a thread that has ended
			return err
		}
	}
	return nil
}
