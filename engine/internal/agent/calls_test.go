//go:build linux

package agent_test

import (
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
)

// TestCalls makes calls at once, which are answered in any order. Each gets its own answer, whoever has received that.
func TestCalls(t *testing.T) {
	var answers sync.WaitGroup
	defer answers.Wait()
	c := dial(t, func(conn *wire.Conn, q request) error {
		m := wire.New(nil, wire.OpReply, q.id).Uint(0).Text("").Text(q.r.Text())
		answers.Go(func() { _ = conn.Send(m.Bytes()) })
		return nil
	})
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range 500 {
				name := strconv.Itoa(caller*1000 + i)
				if target, err := c.Readlink(name); err != nil || target != name {
					t.Errorf("asked for %s, got %q, %v", name, target, err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// TestResumed makes a call when the agent has said that the sandbox was resumed, which nobody may have received yet.
func TestResumed(t *testing.T) {
	paused := make(chan *wire.Conn, 1)
	c := dial(t, func(conn *wire.Conn, q request) error {
		if q.r.Text() == "pause" {
			paused <- conn
			return conn.Send(wire.New(nil, wire.OpPaused, 0).Bytes())
		}
		return conn.Send(wire.New(nil, wire.OpReply, q.id).Uint(0).Text("").Text("target").Bytes())
	})
	for range 200 {
		if _, err := c.Readlink("pause"); !errors.Is(err, agent.ErrPaused) {
			t.Fatalf("paused: %v", err)
		}
		if err := (<-paused).Send(wire.New(nil, wire.OpResumed, 0).Uint(0).Bytes()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Readlink("name"); err != nil {
			t.Fatalf("resumed: %v", err)
		}
	}
}
