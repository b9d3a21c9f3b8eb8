package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// The capabilities that a process of a sandbox can have, and has as root.
var capabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"}

func TestPosture(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	source := t.TempDir()
	sb := create(t, eng, engine.CreateOptions{
		Limits: engine.Limits{Memory: 64 << 20, CPUs: 0.5, Processes: 40, OpenFiles: 100, DiskIOPS: 200},
		Mounts: []engine.Mount{{Source: source, Target: "/data with space"}},
	})
	p, err := sb.Posture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.UID < 1<<16 || p.GID != p.UID || len(p.Groups) > 0 {
		t.Errorf("ids: %d:%d %v, want a range of its own, and no groups", p.UID, p.GID, p.Groups)
	}
	if !slices.Equal(p.Capabilities, capabilities) || !p.NoNewPrivileges {
		t.Errorf("capabilities %v, no new privileges %v", p.Capabilities, p.NoNewPrivileges)
	}
	if p.Seccomp != "filter" {
		t.Errorf("seccomp: %s, want a filter", p.Seccomp)
	}
	for name, own := range p.Namespaces {
		if !own {
			t.Errorf("namespace %s is the host's", name)
		}
	}
	if len(p.Namespaces) != 7 {
		t.Errorf("namespaces: %v", p.Namespaces)
	}
	if got, want := p.Limits, (engine.Limits{Memory: 64 << 20, CPUs: 0.5, Processes: 40, OpenFiles: 100, DiskIOPS: 200}); got != want {
		t.Errorf("limits: got %+v, want %+v", got, want)
	}
	data := slices.IndexFunc(p.Mounts, func(m engine.MountPosture) bool { return m.Target == "/data with space" })
	if data < 0 || !p.Mounts[data].ReadOnly {
		t.Errorf("the mount isn't there, read-only: %+v", p.Mounts)
	}
	for _, m := range p.Mounts {
		// Device nodes that are bound one by one, and what masks a path, can't be anything else.
		special := strings.HasPrefix(m.Target, "/dev/") || strings.HasPrefix(m.Target, "/proc/") || strings.HasPrefix(m.Target, "/sys/")
		if !special && (!m.NoSuid || !m.NoDev && m.Target != "/dev") {
			t.Errorf("mount %+v, want it nosuid and nodev", m)
		}
	}
	none := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Memory: -1, CPUs: -1, Processes: -1, DiskIOPS: -1}, Network: engine.NetworkHost})
	if p, err = none.Posture(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := p.Limits; l.Memory >= 0 || l.CPUs >= 0 || l.Processes >= 0 || l.DiskIOPS >= 0 || p.Namespaces["net"] {
		t.Errorf("without limits, on the host's network: %+v, %v", l, p.Namespaces)
	}
	if err := none.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := none.Posture(t.Context()); err == nil {
		t.Error("a sandbox that has ended has a posture")
	}
}

// TestStatus reads what the kernel says of each kind of process, from the host.
func TestStatus(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	commands := map[string]*engine.Cmd{
		"root": sb.Command("sleep", "1000"),
		"user": sb.Command("sleep", "1000"),
		"pty":  sb.Command("sleep", "1000"),
		"kept": sb.Command("sleep", "1000"),
	}
	commands["user"].User = "user"
	commands["kept"].Spool = 4096
	for name, c := range commands {
		if name == "pty" {
			pty, err := c.StartPTY(engine.WindowSize{})
			if err != nil {
				t.Fatal(err)
			}
			defer pty.Close()
			continue
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	all := "00000000000005fb" // capabilities, see there
	p, err := sb.Posture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range commands {
		want := map[string]string{
			"Uid": ids(p.UID), "Gid": ids(p.UID), "Groups": "", "NoNewPrivs": "1", "Seccomp": "2", "Umask": "0022", "TimerSlack": "50000",
			"CapInh": "0000000000000000", "CapPrm": all, "CapEff": all, "CapBnd": all, "CapAmb": "0000000000000000",
		}
		if name == "user" {
			want["Uid"], want["Gid"] = ids(p.UID+1000), ids(p.UID+1000)
			want["CapPrm"], want["CapEff"] = "0000000000000000", "0000000000000000"
		}
		got := hostStatus(t, agentPID(t, eng, sb.ID()), c.Pid())
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got[key], value)
			}
		}
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		_ = c.Wait()
	}
}

// ids is a line of four equal ids.
func ids(id uint32) string { return fmt.Sprintf("%d %d %d %d", id, id, id, id) }

// hostStatus gives the status of an agent's descendant by its number inside.
func hostStatus(t *testing.T, agent, pid int) map[string]string {
	t.Helper()
	for _, child := range childrenOf(t, agent) {
		data, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(child), "status"))
		if err != nil {
			continue
		}
		status := map[string]string{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			status[key] = strings.Join(strings.Fields(value), " ")
		}
		if f := strings.Fields(status["NSpid"]); len(f) > 0 && f[len(f)-1] == fmt.Sprint(pid) {
			slack, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(child), "timerslack_ns")) // the status hasn't
			if err != nil {
				t.Fatal(err)
			}
			status["TimerSlack"] = strings.TrimSpace(string(slack))
			return status
		}
	}
	t.Fatalf("process %d of agent %d is not to be found", pid, agent)
	return nil
}
