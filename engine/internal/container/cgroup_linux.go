//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// All that differs between cgroup v1 and v2 is behind the manager of runc's cgroups.
func cgroup(id string) (cgroups.Manager, error) {
	return managerOf(&cgroups.Cgroup{Path: cgroupPath(id), Resources: &cgroups.Resources{}})
}

func managerOf(c *cgroups.Cgroup) (cgroups.Manager, error) {
	dirs, err := hierarchies()
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	paths := make(map[string]string, len(dirs))
	for controller, dir := range dirs {
		paths[controller] = filepath.Join(dir, c.Path)
	}
	m, err := manager.NewWithPaths(c, paths)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return m, nil
}

// needed are the hierarchies of version 1 in which a sandbox has a cgroup of its own. Others would be for nothing, and each
// takes time to make and to remove: there it stays where this program is.
var needed = []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer", "blkio", "name=systemd"}

var (
	rootsMu sync.Mutex
	roots   map[string]string // what hierarchies gives; nil: not looked up
)

// hierarchies gives where the hierarchies are mounted, by controller; that of version 2 is "". They are looked up once, as the
// package would do for each manager.
func hierarchies() (map[string]string, error) {
	rootsMu.Lock()
	defer rootsMu.Unlock()
	if roots != nil {
		return roots, nil
	}
	m, err := manager.New(&cgroups.Cgroup{Path: "/", Resources: &cgroups.Resources{}})
	if err != nil {
		return nil, err
	}
	all := m.GetPaths()
	if !cgroups.IsCgroup2UnifiedMode() {
		keep := map[string]bool{} // by directory: controllers may share a hierarchy
		for _, controller := range needed {
			keep[all[controller]] = true
		}
		maps.DeleteFunc(all, func(_, root string) bool { return !keep[root] })
	}
	roots = all
	return roots, nil
}

// rememberCgroupRoot has the cgroups package open /sys/fs/cgroup, which it does once for all. On the thread of
// Start it would open the one of a mount namespace that is soon gone.
var rememberCgroupRoot = sync.OnceFunc(func() {
	if f, err := cgroups.OpenFile("/sys/fs/cgroup", "cgroup.procs", unix.O_RDONLY); err == nil {
		_ = f.Close() // cgroup v1 has no such file there, which doesn't matter
	}
})

// SetLimits changes a sandbox's limits.
func SetLimits(id string, l Limits) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	r := &cgroups.Resources{Memory: max(-1, l.Memory), MemorySwap: max(-1, l.Memory), SkipDevices: true}
	if path := m.Path("memory"); path != "" && !cgroups.IsCgroup2UnifiedMode() &&
		!cgroups.PathExists(filepath.Join(path, "memory.memsw.limit_in_bytes")) {
		r.MemorySwap = 0 // the kernel doesn't count swap, see swapaccount in its parameters
	}
	switch {
	case l.CPUs > 0:
		r.CpuQuota, r.CpuPeriod = cpuTime(l.CPUs)
	case l.CPUs < 0:
		r.CpuQuota, r.CpuPeriod = -1, cpuPeriod
	}
	if l.Processes != 0 {
		n := max(-1, l.Processes)
		r.PidsLimit = &n
	}
	if l.DiskIOPS != 0 {
		if err := limitTransfers(m, r, l.Disk, l.DiskIOPS); err != nil {
			return err
		}
	}
	if err := set(m, r); err != nil {
		return fmt.Errorf("set limits: %w", err)
	}
	return limitTCP(m, l.Memory)
}

// makeCgroup makes a cgroup with its limits. On cgroup v1 it gives what a thread writes to which files to enter it. To put
// another's process into a cgroup the kernel stops all forks on the machine, and waits for a grace period of RCU, which takes
// some 10 ms if it wasn't done a moment ago; a thread that enters by itself it lets in at once.
func makeCgroup(m cgroups.Manager, r *cgroups.Resources) (enter [][2]string, err error) {
	const nobody = -1
	if err := m.Apply(nobody); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	if err := set(m, r); err != nil {
		return nil, fmt.Errorf("limit cgroup: %w", err)
	}
	if cgroups.IsCgroup2UnifiedMode() {
		return nil, nil
	}
	for _, path := range m.GetPaths() {
		enter = append(enter, [2]string{filepath.Join(path, "tasks"), "0"})
	}
	return enter, nil
}

// enterCgroup puts a process into a cgroup of version 2, where no thread can enter alone.
func enterCgroup(m cgroups.Manager, pid int) error {
	if !cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	if err := m.Apply(pid); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	return nil
}

var setMu sync.Mutex

// set is m.Set, one at a time: the package keeps what it has found out of the kernel without a lock.
func set(m cgroups.Manager, r *cgroups.Resources) error {
	setMu.Lock()
	defer setMu.Unlock()
	return m.Set(r)
}

// limitTCP limits what cgroup v1 doesn't count as memory: that of TCP's queues. Version 2 does.
func limitTCP(m cgroups.Manager, memory int64) error {
	path := m.Path("memory")
	if memory == 0 || cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	err := cgroups.WriteFile(path, "memory.kmem.tcp.limit_in_bytes", strconv.FormatInt(max(-1, memory), 10))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("limit TCP memory: %w", err)
	}
	return nil
}

