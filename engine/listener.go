package engine

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// listener is a socket that listens in a sandbox. It closes with its handle.
type listener struct {
	net.Listener // a *net.TCPListener or *net.UnixListener that removes no file
	sb           *Sandbox
	path         string // of its file in the sandbox; empty: none
	closed       atomic.Bool
}

// keep has a listener closed with the handle. It is false if the handle is.
func (s *Sandbox) keep(l *listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing != nil {
		return false
	}
	if s.listeners == nil {
		s.listeners = map[*listener]struct{}{}
	}
	s.listeners[l] = struct{}{}
	return true
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && l.closed.Load() {
		err = &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	}
	return c, err
}

// SetDeadline bounds how long Accept waits, as that of *net.TCPListener.
func (l *listener) SetDeadline(t time.Time) error {
	return l.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}

// Close closes the socket and removes its file.
func (l *listener) Close() error {
	l.sb.mu.Lock()
	delete(l.sb.listeners, l)
	l.sb.mu.Unlock()
	if !l.closed.Swap(true) {
		l.unlink()
	}
	return l.shut()
}

// drop closes the socket for a handle that goes. That must not wait for the agent.
func (l *listener) drop() {
	if l.closed.Swap(true) {
		return
	}
	if l.path != "" {
		l.sb.client.PostUnlink(l.path)
	}
	_ = l.shut()
}

func (l *listener) unlink() {
	if l.path == "" || l.sb.usable() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = l.sb.client.Unlink(ctx, l.path) // a file that isn't there any more is as good; so has it package net
}

// shut closes the socket. An Accept under way ends first: an agent that kept the socket could have made it wait
// where only this wakes it, and Close would wait for it.
func (l *listener) shut() error {
	shutdown(l.Listener)
	return l.Listener.Close()
}
