package engine_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// listenBoth listens in a sandbox and on the host's loopback, has serve take what connects, and gives how to dial
// each.
func listenBoth(b *testing.B, serve func(net.Conn)) (ours, yardstick func() net.Conn) {
	b.Helper()
	sb := create(b, open(b, ""), engine.CreateOptions{})
	in := func(listen func(context.Context, string, string) (net.Listener, error), dial func(context.Context, string, string) (net.Conn, error)) func() net.Conn {
		l, err := listen(b.Context(), "tcp", "127.0.0.1:0")
		try(b, err)
		b.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					serve(c)
				}()
			}
		}()
		return func() net.Conn {
			c, err := dial(b.Context(), "tcp", l.Addr().String())
			try(b, err)
			return c
		}
	}
	return in(sb.Listen, sb.DialContext), in((&net.ListenConfig{}).Listen, (&net.Dialer{}).DialContext)
}

func BenchmarkDial(b *testing.B) {
	ours, yardstick := listenBoth(b, func(net.Conn) {})
	sideBySide(b, func() { try(b, ours().Close()) }, func() { try(b, yardstick().Close()) })
}

// BenchmarkRoundTrip sends a byte and waits for one.
func BenchmarkRoundTrip(b *testing.B) {
	ours, yardstick := listenBoth(b, func(c net.Conn) {
		for buf := make([]byte, 1); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	trip := func(c net.Conn) func() {
		b.Cleanup(func() { _ = c.Close() })
		buf := make([]byte, 1)
		return func() {
			_, err := c.Write(buf)
			try(b, err)
			_, err = c.Read(buf)
			try(b, err)
		}
	}
	sideBySide(b, trip(ours()), trip(yardstick()))
}

// BenchmarkTransfer256MiB copies through one connection, and waits until all has come out.
func BenchmarkTransfer256MiB(b *testing.B) {
	const size = 256 << 20
	ours, yardstick := listenBoth(b, func(c net.Conn) {
		for buf, n := make([]byte, 256<<10), 0; n < size; {
			m, err := c.Read(buf)
			if n += m; err != nil {
				return
			}
		}
		_, _ = c.Write([]byte{0})
	})
	chunk := make([]byte, 256<<10)
	transfer := func(dial func() net.Conn) {
		c := dial()
		defer c.Close()
		for range size / len(chunk) {
			_, err := c.Write(chunk)
			try(b, err)
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		try(b, err)
	}
	sideBySide(b, func() { transfer(ours) }, func() { transfer(yardstick) })
}
