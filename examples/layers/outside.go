//go:build linux

package main

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// find gives the number on the host of the process with a name among its arguments: the probe, or what runs it.
func find(name string) (int, error) {
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range list {
		data, err := os.ReadFile(path)
		if err != nil { // it has ended
			continue
		}
		args := strings.Split(string(data), "\x00")
		program := filepath.Base(args[0])
		if (program == "probe" || program == "runsc-sandbox") && slices.Contains(args, name) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("no process of %s is to be seen", name)
}

// A view is what the host's kernel tells of a process.
type view struct {
	status map[string]string // see proc_pid_status(5)
	shared []string          // the kinds of namespaces in which it is with the host
	limits map[string]string // of its cgroup, by controller; empty: none
	shm    bool              // it has a /dev/shm of its own, or none
}

// kinds are the namespaces that a sandbox can have of its own.
var kinds = []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}

func look(pid int) (v view, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if v.status, err = readStatus(filepath.Join(dir, "status")); err != nil {
		return v, err
	}
	for _, kind := range kinds {
		theirs, err := os.Readlink(filepath.Join(dir, "ns", kind))
		if err != nil {
			return v, err
		}
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return v, err
		}
		if theirs == ours {
			v.shared = append(v.shared, kind)
		}
	}
	theirs, err := os.Stat(filepath.Join(dir, "root/dev/shm"))
	ours, oursErr := os.Stat("/dev/shm")
	v.shm = err != nil || oursErr != nil || !os.SameFile(theirs, ours)
	v.limits, err = readLimits(filepath.Join(dir, "cgroup"))
	return v, err
}

func readStatus(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	return status, nil
}

// readLimits reads the limits that the cgroups named in a file, as cgroups(7) has it, set on their own or by those that
// they are in.
func readLimits(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	names := map[string]string{"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}
	limits := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(string(data))) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if f[1] == "" { // cgroup v2
			for controller, file := range map[string]string{"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"} {
				limits[controller] += limit("/sys/fs/cgroup", f[2], file)
			}
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			if file, ok := names[controller]; ok {
				limits[controller] += limit("/sys/fs/cgroup/"+controller, f[2], file)
			}
		}
	}
	return limits, nil
}

// limit reads a limit of a cgroup, or of the nearest above it that has one; empty: none.
func limit(root, cgroup, file string) string {
	for ; cgroup != "/"; cgroup = filepath.Dir(cgroup) {
		data, _ := os.ReadFile(filepath.Join(root, cgroup, file)) // absent where the kernel has no such controller
		value := strings.TrimSpace(string(data))
		n, err := strconv.ParseInt(value, 10, 64)
		none := value == "" || strings.HasPrefix(value, "max") || err == nil && (n < 0 || n > 1<<60)
		if !none {
			return value
		}
	}
	return ""
}

// outsideRows are the rows of what is seen from outside, of the processes in two sandboxes.
func outsideRows(a, b view) (rows []row) {
	add := func(layer string, on bool, note string) { rows = append(rows, row{layer, on, note}) }
	uid, uidB := strings.Fields(a.status["Uid"])[0], strings.Fields(b.status["Uid"])[0]
	add("root is nobody on the host", uid != "0", "uid "+uid)
	add("user ids of each sandbox's own", uid != uidB, "")
	capabilities, _ := strconv.ParseUint(a.status["CapBnd"], 16, 64)
	own := !slices.Contains(a.shared, "user")
	add("no capability on the host", own || capabilities == 0, "")
	if !own {
		rows[len(rows)-1].note = strconv.Itoa(bits.OnesCount64(capabilities))
	}
	add("no_new_privs", a.status["NoNewPrivs"] == "1", "")
	add("seccomp filter", a.status["Seccomp"] == "2", "")
	add("namespaces: "+strings.Join(kinds, ", "), len(a.shared) == 0, without(a.shared))
	add("`/dev/shm` of its own", a.shm, "")
	for _, controller := range []string{"memory", "pids", "cpu"} {
		add(controller+" limited", a.limits[controller] != "", "")
	}
	return rows
}

func without(kinds []string) string {
	if len(kinds) == 0 {
		return ""
	}
	return "without " + strings.Join(kinds, ", ")
}