// OOMCounter counts how many processes of a sandbox the kernel ended because its memory was used up, without
// looking for the sandbox each time.
type OOMCounter struct{ file string }

// CountOOM gives a sandbox's counter.
func CountOOM(id string) (OOMCounter, error) {
	m, err := cgroup(id)
	if err != nil {
		return OOMCounter{}, err
	}
	if cgroups.IsCgroup2UnifiedMode() {
		return OOMCounter{filepath.Join(m.Path(""), "memory.events")}, nil
	}
	return OOMCounter{filepath.Join(m.Path("memory"), "memory.oom_control")}, nil
}

// Kills is the count.
func (c OOMCounter) Kills() (uint64, error) {
	data, err := readCounts(c.file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(data) {
		if number, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no oom_kill", filepath.Base(c.file))
}

// readCounts reads a small file of a cgroup. Package os would have the runtime poll it for events, since there are some, and
// so wake another thread.
func readCounts(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096) // no such file is larger
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return string(buf[:n]), nil
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

// Kill ends all processes of a sandbox, whoever created it, and waits until they have. It is no error if there are none.
// One that takes longer than patience hangs in the kernel, and is one.
func Kill(id string, patience time.Duration) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	for {
		pids, err := m.GetAllPids()
		if err != nil && !isGone(err) {
			return fmt.Errorf("list processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		if err := killAll(m, pids, patience); err != nil {
			return err
		}
	}
}

// KillStarting ends what the agent of a sandbox, whose process is agent, has forked and what has not executed a program, if
// it is among those before. It gives all that there are.
func KillStarting(id string, agent int, before []int) (starting []int, err error) {
	m, err := cgroup(id)
	if err != nil {
		return nil, err
	}
	own, err := os.Stat(program(agent))
	if err != nil {
		return nil, err
	}
	pids, err := m.GetAllPids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, pid := range pids {
		if pid == agent {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		if fi, err := os.Stat(program(pid)); err == nil && os.SameFile(fi, own) {
			starting = append(starting, pid)
			if slices.Contains(before, pid) {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended
			}
		}
		_ = unix.Close(fd)
	}
	return starting, nil
}

// program is what a process executes, see proc_pid_exe(5).
func program(pid int) string { return fmt.Sprintf("/proc/%d/exe", pid) }

// killAll ends processes and waits until they have. One that cgroup v1 has frozen takes the signal when it is
// thawed, before it does anything else.
func killAll(m cgroups.Manager, pids []int, patience time.Duration) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH || err == unix.EINVAL { // gone, or a thread
			continue
		}
		if err != nil {
			return fmt.Errorf("pidfd_open: %w", err)
		}
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if len(fds) < killBatch {
			fds = append(fds, fd)
		} else {
			_ = unix.Close(fd)
		}
		if err != nil && err != unix.ESRCH {
			return fmt.Errorf("pidfd_send_signal: %w", err)
		}
	}
	if err := thaw(m); err != nil {
		return err
	}
	herr := hasten(m) // which only matters if they don't end
	for _, fd := range fds {
		if err := waitPidfd(fd, patience); err != nil {
			return errors.Join(err, herr)
		}
	}
	return nil
}

// isGone tells whether an error means that a cgroup isn't there any more, or is about to go.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// killBatch is for how many of the processes Kill waits at a time.
const killBatch = 64

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

// HasCgroup tells whether a sandbox has a cgroup, as it has as long as it has processes.
func HasCgroup(id string) (bool, error) {
	m, err := cgroup(id)
	if err != nil {
		return false, err
	}
	return m.Exists(), nil
}

// Freeze stops all processes of a sandbox, the agent too, until Thaw or Kill.
func Freeze(id string) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	// A process isn't frozen while it waits for a transfer.
	device, n, err := readTransfers(m)
	if err == nil {
		err = hasten(m)
	}
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	if err = awaitFrozen(m); err == nil {
		err = m.Freeze(cgroups.Frozen)
	}
	if err != nil {
		err = fmt.Errorf("freeze: %w", err)
	}
	if n >= 0 {
		err = errors.Join(err, writeTransfers(m, device, n))
	}
	return err
}

// freezeTimeout is how long processes may take to come to where they can be frozen.
const freezeTimeout = 8 * time.Second

// awaitFrozen freezes the processes of a cgroup of version 1. The package that we use lets them go on after a quarter of a
// second, and so tries in vain while some are in calls that last: others begin new ones.
func awaitFrozen(m cgroups.Manager) error {
	path := m.Path("freezer")
	if path == "" || cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	const soon = 20 // looks until it is worth to sleep
	for n, deadline := 0, time.Now().Add(freezeTimeout); time.Now().Before(deadline); n++ {
		// Again and again: one that was forked meanwhile may have been left out.
		if err := cgroups.WriteFile(path, "freezer.state", string(cgroups.Frozen)); err != nil {
			return err
		}
		state, err := cgroups.ReadFile(path, "freezer.state")
		if err != nil || strings.TrimSpace(state) == string(cgroups.Frozen) {
			return err
		}
		if n > soon {
			time.Sleep(time.Millisecond) // the kernel doesn't tell when all are frozen
		}
	}
	return nil // and the package tells
}

