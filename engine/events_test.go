package engine_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// TestEvents follows a sandbox's life through the events of another engine, and of another process.
func TestEvents(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	listener := open(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := listener.Events(ctx)

	sb := create(t, eng, engine.CreateOptions{})
	for _, step := range []func() error{
		func() error { return sb.KeepAlive(ctx, time.Minute) },
		func() error { return sb.Pause(ctx) },
		func() error { return sb.Resume(ctx) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "hold", dir, sb.ID())
	p.line(t)
	if err := sb.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	want := []lease.EventKind{lease.EventCreated, lease.EventExtended, lease.EventPaused, lease.EventResumed, lease.EventReconnected, lease.EventEnded}
	var got []lease.EventKind
	for ev := range events {
		if ev.ID != sb.ID() {
			continue
		}
		if ev.At.IsZero() || time.Since(ev.At) > time.Minute {
			t.Errorf("event %s at %v", ev.Kind, ev.At)
		}
		got = append(got, ev.Kind)
		if ev.Kind == lease.EventEnded {
			if ev.EndReason != lease.Killed {
				t.Errorf("end reason: got %q, want %q", ev.EndReason, lease.Killed)
			}
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events:\n got %q\nwant %q", got, want)
	}
}

// TestManyEvents writes more events than a file holds. None is missed, and none comes twice.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	listener := open(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := listener.Events(ctx)
	const n = 60_000 // some 7 MB
	writers := []*engine.Engine{open(t, dir), open(t, dir)}
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		for i := range n {
			writers[i%2].Emit(lease.Event{Kind: lease.EventExtended, ID: fmt.Sprint(i)})
		}
	})
	i := 0
	for ev := range events {
		if ev.ID != fmt.Sprint(i) {
			t.Fatalf("event %d: got %q", i, ev.ID)
		}
		if i++; i == n {
			break
		}
	}
	if i != n {
		t.Errorf("got %d events, want %d", i, n)
	}
}
