package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

func init() {
	helpers["pause"] = func(args []string) error { // <dir> <id>: reconnects, pauses, prints a line, waits, closes
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Reconnect(ctx, args[1])
		if err != nil {
			return err
		}
		if err := sb.Pause(ctx); err != nil {
			return err
		}
		fmt.Println("paused")
		untilClosed()
		return eng.Close()
	}
}

// try calls what a paused sandbox refuses, and what it doesn't.
func checkPaused(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	start := time.Now()
	for name, f := range map[string]func() error{
		"Start":     sb.Command("true").Start,
		"ReadFile":  func() error { _, err := sb.FS().ReadFile("f"); return err },
		"WriteFile": func() error { return sb.FS().WriteFile("late", nil, 0o644) },
	} {
		if err := f(); !errors.Is(err, engine.ErrPaused) {
			t.Errorf("%s: got %v, want ErrPaused", name, err)
		}
	}
	var perr *fs.PathError
	if _, err := sb.FS().Stat("f"); !errors.As(err, &perr) {
		t.Errorf("Stat: got %v, want an *fs.PathError", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("what a paused sandbox refuses took %v", took)
	}
	if l, err := sb.Lease(t.Context()); err != nil || l.State != lease.Paused {
		t.Errorf("lease: got %q, %v, want it paused", l.State, err)
	}
	if st, err := sb.Stats(t.Context()); err != nil || st.Processes == 0 {
		t.Errorf("stats: got %+v, %v", st, err)
	}
}

func checkRuns(t *testing.T, sb *engine.Sandbox) {
	t.Helper()
	if out, err := sb.Command("cat", "f").Output(); err != nil || string(out) != "x" {
		t.Errorf("command: %q, %v", out, err)
	}
	if ok, err := sb.FS().Exists("late"); ok || err != nil {
		t.Errorf("what was refused was done after all: %v, %v", ok, err)
	}
	if l, err := sb.Lease(t.Context()); err != nil || l.State != lease.Running {
		t.Errorf("lease: got %q, %v, want it running", l.State, err)
	}
}

// TestPause pauses and resumes through one handle, with a second one and a command beside it.
func TestPause(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	other := open(t, eng.Dir())
	ctx := t.Context()
	sb := create(t, eng, engine.CreateOptions{})
	if err := sb.FS().WriteFile("f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := other.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	counting := sb.Command("sh", "-c", "trap 'exit 7' TERM; while :; do echo; done")
	out, err := counting.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := counting.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for range 2 { // again is a no-op
			if err := sb.Pause(ctx); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		checkPaused(t, sb)
		eventually(t, 5*time.Second, "the other handle hears of it", func() bool {
			_, err := second.FS().Stat("f")
			return errors.Is(err, engine.ErrPaused)
		})
		checkPaused(t, second)
		for range 2 {
			if err := second.Resume(ctx); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		checkRuns(t, second)
		eventually(t, 5*time.Second, "the other handle hears of it", func() bool {
			_, err := sb.FS().Stat("f")
			return err == nil
		})
		checkRuns(t, sb)
	}
	if _, err := out.Read(buf); err != nil {
		t.Errorf("the command does not go on: %v", err)
	}
	if err := counting.Kill(); err != nil {
		t.Error(err)
	}
	_ = out.Close()
	_ = counting.Wait()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestPausedCalls has calls of another handle under way, all the time, when a sandbox is paused. Each ends, and
// what was refused is not done later.
func TestPausedCalls(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	ctx := t.Context()
	sb := create(t, eng, engine.CreateOptions{})
	second, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	type call struct {
		name string
		err  error
	}
	calls := make(chan []call)
	done := make(chan struct{})
	for w := range 4 {
		go func() {
			var made []call
			for n := 0; ; n++ {
				select {
				case <-done:
					calls <- made
					return
				default:
				}
				name := fmt.Sprintf("w%d-%d", w, n)
				made = append(made, call{name, second.FS().Mkdir(name, 0o755)})
			}
		}()
	}
	for range 10 {
		if err := sb.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		if err := sb.Resume(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	refused := 0
	for range 4 {
		for _, c := range <-calls {
			if errors.Is(c.err, engine.ErrPaused) {
				refused++
			} else if c.err != nil {
				t.Errorf("mkdir %s: %v", c.name, c.err)
			}
			if ok, err := sb.FS().Exists(c.name); err != nil || ok != (c.err == nil) {
				t.Fatalf("mkdir %s was %v; exists: %v, %v", c.name, c.err, ok, err)
			}
			if refused > 200 {
				break
			}
		}
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestPausedReconnect reconnects to a paused sandbox, and resumes it there.
func TestPausedReconnect(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	ctx := t.Context()
	sb := create(t, eng, engine.CreateOptions{KeepAlive: time.Minute})
	if err := sb.FS().WriteFile("f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sb.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	idle, err := eng.Reconnect(ctx, sb.ID()) // does nothing until it is resumed by the other
	if err != nil {
		t.Fatal(err)
	}
	checkPaused(t, again)
	if err := again.KeepAlive(ctx, 0); err != nil { // so that handles alone hold it
		t.Errorf("KeepAlive while paused: %v", err)
	}
	if err := again.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	checkRuns(t, again)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	checkRuns(t, idle)
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if got := endReason(t, eng, sb.ID()); got != lease.Closed {
		t.Errorf("end reason: got %q, want %q", got, lease.Closed)
	}
}

// TestPausedEnd holds paused sandboxes to the lifetime rule, which their agents can't apply.
func TestPausedEnd(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	const d = 300 * time.Millisecond
	for _, tt := range []struct {
		name string
		opts engine.CreateOptions
		end  func(t *testing.T, sb *engine.Sandbox) error // begins it
		want lease.EndReason
	}{
		{"closed", engine.CreateOptions{}, func(t *testing.T, sb *engine.Sandbox) error { return sb.Close() }, lease.Closed},
		{"killed", engine.CreateOptions{}, func(t *testing.T, sb *engine.Sandbox) error { return sb.Kill(t.Context()) }, lease.Killed},
		{"deadline", engine.CreateOptions{KeepAlive: d}, func(t *testing.T, sb *engine.Sandbox) error { return sb.Close() }, lease.Expired},
		{"grace", engine.CreateOptions{Grace: d}, func(t *testing.T, sb *engine.Sandbox) error { return sb.Close() }, lease.Expired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sb := create(t, eng, tt.opts)
			if err := sb.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(t, sb); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, "it is gone", func() bool {
				return len(cgroupsOf(t, sb.ID())) == 0 && !strings.Contains(strings.Join(list(t, filepath.Join(dir, "sandboxes")), " "), sb.ID())
			})
			eventually(t, 10*time.Second, "the end is remembered", func() bool {
				l, err := eng.Lease(t.Context(), sb.ID())
				return err == nil && l.State == lease.Ended
			})
			if got := endReason(t, eng, sb.ID()); got != tt.want {
				t.Errorf("end reason: got %q, want %q", got, tt.want)
			}
			if _, err := eng.Reconnect(t.Context(), sb.ID()); !errors.Is(err, engine.ErrExpired) {
				t.Errorf("reconnect: got %v, want ErrExpired", err)
			}
		})
	}
}

// TestPauserKilled kills the process that paused a sandbox.
func TestPauserKilled(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	t.Run("with another handle", func(t *testing.T) {
		sb := create(t, eng, engine.CreateOptions{})
		if err := sb.FS().WriteFile("f", []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := start(t, "pause", dir, sb.ID())
		p.line(t)
		p.kill()
		checkPaused(t, sb)
		if err := sb.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkRuns(t, sb)
		l, err := sb.Lease(t.Context())
		if err != nil || l.Holders != 1 {
			t.Errorf("holders: got %d, %v, want 1", l.Holders, err)
		}
	})
	t.Run("with none", func(t *testing.T) {
		sb := create(t, eng, engine.CreateOptions{})
		p := start(t, "pause", dir, sb.ID())
		p.line(t)
		if err := sb.Close(); err != nil {
			t.Fatal(err)
		}
		p.kill()
		eventually(t, 10*time.Second, "it is gone", func() bool { return len(cgroupsOf(t, sb.ID())) == 0 })
	})
}

// TestKeepAliveMeetsResume sets deadlines while a sandbox is paused and resumed. The last one holds.
func TestKeepAliveMeetsResume(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	ctx := t.Context()
	sb := create(t, eng, engine.CreateOptions{})
	second, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	for round := range 40 {
		if err := sb.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		resumed := make(chan error)
		go func() { resumed <- sb.Resume(ctx) }()
		want := time.Duration(10+round%2*20) * time.Minute
		if err := second.KeepAlive(ctx, want); err != nil {
			t.Fatal(err)
		}
		if err := <-resumed; err != nil {
			t.Fatal(err)
		}
		l, err := sb.Lease(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(l.ExpiresAt); left > want || left < want-time.Minute {
			t.Fatalf("round %d: %v left, want about %v", round, left, want)
		}
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
