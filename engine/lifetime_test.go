package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// TestLifetime holds real sandboxes to the lifetime rule. Package lease has the whole table, under fake time.
func TestLifetime(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	const d = 400 * time.Millisecond
	tests := []struct {
		name   string
		opts   engine.CreateOptions
		use    func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error // then the handle is closed
		least  time.Duration                                                     // from then on it lives so long; 0: it ends with Close
		most   time.Duration
		reason lease.EndReason
	}{
		{name: "closed", reason: lease.Closed},
		{name: "closed after the deadline", opts: engine.CreateOptions{KeepAlive: d}, use: outlast(d), reason: lease.Closed},
		{name: "closed before the deadline", opts: engine.CreateOptions{KeepAlive: d}, least: d / 2, most: d, reason: lease.Expired},
		{name: "keep-alive replaced by a shorter one", opts: engine.CreateOptions{KeepAlive: time.Hour},
			use:   func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error { return sb.KeepAlive(ctx, d) },
			least: d / 2, most: d, reason: lease.Expired},
		{name: "keep-alive replaced by a longer one", opts: engine.CreateOptions{KeepAlive: d},
			use:   func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error { return sb.KeepAlive(ctx, 3*d) },
			least: 2 * d, most: 3 * d, reason: lease.Expired},
		{name: "keep-alive cancelled", opts: engine.CreateOptions{KeepAlive: time.Hour},
			use:    func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error { return sb.KeepAlive(ctx, 0) },
			reason: lease.Closed},
		{name: "extend does not shorten", opts: engine.CreateOptions{KeepAlive: 3 * d},
			use:   func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error { return sb.Extend(ctx, d) },
			least: 2 * d, most: 3 * d, reason: lease.Expired},
		{name: "grace", opts: engine.CreateOptions{Grace: d}, least: d, most: d, reason: lease.Expired},
		{name: "grace after the deadline", opts: engine.CreateOptions{Grace: 2 * d, KeepAlive: d}, least: 2 * d, most: 2 * d, reason: lease.Expired},
		{name: "deadline after the grace", opts: engine.CreateOptions{Grace: d, KeepAlive: 3 * d}, least: 2 * d, most: 3 * d, reason: lease.Expired},
		{name: "killed", opts: engine.CreateOptions{KeepAlive: time.Hour},
			use:    func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error { return sb.Kill(ctx) },
			reason: lease.Killed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sb := create(t, eng, tt.opts)
			pid := agentPID(t, eng, sb.ID())
			if tt.use != nil {
				if err := tt.use(t.Context(), t, sb); err != nil {
					t.Fatal(err)
				}
			}
			closing := time.Now()
			if err := sb.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.least == 0 {
				if running(pid) {
					t.Error("the agent runs after Close")
				}
				if err := sb.Err(); !errors.Is(err, engine.ErrEnded) {
					t.Errorf("Err after the last Close: got %v, want ErrEnded", err)
				}
			}
			if err := sb.Err(); tt.least > 0 && !errors.Is(err, engine.ErrClosed) {
				t.Errorf("Err while the sandbox lives on: got %v, want ErrClosed", err)
			}
			eventually(t, tt.most+10*time.Second, "the agent ends", func() bool { return !running(pid) })
			if lived := time.Since(closing); lived < tt.least {
				t.Errorf("lived for %v after Close, want %v at least", lived, tt.least)
			}
			eventually(t, 3*time.Second, "the end is remembered", func() bool {
				l, err := eng.Lease(t.Context(), sb.ID())
				return err == nil && l.State == lease.Ended
			})
			if got := endReason(t, eng, sb.ID()); got != tt.reason {
				t.Errorf("end reason: got %q, want %q", got, tt.reason)
			}
			if _, err := eng.Reconnect(t.Context(), sb.ID()); !errors.Is(err, engine.ErrExpired) {
				t.Errorf("reconnect: got %v, want ErrExpired", err)
			}
		})
	}
}

// outlast holds a sandbox past its deadline, and sees that it still works.
func outlast(d time.Duration) func(context.Context, *testing.T, *engine.Sandbox) error {
	return func(ctx context.Context, t *testing.T, sb *engine.Sandbox) error {
		// The command takes longer than the deadline, which is over when it ends.
		if err := sb.Command("sleep", fmt.Sprint((2 * d).Seconds())).Run(); err != nil {
			return err
		}
		return sb.FS().WriteFile("x", nil, 0o644)
	}
}

