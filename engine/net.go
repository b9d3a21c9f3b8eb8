package engine

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// DialContext connects to an address in the sandbox, as net.Dialer does to one of the host; it is the
// DialContext of an http.Transport. The networks are "tcp", "udp" and these with 4 or 6, "unix", "unixpacket" and
// "unixgram". What comes out is a *net.TCPConn, *net.UDPConn or *net.UnixConn of the kernel's: nothing is copied
// on the way. ctx counts until it is connected. The connection stays good when the handle is closed, and ends as
// any does when what it leads to ends. An open one keeps the sandbox's network in the kernel's memory, but
// nothing else of a sandbox that has ended.
//
// In a sandbox with NetworkNone there are its own loopback addresses and sockets, and all else is unreachable. With
// NetworkHost there is what the host reaches. A host is an IP address, "localhost", or a name in the sandbox's
// /etc/hosts; the name service is not asked, with NetworkHost neither, and other names are not found, which is a
// *net.DNSError. Of several addresses of a name one is tried after the other. No host is the local one. Paths of unix
// sockets are of the sandbox, relative ones start at its Dir, and its user's rights count for them.
//
// Errors are a *net.OpError, with ErrClosed or ErrEnded in it when the handle is of no use.
func (s *Sandbox) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx == nil {
		panic("nil context")
	}
	addrs, err := s.resolve(ctx, "dial", network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: contextError(ctx, err)}
	}
	var first error
	for _, addr := range addrs {
		c, err := s.dial(ctx, network, addr)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = &net.OpError{Op: "dial", Net: network, Addr: addr, Err: contextError(ctx, err)}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dial connects to one address. What package net tries again, this does: a port of the connection's own that
// happens to be the one dialled, or that isn't free any more.
func (s *Sandbox) dial(ctx context.Context, network string, addr net.Addr) (net.Conn, error) {
	for tries := 3; ; tries-- {
		c, err := s.dialOnce(ctx, socketTo(network, addr))
		if tries == 1 || err != nil && !errors.Is(err, errNoAddress) || err == nil && !selfConnected(c) {
			return c, err
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

func (s *Sandbox) dialOnce(ctx context.Context, so wire.Socket) (net.Conn, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	f, err := s.client.Connect(ctx, so)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FileConn(f)
	return c, cause(err)
}

// ready tells why the sandbox need not be asked.
func (s *Sandbox) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.usable()
}

func selfConnected(c net.Conn) bool {
	_, tcp := c.(*net.TCPConn)
	return tcp && c.LocalAddr().String() == c.RemoteAddr().String()
}

// Listen listens on an address in the sandbox, as net.ListenConfig does on one of the host. The networks are
// "tcp", "tcp4", "tcp6", "unix" and "unixpacket". What Accept gives is a *net.TCPConn or *net.UnixConn of the
// kernel's. Addresses are those of DialContext, but no host is all of the sandbox's addresses, and port 0 or
// none is one that is free. ctx counts until Listen returns.
//
// The listener is closed with the handle, and when the sandbox ends: Accept then gives net.ErrClosed. Closing
// it removes the file of a unix socket. Its connections stay. It is a net.Listener with SetDeadline, no
// *net.TCPListener or *net.UnixListener: these could be told to remove the file where the host has one of that
// name.
func (s *Sandbox) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if ctx == nil {
		panic("nil context")
	}
	addrs, err := s.resolve(ctx, "listen", network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: contextError(ctx, err)}
	}
	addr := preferred(addrs)
	var l net.Listener
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		err = &net.AddrError{Err: "unexpected address type", Addr: address}
	} else {
		l, err = s.listen(ctx, network, addr)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: contextError(ctx, err)}
	}
	return l, nil
}

func (s *Sandbox) listen(ctx context.Context, network string, addr net.Addr) (net.Listener, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	so := socketOn(network, addr)
	f, err := s.client.Listen(ctx, so)
	if so.Dual && errors.Is(err, errNoFamily) { // a kernel without IPv6
		f, err = s.client.Listen(ctx, socketOn("tcp4", addr))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	inner, err := net.FileListener(f)
	l := &listener{Listener: inner, sb: s, path: filePath(so.Path)}
	if err != nil {
		l.unlink()
		return nil, cause(err)
	}
	if !s.keep(l) {
		l.drop()
		return nil, ErrClosed
	}
	return l, nil
}

// cause takes off what net.FileConn and net.FileListener say of their own.
func cause(err error) error {
	var operr *net.OpError
	if errors.As(err, &operr) {
		return operr.Err
	}
	return err
}

// contextError is err, or if that is the context's, what package net makes of it.
func contextError(ctx context.Context, err error) error {
	done := ctx.Err()
	if done == nil || !errors.Is(err, done) && !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	if errors.Is(done, context.DeadlineExceeded) {
		return timeoutError{}
	}
	return canceledError{}
}

// canceledError is package net's error of that text, which is context.Canceled.
type canceledError struct{}

func (canceledError) Error() string        { return "operation was canceled" }
func (canceledError) Is(target error) bool { return target == context.Canceled }

// timeoutError is package net's error of that text, which is context.DeadlineExceeded.
type timeoutError struct{}

func (timeoutError) Error() string        { return "i/o timeout" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Temporary() bool      { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// The errors after which something else is tried.
const (
	errNoAddress = syscall.EADDRNOTAVAIL
	errNoFamily  = syscall.EAFNOSUPPORT
)
