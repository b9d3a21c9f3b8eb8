package engine_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// limitFile reads a limit of a sandbox's cgroup, which version 1 and 2 call differently.
func limitFile(t *testing.T, id, v1, v2 string) string {
	t.Helper()
	for _, group := range cgroupsOf(t, id) {
		for _, name := range []string{v1, v2} {
			if data, err := os.ReadFile(filepath.Join(group, name)); err == nil {
				return strings.TrimSpace(string(data))
			}
		}
	}
	t.Fatalf("no cgroup of %s has %s or %s", id, v1, v2)
	return ""
}

func TestSetLimits(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Memory: 256 << 20, CPUs: 1, Processes: 100, OpenFiles: 1000}})
	set := func(l engine.Limits) {
		t.Helper()
		if err := sb.SetLimits(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	check := func(memory, pids, quota string, files string) {
		t.Helper()
		if got := limitFile(t, sb.ID(), "memory.limit_in_bytes", "memory.max"); got != memory && !(memory == "max" && len(got) == 19) {
			t.Errorf("memory is %s, want %s", got, memory)
		}
		if got := limitFile(t, sb.ID(), "pids.max", "pids.max"); got != pids {
			t.Errorf("processes are %s, want %s", got, pids)
		}
		if got, _, _ := strings.Cut(limitFile(t, sb.ID(), "cpu.cfs_quota_us", "cpu.max"), " "); got != quota && !(quota == "max" && got == "-1") {
			t.Errorf("processor time is %s, want %s", got, quota)
		}
		out, err := sb.Command("sh", "-c", "ulimit -n; ulimit -Hn").Output()
		if err != nil || string(out) != files+"\n"+files+"\n" {
			t.Errorf("open files are %q, %v, want %s", out, err, files)
		}
	}
	check("268435456", "100", "10000", "1000")
	set(engine.Limits{})
	check("268435456", "100", "10000", "1000")
	set(engine.Limits{Memory: 128 << 20})
	check("134217728", "100", "10000", "1000")
	set(engine.Limits{CPUs: 0.5, Processes: 200})
	check("134217728", "200", "5000", "1000")
	set(engine.Limits{CPUs: 0.05})
	check("134217728", "200", "5000", "1000") // of a longer period
	set(engine.Limits{CPUs: 0.5})
	set(engine.Limits{Memory: 512 << 20, OpenFiles: 500})
	check("536870912", "200", "5000", "500")
	want := engine.Limits{Memory: 512 << 20, CPUs: 0.5, Processes: 200, OpenFiles: 500, Disk: 2 << 30, DiskIOPS: 4000}
	again, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Limits(); err != nil || got != want {
		t.Errorf("another handle's limits are %+v, %v, want %+v", got, err, want)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	set(engine.Limits{Memory: -1, CPUs: -1, Processes: -1})
	check("max", "max", "max", "500")
}

// TestSetLimitsHold has what was too much become enough, and what was enough too much.
func TestSetLimitsHold(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Limits: engine.Limits{Memory: 64 << 20, CPUs: -1}})
	take := func() error { return sb.Command("sh", "-c", "head -c 100m /dev/zero | tail -c 100m >/dev/null").Run() }
	var exit *engine.ExitError
	if err := take(); !errors.As(err, &exit) || !exit.OOM {
		t.Errorf("of 64 MiB: %v, want it out of memory", err)
	}
	if err := sb.SetLimits(t.Context(), engine.Limits{Memory: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := take(); err != nil {
		t.Errorf("of 512 MiB: %v", err)
	}
}

func TestSetLimitsErrors(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{OpenFiles: 1000}})
	tests := []struct {
		name   string
		limits engine.Limits
		want   error
	}{
		{"little memory", engine.Limits{Memory: 1}, fs.ErrInvalid},
		{"few processes", engine.Limits{Processes: 1}, fs.ErrInvalid},
		{"disk", engine.Limits{Disk: 1 << 30}, fs.ErrInvalid},
		{"few transfers", engine.Limits{DiskIOPS: 1}, fs.ErrInvalid},
		{"more open files", engine.Limits{OpenFiles: 1001}, fs.ErrInvalid},
		{"all open files", engine.Limits{OpenFiles: -1}, fs.ErrInvalid},
	}
	before, err := sb.Limits()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if err := sb.SetLimits(t.Context(), tt.limits); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if got, err := sb.Limits(); err != nil || got != before {
		t.Errorf("limits became %+v, %v, want %+v", got, err, before)
	}
	if err := sb.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sb.SetLimits(t.Context(), engine.Limits{OpenFiles: 900}); !errors.Is(err, engine.ErrPaused) {
		t.Errorf("open files while paused: %v, want ErrPaused", err)
	}
	if err := sb.SetLimits(t.Context(), engine.Limits{Processes: 77}); err != nil {
		t.Errorf("processes while paused: %v", err)
	}
	if got := limitFile(t, sb.ID(), "pids.max", "pids.max"); got != strconv.Itoa(77) {
		t.Errorf("processes are %s", got)
	}
	if err := sb.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sb.SetLimits(t.Context(), engine.Limits{Processes: 50}); !errors.Is(err, engine.ErrEnded) {
		t.Errorf("after Close: %v, want ErrEnded", err)
	}
}
