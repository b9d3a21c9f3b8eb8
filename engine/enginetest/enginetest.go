// Package enginetest gives integration tests sandboxes that end with the test.
//
//	func TestServer(t *testing.T) {
//		t.Parallel()
//		sb := enginetest.New(t, engine.CreateOptions{})
//		…
//	}
//
// Where a sandbox can't be had the test is skipped, and the log says why. A machine that must not skip, such as
// that of continuous integration, sets NESTBOX_REQUIRE to the features that it has to have, or to "all": then the
// test fails there. When a test fails, its log shows what the sandbox's commands printed last, which of its limits
// were hit, and what runs in it.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/internal/tap"
)

// Feature is something that a test needs of its machine.
type Feature string

// The features.
const (
	Sandboxes Feature = "sandboxes" // engine.Open works
	Cgroup2   Feature = "cgroup2"   // the kernel has its cgroups in one hierarchy
	Program   Feature = "program:"  // with a name after it: that program is in template base
)

// RequireVar names the environment variable with the features whose absence fails a test, separated by commas.
const RequireVar = "NESTBOX_REQUIRE"

// Require skips the test unless the machine has the features, or fails it where RequireVar names one that it
// lacks.
func Require(t testing.TB, features ...Feature) {
	t.Helper()
	for _, f := range features {
		why := missing(t.Context(), f)
		switch {
		case why == "":
		case required(f):
			t.Fatalf("%s, which %s requires, can't be had: %s", f, RequireVar, why)
		default:
			t.Skipf("%s can't be had: %s", f, why)
		}
	}
}

func required(f Feature) bool {
	list := strings.Split(os.Getenv(RequireVar), ",")
	return slices.Contains(list, string(f)) || slices.Contains(list, "all")
}

// missing is why a feature can't be had; empty: it can.
func missing(ctx context.Context, f Feature) string {
	name, isProgram := strings.CutPrefix(string(f), string(Program))
	switch {
	case f == Sandboxes:
		return noSandboxes(ctx)
	case f == Cgroup2:
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			return "cgroup v1 or hybrid: boot with systemd.unified_cgroup_hierarchy=1"
		}
		return ""
	case isProgram:
		for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"} {
			if fi, err := os.Stat(filepath.Join(dir, name)); err == nil && fi.Mode().Perm()&0o111 != 0 {
				return ""
			}
		}
		return "it is not installed"
	default:
		return "no such feature is known"
	}
}

// noSandboxes tries whether an engine opens.
func noSandboxes(ctx context.Context) string {
	for _, f := range engine.Probe(ctx).Features {
		if f.Support == engine.Unsupported { // also what only the default limits need
			return fmt.Sprintf("%s: %s: %s", f.Name, f.Reason, f.Remedy)
		}
	}
	dir, err := os.MkdirTemp("", "nestbox-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	eng, err := engine.Open(ctx, engine.Options{Dir: dir})
	if err != nil {
		return err.Error()
	}
	if err := eng.Close(); err != nil {
		return err.Error()
	}
	return ""
}

// Engine gives an engine with a state directory of its own, both of which go with the test. It requires
// Sandboxes. A sandbox that is left then fails the test.
func Engine(t testing.TB) *engine.Engine {
	t.Helper()
	Require(t, Sandboxes)
	dir := t.TempDir()
	eng, err := engine.Open(t.Context(), engine.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
		left, err := os.ReadDir(filepath.Join(dir, "sandboxes"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("sandbox %s is left: it was kept alive, and not killed", e.Name())
		}
	})
	return eng
}

// New gives a sandbox, on an engine as Engine gives it, that is killed when the test ends. If the test has failed,
// its log shows the sandbox's state.
func New(t testing.TB, opts engine.CreateOptions) *engine.Sandbox {
	t.Helper()
	return NewOn(t, Engine(t), opts)
}

// NewOn is New on an engine of the caller's.
func NewOn(t testing.TB, eng *engine.Engine, opts engine.CreateOptions) *engine.Sandbox {
	t.Helper()
	rec := &recorder{}
	sb, err := eng.Create(tap.With(t.Context(), rec.write), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.Failed() {
			t.Log(report(ctx, sb, rec))
		}
		err := sb.Kill(ctx)
		if errors.Is(err, engine.ErrClosed) { // the test closed its handle
			err = eng.Kill(ctx, sb.ID())
		}
		if err != nil && !errors.Is(err, engine.ErrEnded) && !errors.Is(err, engine.ErrClosed) {
			t.Errorf("kill sandbox: %v", err)
		}
	})
	return sb
}

// report tells of a sandbox whatever may say why a test failed.
func report(ctx context.Context, sb *engine.Sandbox, rec *recorder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "sandbox %s\n", sb.ID())
	if err := sb.Err(); err != nil {
		fmt.Fprintf(&b, "state: %v\n", err)
	} else {
		reportLimits(ctx, &b, sb)
		reportProcesses(ctx, &b, sb)
	}
	fmt.Fprintf(&b, "last output:\n%s", rec.text())
	return b.String()
}

func reportLimits(ctx context.Context, b *strings.Builder, sb *engine.Sandbox) {
	st, err := sb.Stats(ctx)
	if err != nil {
		fmt.Fprintf(b, "limits: %v\n", err)
		return
	}
	fmt.Fprintf(b, "takes: %v of CPU, %d MiB of memory, %d processes, %d MiB of disk\n", st.CPU.Round(time.Millisecond), st.Memory>>20, st.Processes, st.Disk>>20)
	if st.OOMKills > 0 {
		fmt.Fprintf(b, "limit hit: memory; %d processes were killed\n", st.OOMKills)
	}
	if st.ProcessesRefused > 0 {
		fmt.Fprintf(b, "limit hit: processes; %d were refused\n", st.ProcessesRefused)
	}
	if st.Throttled > 0 {
		fmt.Fprintf(b, "limit hit: CPU; it was held up for %v\n", st.Throttled.Round(time.Millisecond))
	}
}

func reportProcesses(ctx context.Context, b *strings.Builder, sb *engine.Sandbox) {
	list, err := sb.Processes(ctx)
	if err != nil {
		fmt.Fprintf(b, "processes: %v\n", err)
		return
	}
	for _, p := range list {
		args := strings.Join(p.Args, " ")
		if args == "" {
			args = "[" + p.Name + "]"
		}
		fmt.Fprintf(b, "process %d of %s, %s: %.200s\n", p.PID, p.User, p.State, args)
	}
}