// TestTwoHolders has two processes hold one sandbox.
func TestTwoHolders(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{})
	pid := agentPID(t, eng, sb.ID())
	p := start(t, "hold", dir, sb.ID())
	p.line(t)
	l, err := sb.Lease(t.Context())
	if err != nil || l.Holders != 2 {
		t.Errorf("holders: got %d, %v, want 2", l.Holders, err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if !running(pid) {
		t.Fatal("the sandbox ended with the first of two handles")
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if running(pid) {
		t.Error("the sandbox lives without a handle")
	}
	if got := endReason(t, eng, sb.ID()); got != lease.Closed {
		t.Errorf("end reason: got %q, want %q", got, lease.Closed)
	}
}

// TestKeepAliveBounds refuses what is over the bound, and leaves the deadline as it was.
func TestKeepAliveBounds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bound time.Duration
		d     time.Duration
		want  error
	}{
		{"default, at the bound", 0, time.Hour, nil},
		{"default, over the bound", 0, time.Hour + 1, engine.ErrKeepAliveTooLong},
		{"own, over the bound", time.Minute, 2 * time.Minute, engine.ErrKeepAliveTooLong},
		{"none", -1, 10000 * time.Hour, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eng := open(t, "", func(o *engine.Options) { o.MaxKeepAlive = tt.bound })
			sb := create(t, eng, engine.CreateOptions{KeepAlive: time.Second})
			for name, f := range map[string]func(context.Context, time.Duration) error{"KeepAlive": sb.KeepAlive, "Extend": sb.Extend} {
				if err := f(t.Context(), tt.d); !errors.Is(err, tt.want) {
					t.Errorf("%s(%v): got %v, want %v", name, tt.d, err, tt.want)
				}
			}
			l, err := sb.Lease(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := time.Until(l.ExpiresAt) > time.Minute; got != (tt.want == nil) {
				t.Errorf("deadline in %v; changed: %v, want %v", time.Until(l.ExpiresAt), got, tt.want == nil)
			}
		})
	}
}

// TestReconnectAgainstExpiry races reconnecting with the end, in the two orders. Each yields a handle that works
// for as long as it is held, or ErrExpired.
func TestReconnectAgainstExpiry(t *testing.T) {
	t.Parallel()
	races := 250 // for each order
	if testing.Short() {
		races = 25
	}
	eng := open(t, "")
	other := open(t, eng.Dir())
	var mu sync.Mutex
	outcomes := map[string]int{}
	for _, order := range []string{"keep-alive runs out", "last handle closes"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			for range races {
				got := raceReconnect(t, eng, other, order)
				mu.Lock()
				outcomes[order+": "+got]++
				mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { t.Log(outcomes) })
}

// raceReconnect is one race. It tells which of the two outcomes it had.
func raceReconnect(t *testing.T, eng, other *engine.Engine, order string) string {
	t.Helper()
	ctx := t.Context()
	sb, err := eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	var delay time.Duration
	switch order {
	case "keep-alive runs out":
		const d = 3 * time.Millisecond
		if err := sb.KeepAlive(ctx, d); err != nil {
			t.Fatal(err)
		}
		if err := sb.Close(); err != nil {
			t.Fatal(err)
		}
		delay = rand.N(2 * d)
	default:
		ended.Go(func() {
			if err := sb.Close(); err != nil {
				t.Error(err)
			}
		})
		delay = rand.N(time.Millisecond)
	}
	defer ended.Wait()
	spin(delay)
	again, err := other.Reconnect(ctx, sb.ID())
	if errors.Is(err, engine.ErrExpired) {
		return "expired"
	}
	if err != nil {
		t.Fatalf("reconnect: got %v, want a handle or ErrExpired", err)
	}
	for range 3 {
		if err := again.Command("true").Run(); err != nil {
			t.Errorf("command on a handle that is held: %v", err)
		}
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	return "reconnected"
}

// spin lets a time pass that is too short for a sleep, to hit the moment of a race.
func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}
