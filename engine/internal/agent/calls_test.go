//go:build linux

package agent_test

import (
	"strconv"
	"sync"
	"testing"

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

// TestResumed makes calls when another handle has paused and resumed the sandbox, of which nobody may have been told yet.
func TestResumed(t *testing.T) {
	told := make(chan struct{}, 1)
	var epoch uint8
	c := dial(t, func(conn *wire.Conn, q request) error {
		if q.epoch != epoch { // as the agent does
			return nil
		}
		if err := conn.Send(wire.New(nil, wire.OpReply, q.id).Uint(0).Text("").Text("target").Bytes()); err != nil {
			return err
		}
		epoch++
		err := conn.Send(wire.New(nil, wire.OpPaused, 0).Bytes())
		if err == nil {
			err = conn.Send(wire.New(nil, wire.OpResumed, 0).Uint(uint64(epoch)).Bytes())
		}
		told <- struct{}{}
		return err
	})
	for range 200 {
		if _, err := c.Readlink("name"); err != nil {
			t.Fatal(err)
		}
		<-told
	}
}
