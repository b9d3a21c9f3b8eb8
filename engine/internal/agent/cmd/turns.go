//go:build linux

package main

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// turnTime is how long a connection's requests wait for one about files, at least. A guest can have it wait for a lock that it
// holds, such as one on a file that it reads.
const turnTime = 100 * time.Millisecond

// turns has connections read on by another goroutine when a request lasts. It costs one that doesn't a look at the clock.
type turns struct {
	timer timer
	armed atomic.Bool // there will be a look
}

// errOvertaken says that another goroutine serves the connection now.
var errOvertaken = errors.New("overtaken")

func newTurns() (*turns, error) {
	timer, err := newTimer(unix.CLOCK_BOOTTIME)
	return &turns{timer: timer}, err
}

func (t *turns) arm() {
	if !t.armed.Load() && t.armed.CompareAndSwap(false, true) {
		t.timer.in(turnTime)
	}
}

// inTurn calls f, which answers the request. If that lasts, or is going to, its error is errOvertaken, and the gate is open again.
func (q *request) inTurn(f func() error) error {
	q.began = int64(now())
	q.under.Store(q.began)
	if len(busy) == maxBusy { // it waits for others that may last
		q.overtake(q.began)
	}
	q.turns.arm()
	err := f()
	if !q.under.CompareAndSwap(q.began, 0) {
		<-q.behind
		return errOvertaken
	}
	return err
}

// overtaken tells whether the request has lasted for so long that others have overtaken it.
func (q *request) overtaken() bool { return q.under.Load() != q.began }

// overtake looks for requests that last, for ever.
func (s *server) overtake() {
	for {
		s.turns.timer.wait()
		s.turns.armed.Store(false) // a request that begins now is seen below, or arms
		s.mu.Lock()
		for c := range s.conns {
			began := c.under.Load()
			if began != 0 && (int64(now())-began < int64(turnTime) || !c.overtake(began)) {
				s.turns.arm()
			}
		}
		s.mu.Unlock()
	}
}

// overtake has the connection served by another goroutine than the one whose request began then, unless too many are overtaken
// already. It takes that one's place at the gate: a pause doesn't wait for it.
func (c *conn) overtake(began int64) bool {
	select {
	case c.behind <- struct{}{}:
	default:
		return false
	}
	if !c.under.CompareAndSwap(began, 0) {
		<-c.behind
		return true // it is answered
	}
	c.gate.RUnlock()
	go c.serve()
	return true
}
