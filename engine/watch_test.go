package engine_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
)

// events are what a Watch tells.
type events struct {
	next func() (fsapi.WatchEvent, error, bool)
	stop func()
}

// watch begins a Watch that ends with the test, at the latest after a minute.
func watch(t *testing.T, sb *engine.Sandbox, name string, recursive bool) *events {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	next, stop := iter.Pull2(sb.FS().Watch(ctx, name, recursive))
	t.Cleanup(cancel)
	t.Cleanup(stop)
	return &events{next, stop}
}

// until gives what is told until an event.
func (e *events) until(t *testing.T, op fsapi.WatchOp, name string) (list []fsapi.WatchEvent) {
	t.Helper()
	for {
		ev, err, ok := e.next()
		if err != nil || !ok {
			t.Fatalf("the watch ends before %v %q: %v, after %d events", op, name, err, len(list))
		}
		list = append(list, ev)
		if ev == (fsapi.WatchEvent{Op: op, Name: name}) {
			return list
		}
	}
}

// sh runs a script in a sandbox.
func sh(t testing.TB, sb *engine.Sandbox, script string) string {
	t.Helper()
	out, err := sb.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// openLarge opens an engine for sandboxes whose trees take long to remove: it stays open until they are.
func openLarge(t testing.TB) *engine.Engine {
	t.Helper()
	eng := open(t, "")
	t.Cleanup(func() {
		eventually(t, time.Minute, "the tree is removed", func() bool { return len(list(t, filepath.Join(eng.Dir(), "trash"))) == 0 })
	})
	return eng
}

func format(list []fsapi.WatchEvent) string {
	var s []string
	for _, e := range list {
		s = append(s, e.Op.String()+" "+e.Name)
	}
	return strings.Join(slices.Compact(s), ", ") // how often a write is told is the kernel's affair
}

func TestWatch(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for _, user := range []string{"root", "user"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			sb := create(t, eng, engine.CreateOptions{User: user, Dir: "/data"})
			sh(t, sb, "mkdir -p d/sub; echo old > d/old; echo other > other")
			tests := []struct {
				name, watch string
				recursive   bool
				script      string
				want        string
			}{
				{"create and write", "d", false, "echo 1 > d/f", "create d/f, write d/f"},
				{"append", "d", false, "echo 2 >> d/f", "write d/f"},
				{"chmod", "d", false, "chmod 600 d/f", "chmod d/f"},
				{"chmod the directory", "d", false, "chmod 700 d", "chmod d"},
				{"rename within", "d", false, "mv d/f d/g", "rename d/f, create d/g"},
				{"rename out", "d", false, "mv d/g g", "rename d/g"},
				{"rename in", "d", false, "mv g d/h", "create d/h"},
				{"remove", "d", false, "rm d/h", "remove d/h"},
				{"absolute", "/data/d/", false, "rm d/old", "remove /data/d/old"},
				{"below, not recursive", "d", false, "echo > d/sub/x; rm d/sub/x", ""},
				{"below", "d", true, "echo > d/sub/x; rm d/sub/x", "create d/sub/x, write d/sub/x, remove d/sub/x"},
				{"rename below", "d", true, "echo > d/sub/x; mv d/sub d/moved; echo >> d/moved/x",
					"create d/sub/x, write d/sub/x, rename d/sub, create d/moved, create d/moved/x"},
				{"chmod below", "d", true, "chmod 711 d/moved", "chmod d/moved"},
				{"remove below", "d", true, "rm -r d/moved", "remove d/moved/x, remove d/moved"},
				{"file", "other", false, "echo >> other; echo > unrelated", "write other"},
				{"file replaced", "other", false, "echo > new; mv new other; echo >> other", "create other, write other"},
				{"link", "link", false, "echo >> other", "write link"},
				{"awkward names", "d", false, `touch "d/$(printf 'a\nb')"; rm d/a*`, "create d/a\nb, chmod d/a\nb, remove d/a\nb"},
			}
			sh(t, sb, "ln -s other l2; ln -s /data/l2 link")
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					w := watch(t, sb, tt.watch, tt.recursive)
					last := strings.TrimSuffix(tt.watch, "/") + "/end"
					end := fsapi.Create
					script := tt.script + "; echo > d/end; rm d/end"
					if !strings.Contains(tt.watch, "d") {
						last, end, script = tt.watch, fsapi.Chmod, tt.script+"; chmod 604 other"
					}
					sh(t, sb, script)
					list := w.until(t, end, last)
					if got := format(list[:len(list)-1]); got != tt.want {
						t.Errorf("got  %s\nwant %s", got, tt.want)
					}
				})
			}
		})
	}
}

// A file of the template is copied up when it is first written; a watch on the file itself would miss that.
func TestWatchCopyUp(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	file, dir := watch(t, sb, "/etc/passwd", false), watch(t, sb, "/etc", false)
	sh(t, sb, "echo x:x:5:5::/:/bin/sh >> /etc/passwd")
	file.until(t, fsapi.Write, "/etc/passwd")
	dir.until(t, fsapi.Write, "/etc/passwd")
}

