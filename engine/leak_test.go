package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// usage is what this process, and the sandboxes of one state directory, have of the host.
type usage struct{ descriptors, goroutines, threads, cgroups, entries, ids, loops int }

func measure(t *testing.T, dir string, made []string) usage {
	t.Helper()
	groups, ids := 0, 0
	for _, id := range made {
		groups += len(cgroupsOf(t, id))
	}
	for _, name := range list(t, engine.IDRegistry) {
		if owner, err := os.Readlink(filepath.Join(engine.IDRegistry, name)); err == nil && strings.HasPrefix(owner, dir+"/") {
			ids++
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return usage{
		descriptors: len(list(t, "/proc/self/fd")),
		goroutines:  runtime.NumGoroutine(),
		threads:     len(list(t, "/proc/self/task")),
		cgroups:     groups,
		entries:     len(sandboxesIn(dir)) + len(list(t, filepath.Join(dir, "trash"))),
		ids:         ids,
		loops:       len(loops), // that are in use, by whomever
	}
}

// TestLeaks uses 200 sandboxes. It runs alone, as it counts what the process has.
func TestLeaks(t *testing.T) {
	dir := stateDir(t)
	eng := open(t, dir)
	var made []string
	once := func(n int) {
		sb, err := eng.Create(t.Context(), engine.CreateOptions{Metadata: map[string]string{"n": fmt.Sprint(n)}})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, sb.ID())
		if err := sb.FS().WriteFile("a", []byte("1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := sb.Command("sh", "-c", "cat a; sleep 1000 >/dev/null 2>&1 &").Output(); err != nil || string(out) != "1\n" {
			t.Fatalf("command: %q, %v", out, err)
		}
		again, err := eng.Reconnect(t.Context(), sb.ID())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*engine.Sandbox{again, sb} {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range 10 { // what is made once, and threads that are kept for reuse
		once(n)
	}
	before := measure(t, dir, made)
	for n := range 200 {
		once(n)
	}
	var after usage
	defer func() { t.Logf("before %+v, after %+v", before, after) }()
	eventually(t, 10*time.Second, "usage is as before", func() bool {
		runtime.GC() // closes what libcontainer leaves to it
		after = measure(t, dir, made)
		// The store may open its second connection at any time.
		return after.descriptors <= before.descriptors+4 && after.goroutines <= before.goroutines &&
			after.threads <= before.threads+8 && after.cgroups <= before.cgroups &&
			after.entries == before.entries && after.ids <= before.ids && after.loops <= before.loops+8
	})
}
