//go:build linux

package main

import (
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// request is a request under way.
type request struct {
	*conn
	settings *settings // the connection's when it was made
	op       wire.Op
	id       uint32
	epoch    uint8
	began    int64 // if it may be overtaken
	r        *wire.Reader
	fds      []int // the request's; nil: handed on
}

func (q *request) closeFiles() {
	wire.CloseAll(q.fds)
	q.fds = nil
}

// slow answers a request aside, for it may take long. f gets the request, of which all is read.
func (q *request) slow(f func(*request) error) error {
	return q.slowThen(f, func() {})
}

// slowThen is slow, and calls then when the request is answered.
func (q *request) slowThen(f func(*request) error, then func()) error {
	select {
	case q.aside <- struct{}{}:
	default:
		return q.fail(unix.EAGAIN, "")
	}
	later := *q
	q.fds = nil
	go func() {
		defer then()
		defer func() { <-later.aside }()
		defer later.closeFiles()
		_ = f(&later) // the handle may be gone
	}()
	return nil
}

// ok begins the answer to a request that went well.
func (q *request) ok() *wire.Message {
	return wire.New(nil, wire.OpReply, q.id).Uint(0).Text("")
}

// fail answers a request that didn't go well.
func (q *request) fail(errno syscall.Errno, stage string) error {
	return q.send(wire.New(nil, wire.OpReply, q.id).Uint(uint64(errno)).Text(stage))
}

func (q *request) send(m *wire.Message, fds ...int) error {
	return q.w.Send(m.Bytes(), fds...)
}

// abs is name as an absolute one; the kernel resolves the rest.
func (q *request) abs(name string) string {
	switch {
	case name == "":
		return q.settings.dir
	case name[0] == '/':
		return name
	default:
		return q.settings.dir + "/" + name
	}
}