// Thaw lets the processes of a sandbox go on.
func Thaw(id string) error {
	m, err := cgroup(id)
	if err != nil {
		return err
	}
	return thaw(m)
}

func thaw(m cgroups.Manager) error {
	state, err := m.GetFreezerState()
	if err != nil {
		return fmt.Errorf("read freezer: %w", err)
	}
	if state != cgroups.Frozen { // nothing to thaw, or no cgroup any more
		return nil
	}
	if err := m.Freeze(cgroups.Thawed); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

// Frozen tells whether a sandbox's processes are stopped by Freeze.
func Frozen(id string) (bool, error) {
	m, err := cgroup(id)
	if err != nil {
		return false, err
	}
	state, err := m.GetFreezerState()
	return state == cgroups.Frozen, err
}

// ReadUsage reads what a sandbox takes, and has taken, of the host.
func ReadUsage(id string) (Usage, error) {
	m, err := cgroup(id)
	if err != nil {
		return Usage{}, err
	}
	s, err := m.GetStats()
	if err != nil {
		return Usage{}, fmt.Errorf("read cgroup: %w", err)
	}
	u := Usage{
		CPU:        time.Duration(s.CpuStats.CpuUsage.TotalUsage),
		Throttled:  time.Duration(s.CpuStats.ThrottlingData.ThrottledTime),
		Memory:     int64(s.MemoryStats.Usage.Usage),
		MemoryPeak: int64(s.MemoryStats.Usage.MaxUsage),
		Processes:  int(s.PidsStats.Current),
	}
	u.OOMKills, err = OOMKills(id)
	if err == nil {
		u.ProcessesRefused, err = processesRefused(m)
	}
	return u, err
}

// processesRefused reads how often a fork was refused for the limit on processes, which both versions have
// in the same file.
func processesRefused(m cgroups.Manager) (uint64, error) {
	data, err := cgroups.ReadFile(m.Path("pids"), "pids.events")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var n uint64
	if err == nil {
		_, err = fmt.Sscanf(data, "max %d", &n)
	}
	return n, err
}

// ReadLimits reads what the cgroup holds a sandbox to; negative: no limit.
func ReadLimits(id string) (Limits, error) {
	m, err := cgroup(id)
	if err != nil {
		return Limits{}, err
	}
	s, err := m.GetStats()
	if err != nil {
		return Limits{}, fmt.Errorf("read cgroup: %w", err)
	}
	l := Limits{Memory: -1, Processes: -1}
	if n := s.MemoryStats.Usage.Limit; n < 1<<62 { // above that the kernel means none
		l.Memory = int64(n)
	}
	if n := s.PidsStats.Limit; n > 0 {
		l.Processes = int64(n)
	}
	if l.CPUs, err = readCPUs(m); err != nil {
		return Limits{}, err
	}
	l.Disk, l.DiskIOPS, err = readTransfers(m)
	return l, err
}

// readCPUs reads the processor time that a sandbox may have in each period.
func readCPUs(m cgroups.Manager) (float64, error) {
	var quota, period string
	if cgroups.IsCgroup2UnifiedMode() {
		data, err := cgroups.ReadFile(m.Path(""), "cpu.max") // "max 100000" or "50000 100000"
		if err != nil {
			return 0, err
		}
		quota, period, _ = strings.Cut(strings.TrimSpace(data), " ")
	} else {
		var err error
		if quota, err = cgroups.ReadFile(m.Path("cpu"), "cpu.cfs_quota_us"); err != nil {
			return 0, err
		}
		if period, err = cgroups.ReadFile(m.Path("cpu"), "cpu.cfs_period_us"); err != nil {
			return 0, err
		}
	}
	q, qerr := strconv.ParseFloat(strings.TrimSpace(quota), 64)
	p, perr := strconv.ParseFloat(strings.TrimSpace(period), 64)
	if qerr != nil || perr != nil || q < 0 || p <= 0 {
		return -1, nil // "max" or -1
	}
	return q / p, nil
}

// Controllers tells which version of cgroups the host has, and which of the controllers that limits need are missing, by their
// names in version 2.
func Controllers() (version string, missing []string, err error) {
	need := []string{"cpu", "memory", "pids", "io"}
	if cgroups.IsCgroup2UnifiedMode() {
		data, err := cgroups.ReadFile("/sys/fs/cgroup", "cgroup.controllers")
		if err != nil {
			return "", nil, err
		}
		have := strings.Fields(data)
		missing = slices.DeleteFunc(need, func(name string) bool { return slices.Contains(have, name) })
		return "version 2", missing, nil
	}
	m, err := cgroup("probe") // which isn't made
	if err != nil {
		return "", nil, err
	}
	missing = slices.DeleteFunc(append(need, "devices", "freezer"), func(name string) bool {
		return m.Path(name) != "" || name == "io" && m.Path("blkio") != ""
	})
	return "version 1", missing, nil
}
