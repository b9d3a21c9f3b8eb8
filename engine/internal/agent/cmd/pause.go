//go:build linux

package main

import (
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

const (
	// gateTimeout is how long requests that are under way may keep a pause from beginning.
	gateTimeout = time.Second
	// freshTimeout is how long handles that were opened during a pause may keep it from ending.
	freshTimeout = 200 * time.Millisecond
)

// pause begins another epoch and tells every handle. Then the host may freeze the sandbox: no request is under
// way but those that take long.
func (q *request) pause() error {
	if err := q.r.Done(); err != nil {
		return err
	}
	if !within(gateTimeout, q.gate.TryLock) { // a handle's process may be stopped, and not take its answer
		return q.fail(unix.EBUSY, "")
	}
	defer q.gate.Unlock()
	q.life.suspend()
	q.server.epoch++
	q.tell(wire.New(nil, wire.OpPaused, 0))
	return q.send(q.ok())
}

// resume ends a pause. Handles that were opened in its course come first, so that the sandbox is held by them when
// the one that resumes it goes.
func (q *request) resume() error {
	remaining := time.Duration(q.r.Int())
	if err := q.r.Done(); err != nil {
		return err
	}
	within(freshTimeout, q.noneFresh)
	q.life.resume(remaining)
	q.tell(wire.New(nil, wire.OpResumed, 0).Uint(uint64(q.server.epoch)))
	return q.send(q.ok())
}

// tell sends a message to each handle. One whose queue is full isn't told: its process does not run.
func (s *server) tell(m *wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.w.TrySend(m.Bytes())
	}
}

// noneFresh tells whether all connections are accepted, and have asked for what they want first.
func (s *server) noneFresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := unix.Poll([]unix.PollFd{{Fd: listenFD, Events: unix.POLLIN}}, 0)
	return s.fresh == 0 && n == 0 && err == nil
}

// within tells whether f holds before the time is over. It asks again and again: of a lock that is given back, or a
// queue that is taken, nothing tells.
func within(d time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(d); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