// TestWatchTrees makes trees as fast as can be, and moves them. All that is there in the end has been told, and is
// watched.
func TestWatchTrees(t *testing.T) {
	t.Parallel()
	sb := create(t, openLarge(t), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, "mkdir -p tree/was/there")
	w := watch(t, sb, "tree", true)
	sh(t, sb, `for i in $(seq 100); do
		mkdir -p tree/was/there/$i/b/c tree/x$i/y
		echo > tree/was/there/$i/b/c/f
		echo > tree/x$i/y/f
		mv tree/x$i tree/was/x$i
		mv tree/was/x$i/y tree/was/z$i
	done
	echo > tree/end`)
	told := map[string]bool{}
	for _, e := range w.until(t, fsapi.Create, "tree/end") {
		told[e.Name] = true
	}
	all := strings.Fields(sh(t, sb, "find tree -mindepth 1"))
	if len(all) < 600 {
		t.Fatalf("%d files", len(all))
	}
	for _, name := range all {
		if !told[name] && name != "tree/was" && name != "tree/was/there" {
			t.Errorf("%s is not told", name)
		}
	}
	sh(t, sb, "for d in $(find tree -type d); do echo > $d/late; done; echo > tree/end2")
	late := 0
	for _, e := range w.until(t, fsapi.Create, "tree/end2") {
		if e.Op == fsapi.Create && strings.HasSuffix(e.Name, "/late") {
			late++
		}
	}
	if dirs := len(strings.Fields(sh(t, sb, "find tree -type d"))); late != dirs {
		t.Errorf("%d of %d directories are watched", late, dirs)
	}
}

// TestWatchStorm makes more than 100 000 events while nobody looks.
func TestWatchStorm(t *testing.T) {
	t.Parallel()
	sb := create(t, openLarge(t), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, "mkdir d")
	flat, deep := watch(t, sb, "d", false), watch(t, sb, "d", true)
	sh(t, sb, "cd d; seq 60000 | xargs touch; mkdir -p late/dir; touch end") // each a create and a chmod
	list := flat.until(t, fsapi.Overflow, "d")
	t.Logf("%d events before the overflow", len(list))
	if len(list) < 1000 {
		t.Errorf("%d events before the overflow, want those that fit", len(list))
	}
	deep.until(t, fsapi.Overflow, "d")
	sh(t, sb, "echo > d/after; echo > d/late/dir/after")
	flat.until(t, fsapi.Create, "d/after")
	deep.until(t, fsapi.Create, "d/late/dir/after")
}

// TestWatchEnds ends watches in every way. Each time nothing is left in the agent.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Dir: "/data"})
	agent := agentPID(t, eng, sb.ID())
	count := func() int { return len(list(t, fmt.Sprintf("/proc/%d/fd", agent))) }
	before := count()
	released := func(t *testing.T) {
		t.Helper()
		eventually(t, 5*time.Second, "the agent's descriptors are as before", func() bool { return count() <= before })
	}
	if err := sb.FS().MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}

	t.Run("break", func(t *testing.T) {
		seq := sb.FS().Watch(t.Context(), "d", true)
		sh(t, sb, "touch d/f")
		for range seq {
			break
		}
		released(t)
		for _, err := range seq {
			if err == nil {
				t.Error("used again: no error")
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		seq := sb.FS().Watch(ctx, "d", true)
		sh(t, sb, "touch d/g")
		var last error
		for _, err := range seq {
			last = err
			cancel(cause)
		}
		if !errors.Is(last, cause) {
			t.Errorf("got %v, want %v", last, cause)
		}
		released(t)
	})
	t.Run("not used", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_ = sb.FS().Watch(ctx, "d", true)
		if count() <= before {
			t.Error("the watch has not begun")
		}
		cancel()
		released(t)
	})
	t.Run("directory removed", func(t *testing.T) {
		for _, recursive := range []bool{true, false} {
			sh(t, sb, "mkdir -p d2/e")
			seq := sb.FS().Watch(t.Context(), "d2", recursive)
			sh(t, sb, "rm -r d2")
			var last fsapi.WatchEvent
			for e, err := range seq {
				if err != nil {
					t.Error(err)
				}
				last = e
			}
			if last != (fsapi.WatchEvent{Op: fsapi.Remove, Name: "d2"}) {
				t.Errorf("last event is %v", last)
			}
		}
		released(t)
	})
	t.Run("directory renamed", func(t *testing.T) {
		sh(t, sb, "mkdir d3")
		seq := sb.FS().Watch(t.Context(), "d3", true)
		sh(t, sb, "mv d3 d4")
		for e, err := range seq {
			if err != nil || e != (fsapi.WatchEvent{Op: fsapi.Rename, Name: "d3"}) {
				t.Errorf("got %v, %v", e, err)
			}
		}
		released(t)
	})
	t.Run("bad names", func(t *testing.T) {
		sh(t, sb, "ln -sf loop loop; echo > f")
		for name, want := range map[string]error{"none": syscall.ENOENT, "": syscall.ENOENT, "f/x": syscall.ENOTDIR, "loop": syscall.ELOOP} {
			n := 0
			for _, err := range sb.FS().Watch(t.Context(), name, true) {
				if n++; !errors.Is(err, want) {
					t.Errorf("watch %q: %v, want %v", name, err, want)
				}
			}
			if n != 1 {
				t.Errorf("watch %q: %d events", name, n)
			}
		}
		released(t)
	})
	t.Run("handle", func(t *testing.T) {
		again, err := eng.Reconnect(t.Context(), sb.ID())
		if err != nil {
			t.Fatal(err)
		}
		seq := again.FS().Watch(t.Context(), "d", true)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		for _, err := range seq {
			if !errors.Is(err, engine.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		for _, err := range again.FS().Watch(t.Context(), "d", true) {
			if !errors.Is(err, engine.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		released(t)
	})
	t.Run("sandbox", func(t *testing.T) {
		seq := sb.FS().Watch(t.Context(), "d", true)
		if err := sb.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, err := range seq {
			if !errors.Is(err, engine.ErrEnded) {
				t.Errorf("got %v, want ErrEnded", err)
			}
		}
	})
}
