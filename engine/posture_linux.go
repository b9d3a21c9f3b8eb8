package engine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// readPosture reads what proc(5) says of a process.
func readPosture(pid int) (p Posture, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if err := p.readStatus(filepath.Join(dir, "status")); err != nil {
		return p, err
	}
	p.Namespaces = map[string]bool{}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		theirs, err := os.Readlink(filepath.Join(dir, "ns", name))
		if err != nil {
			return p, err
		}
		ours, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return p, err
		}
		p.Namespaces[name] = theirs != ours
	}
	if p.Mounts, err = readMounts(filepath.Join(dir, "mountinfo")); err != nil {
		return p, err
	}
	if p.Limits.OpenFiles, err = readOpenFiles(filepath.Join(dir, "limits")); err != nil {
		return p, err
	}
	return p, nil
}

// readStatus reads a file as proc_pid_status(5) has it.
func (p *Posture) readStatus(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	values := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[key] = append(strings.Fields(value), "")
		}
	}
	number := func(s string, base int) uint64 {
		n, nerr := strconv.ParseUint(s, base, 64)
		if nerr != nil && err == nil {
			err = fmt.Errorf("%s: %w", path, nerr)
		}
		return n
	}
	for _, key := range []string{"Uid", "Gid", "CapBnd", "NoNewPrivs", "Seccomp"} {
		if len(values[key]) < 2 {
			return fmt.Errorf("%s: there is no %s", path, key)
		}
	}
	p.UID, p.GID = uint32(number(values["Uid"][0], 10)), uint32(number(values["Gid"][0], 10))
	for _, g := range values["Groups"] {
		if g != "" {
			p.Groups = append(p.Groups, uint32(number(g, 10)))
		}
	}
	p.Capabilities = capabilityNames(number(values["CapBnd"][0], 16))
	p.NoNewPrivileges = values["NoNewPrivs"][0] == "1"
	mode := number(values["Seccomp"][0], 10)
	p.Seccomp = []string{"disabled", "strict", "filter", "unknown"}[min(mode, 3)]
	return err
}

// capabilityNames gives the names of a set, see capabilities(7).
func capabilityNames(set uint64) (names []string) {
	all := []string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
		"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE",
		"SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
		"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
		"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"}
	for n := range 64 {
		switch {
		case set>>n&1 == 0:
		case n < len(all):
			names = append(names, "CAP_"+all[n])
		default:
			names = append(names, fmt.Sprintf("CAP_%d", n))
		}
	}
	slices.Sort(names)
	return names
}

// readMounts reads a file as proc_pid_mountinfo(5) has it.
func readMounts(path string) (list []MountPosture, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		own, fsys, ok := strings.Cut(lines.Text(), " - ")
		fields, types := strings.Fields(own), strings.Fields(fsys)
		if !ok || len(fields) < 6 || len(types) < 3 {
			return nil, fmt.Errorf("%s: a line is malformed", path)
		}
		options := strings.Split(fields[5], ",")
		list = append(list, MountPosture{
			Target:   unescape(fields[4]),
			Type:     types[0],
			ReadOnly: slices.Contains(options, "ro") || slices.Contains(strings.Split(types[2], ","), "ro"),
			NoSuid:   slices.Contains(options, "nosuid"),
			NoDev:    slices.Contains(options, "nodev"),
			NoExec:   slices.Contains(options, "noexec"),
		})
	}
	return list, lines.Err()
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// readOpenFiles reads the limit on open files from a file as proc_pid_limits(5) has it; negative: none.
func readOpenFiles(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			if f[1] == "unlimited" {
				return -1, nil
			}
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("%s: there is no limit on open files", path)
}
