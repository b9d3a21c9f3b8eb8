package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// The steps after which a process may be cut off, in their order.
var (
	createSteps = []string{"create directory", "create ids", "create tree", "create socket", "create mounts",
		"create start", "create file", "create hold", "create facts", "create publish", "create claim", "create record"}
	clearSteps = []string{"clear processes", "clear cgroup", "clear directory", "clear ids"}
)

func init() {
	helpers["die"] = func(args []string) error { // <dir> <step>: creates and closes a sandbox, and dies after the step
		dieAfter(args[1])
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Create(ctx, engine.CreateOptions{Metadata: map[string]string{"step": args[1]}})
		if err != nil {
			return err
		}
		if err := sb.Command("sh", "-c", "mkdir -p a/b/c; sleep 1000 & sleep 1000 &").Run(); err != nil {
			return err
		}
		return sb.Close()
	}
	helpers["churn"] = func(args []string) error { // <dir>: prints a line, then creates and closes sandboxes until it dies
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		fmt.Println("go")
		for {
			sb, err := eng.Create(ctx, engine.CreateOptions{})
			if err != nil {
				return err
			}
			if err := sb.Close(); err != nil {
				return err
			}
		}
	}
	helpers["steps"] = func(args []string) error { // <dir>: prints the steps of a whole life
		engine.SetStepHook(func(step string) { fmt.Println(step) })
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Create(ctx, engine.CreateOptions{})
		if err != nil {
			return err
		}
		if err := sb.Close(); err != nil {
			return err
		}
		fmt.Println("end")
		return eng.Close()
	}
}

// dieAfter has this process killed after a step.
func dieAfter(last string) {
	engine.SetStepHook(func(step string) {
		if step == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal is there
		}
	})
}

// TestSteps checks that TestCrash knows every step there is.
func TestSteps(t *testing.T) {
	t.Parallel()
	needRoot(t)
	p := start(t, "steps", stateDir(t))
	var got []string
	for line := p.line(t); line != "end"; line = p.line(t) {
		if !slices.Contains(got, line) { // the one who closes and the one who watches may both clear
			got = append(got, line)
		}
	}
	if want := slices.Concat(createSteps, clearSteps); !slices.Equal(got, want) {
		t.Errorf("steps:\n got %q\nwant %q", got, want)
	}
}

// TestCrash kills the process after each step of creating and of removing a sandbox. The next Open finds what it
// left, whatever that is.
func TestCrash(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, step := range slices.Concat(createSteps, clearSteps) {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := stateDir(t)
			p := start(t, "die", dir, step)
			err := p.Wait()
			if status, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the process ended with %v, want it killed", err)
			}
			ids := idsIn(dir)
			ids = append(ids, list(t, filepath.Join(dir, "trash"))...)
			if step != "clear ids" && len(ids) != 1 {
				t.Errorf("left before Open: %v, want one sandbox", ids)
			}
			eng := open(t, dir)
			checkTrash(t, dir)
			for _, id := range ids {
				checkGone(t, dir, id)
			}
			for l, err := range eng.List(t.Context(), lease.Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				if l.State != lease.Ended {
					t.Errorf("lease of %s: got %q, want it ended", l.ID, l.State)
				}
			}
		})
	}
}

// TestCrashAnywhere kills a process that creates and closes sandboxes, at any moment.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for range 20 {
		dir := stateDir(t)
		p := start(t, "churn", dir)
		p.line(t)
		spin(rand.N(100 * time.Millisecond))
		p.kill()
		ids := idsIn(dir)
		eng, err := engine.Open(t.Context(), engine.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		checkTrash(t, dir)
		for _, id := range ids {
			checkGone(t, dir, id)
		}
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	}
}

// idsIn gives the IDs of sandboxesIn, which without a pool are the names of cgroups.
func idsIn(dir string) (ids []string) {
	for _, name := range sandboxesIn(dir) {
		ids = append(ids, filepath.Base(name))
	}
	return ids
}

// checkGone checks that nothing is left of a sandbox, once what goes on in the background is done.
func checkGone(t *testing.T, dir, id string) {
	t.Helper()
	checkTrash(t, dir)
	if names := sandboxesIn(dir); len(names) > 0 {
		t.Errorf("left: directories %v", names)
	}
	if groups := cgroupsOf(t, id); len(groups) > 0 {
		t.Errorf("left: cgroups %v", groups)
	}
	checkLoops(t, id)
	for _, pid := range processesOf(t, dir, id) {
		t.Errorf("left: process %d", pid)
	}
}

// checkTrash waits until the trees are removed, which an engine does in the background.
func checkTrash(t *testing.T, dir string) {
	t.Helper()
	eventually(t, 10*time.Second, "the trees are removed", func() bool { return len(list(t, filepath.Join(dir, "trash"))) == 0 })
}

// processesOf gives the host's processes that show a sandbox's ID or its state directory: in their cgroups,
// their mounts or their descriptors.
func processesOf(t *testing.T, dir, id string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	for _, p := range all {
		var pid int
		if _, err := fmt.Sscan(filepath.Base(p), &pid); err != nil || pid == self || !running(pid) {
			continue
		}
		cgroup, _ := os.ReadFile(p + "/cgroup")
		mounts, _ := os.ReadFile(p + "/mountinfo")
		if strings.Contains(string(cgroup), id) || strings.Contains(string(mounts), dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}
