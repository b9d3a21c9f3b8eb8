//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// All that differs between cgroup v1 and v2 is behind libcontainer's manager.
func cgroup(id string) (cgroups.Manager, error) {
	m, err := manager.New(&cgroups.Cgroup{Path: cgroupPath(id), Resources: &cgroups.Resources{}})
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return m, nil
}

// rememberCgroupRoot has the cgroups package open /sys/fs/cgroup, which it does once for all. On the thread of
// Start it would open the one of a mount namespace that is soon gone.
var rememberCgroupRoot = sync.OnceFunc(func() {
	if f, err := cgroups.OpenFile("/sys/fs/cgroup", "cgroup.procs", unix.O_RDONLY); err == nil {
		_ = f.Close() // cgroup v1 has no such file there, which doesn't matter
	}
})

// SetMemory limits a sandbox's memory, in bytes, swap included.
func SetMemory(id string, limit int64) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	r := &cgroups.Resources{Memory: limit, MemorySwap: limit, SkipDevices: true}
	if path := m.Path("memory"); path != "" && !cgroups.IsCgroup2UnifiedMode() &&
		!cgroups.PathExists(filepath.Join(path, "memory.memsw.limit_in_bytes")) {
		r.MemorySwap = 0 // the kernel doesn't count swap, see swapaccount in its parameters
	}
	if err := m.Set(r); err != nil {
		return fmt.Errorf("set memory limit: %w", err)
	}
	return nil
}

// OOMKills is how many processes of a sandbox the kernel ended because its memory was used up.
func OOMKills(id string) (uint64, error) {
	m, err := cgroup(id)
	if err != nil {
		return 0, err
	}
	n, err := m.OOMKillCount()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return n, err
}

// Kill ends all processes of a sandbox, whoever created it, and waits until they have. It is no error
// if there are none.
func Kill(id string) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	for {
		pids, err := m.GetAllPids()
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("list processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		// A frozen process of cgroup v1 doesn't take the signal.
		if state, err := m.GetFreezerState(); err == nil && state == cgroups.Frozen {
			if err := m.Freeze(cgroups.Thawed); err != nil {
				return fmt.Errorf("thaw: %w", err)
			}
		}
		for _, pid := range pids {
			if err := kill(pid); err != nil {
				return err
			}
		}
	}
}

// kill ends a process and waits until it has.
func kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // gone, or a thread
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	return waitPidfd(fd, killTimeout)
}

// killTimeout is how long a killed process may take to end. One that takes longer hangs in the kernel.
const killTimeout = 10 * time.Second

// waitPidfd waits until a process, with all that is in a PID namespace below it, has ended.
func waitPidfd(fd int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n == 0:
			return errors.New("a killed process does not end")
		default:
			return nil
		}
	}
}

// RemoveCgroup removes the cgroup of a sandbox whose processes have ended.
func RemoveCgroup(id string) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	if err := m.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}
