package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// network is what the host and a sandbox both have.
type network struct {
	name   string
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// bothNetworks gives the host's and a sandbox's.
func bothNetworks(sb *engine.Sandbox) []network {
	return []network{
		{"host", (&net.Dialer{}).DialContext, (&net.ListenConfig{}).Listen},
		{"sandbox", sb.DialContext, sb.Listen},
	}
}

// describe tells what callers can learn of an error.
func describe(err error) string {
	if err == nil {
		return "no error"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", err)
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&b, "%s, ", strings.TrimPrefix(typeName(e), "*"))
	}
	for _, target := range []error{context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded, fs.ErrNotExist, fs.ErrPermission, net.ErrClosed,
		syscall.ECONNREFUSED, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EINVAL, syscall.ENOTSOCK, syscall.EPROTOTYPE} {
		if errors.Is(err, target) {
			fmt.Fprintf(&b, "\nis %v", target)
		}
	}
	var nerr net.Error
	if errors.As(err, &nerr) {
		fmt.Fprintf(&b, "\nTimeout() = %v", nerr.Timeout())
	}
	var operr *net.OpError
	if errors.As(err, &operr) {
		fmt.Fprintf(&b, "\nOp %s, Net %s, Source %v, Addr %T %v", operr.Op, operr.Net, operr.Source, operr.Addr, operr.Addr)
	}
	return b.String()
}

// typeName is an error's type, without the package of those that are nobody's to name.
func typeName(err error) string {
	name := fmt.Sprintf("%T", err)
	if _, last, _ := strings.Cut(name, "."); strings.ToLower(last[:1]) == last[:1] {
		return last
	}
	return name
}

// TestNetErrors compares errors with those of package net.
func TestNetErrors(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	dir := t.TempDir()
	plain, taken, dead := dir+"/file", dir+"/taken", dir+"/dead"
	if err := sb.FS().MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sb.FS().WriteFile(plain, nil, 0o644), os.WriteFile(plain, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	both := bothNetworks(sb)
	var port string // taken by both
	for i, n := range both {
		l, err := n.listen(t.Context(), "tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if i == 0 {
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
		u, err := n.listen(t.Context(), "unix", taken)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if i == 0 {
			u.(*net.UnixListener).SetUnlinkOnClose(false)
		}
	}
	leaveDead(t, sb, dead)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(errors.New("a cause of one's own"))
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancelLate()

	for _, tc := range []struct {
		op, network, address string
		ctx                  context.Context // nil: the test's
	}{
		{"dial", "tcp", "127.0.0.1:1", nil},
		{"dial", "tcp4", "127.0.0.1:1", nil},
		{"dial", "tcp6", "[::1]:1", nil},
		{"dial", "tcp", "0.0.0.0:1", nil},
		{"dial", "tcp", "[::]:1", nil},
		{"dial", "tcp", ":1", nil},
		{"dial", "tcp", "127.0.0.1:", nil},
		{"dial", "tcp", "127.0.0.1:tcpmux", nil},
		{"dial", "tcp", "localhost:1", nil},
		{"dial", "tcp", "127.0.0.1:nosuch", nil},
		{"dial", "tcp", "127.0.0.1:65536", nil},
		{"dial", "tcp", "127.0.0.1:-1", nil},
		{"dial", "tcp", "127.0.0.1", nil},
		{"dial", "tcp", "::1:1", nil},
		{"dial", "tcp", "", nil},
		{"dial", "tcp4", "[::1]:1", nil},
		{"dial", "tcp6", "127.0.0.1:1", nil},
		{"dial", "tcp7", "127.0.0.1:1", nil},
		{"dial", "", "127.0.0.1:1", nil},
		{"dial", "unix", "", nil},
		{"dial", "unix", dir + "/missing", nil},
		{"dial", "unix", dir, nil},
		{"dial", "unix", plain, nil},
		{"dial", "unix", plain + "/below", nil},
		{"dial", "unix", dead, nil},
		{"dial", "unix", "@nestbox-missing", nil},
		{"dial", "unix", "/" + strings.Repeat("a", 108), nil},
		{"dial", "unix", "/nul\x00", nil},
		{"dial", "unixpacket", taken, nil},
		{"dial", "unixgram", taken, nil},
		{"dial", "tcp", "127.0.0.1:1", canceled},
		{"dial", "tcp", "127.0.0.1:" + port, canceled},
		{"dial", "tcp", "127.0.0.1", canceled},
		{"dial", "unix", taken, canceled},
		{"dial", "tcp", "127.0.0.1:1", caused},
		{"dial", "tcp", "127.0.0.1:1", late},
		{"dial", "unix", taken, late},
		{"listen", "tcp", "127.0.0.1:" + port, nil},
		{"listen", "tcp", "192.0.2.1:0", nil},
		{"listen", "tcp", "127.0.0.1", nil},
		{"listen", "tcp", "127.0.0.1:65536", nil},
		{"listen", "tcp4", "[::1]:0", nil},
		{"listen", "tcp6", "127.0.0.1:0", nil},
		{"listen", "udp", "127.0.0.1:0", nil},
		{"listen", "tcp7", "127.0.0.1:0", nil},
		{"listen", "unix", taken, nil},
		{"listen", "unix", plain, nil},
		{"listen", "unix", dir + "/missing/sock", nil},
		{"listen", "unix", "/" + strings.Repeat("a", 108), nil},
	} {
		ctx := tc.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		var got [2]string
		for i, n := range both {
			var err error
			if tc.op == "dial" {
				_, err = n.dial(ctx, tc.network, tc.address)
			} else {
				_, err = n.listen(ctx, tc.network, tc.address)
			}
			got[i] = describe(err)
		}
		if got[0] == "no error" || got[1] != got[0] {
			t.Errorf("%s %s %q gives\n%s\nwant, as package net has it,\n%s", tc.op, tc.network, tc.address, got[1], got[0])
		}
	}
}

// leaveDead leaves the file of a unix socket that nobody listens on, on the host and in a sandbox.
func leaveDead(t *testing.T, sb *engine.Sandbox, path string) {
	t.Helper()
	host, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	host.(*net.UnixListener).SetUnlinkOnClose(false)
	l, err := sb.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sb.FS().Rename(path, path+"2"), host.Close(), l.Close(), sb.FS().Rename(path+"2", path)); err != nil {
		t.Fatal(err)
	}
}

// TestListenerErrors compares errors of listeners and connections with those of package net's.
func TestListenerErrors(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	dir := t.TempDir()
	if err := sb.FS().MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var port string
	var got [2][]string
	for i, n := range bothNetworks(sb) {
		for _, address := range []string{"127.0.0.1:" + port, dir + "/sock"} {
			family := "unix"
			if address[0] != '/' {
				family = "tcp"
			}
			l, err := n.listen(t.Context(), family, address)
			if err != nil {
				t.Fatal(err)
			}
			if family == "tcp" {
				_, port, _ = net.SplitHostPort(l.Addr().String())
			}
			note := func(what string, err error) { got[i] = append(got[i], what+": "+describe(err)) }
			note("SetDeadline", l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0)))
			_, err = l.Accept()
			note("Accept after the deadline", err)
			c, err := n.dial(t.Context(), family, l.Addr().String())
			note("dial", err)
			note("SetDeadline", c.SetDeadline(time.Unix(1, 0)))
			_, err = c.Read(make([]byte, 1))
			note("Read after the deadline", withoutSource(err))
			note("Close of a connection", c.Close())
			_, err = c.Read(make([]byte, 1))
			note("Read when closed", withoutSource(err))
			note("Close", l.Close())
			_, err = l.Accept()
			note("Accept when closed", err)
			note("Close again", l.Close())
			_, err = n.dial(t.Context(), family, l.Addr().String())
			note("dial when closed", err)
		}
	}
	for i, want := range got[0] {
		if got[1][i] != want {
			t.Errorf("got\n%s\nwant, as package net has it,\n%s", got[1][i], want)
		}
	}
}

// withoutSource drops the port of a connection's own.
func withoutSource(err error) error {
	var operr *net.OpError
	if errors.As(err, &operr) {
		operr.Source = nil
	}
	return err
}

func TestDialUnreachable(t *testing.T) {
	sb := create(t, open(t, ""), engine.CreateOptions{})
	for _, address := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
		_, err := sb.DialContext(t.Context(), "tcp", address)
		var operr *net.OpError
		var serr *os.SyscallError
		if !errors.As(err, &operr) || operr.Op != "dial" || operr.Addr.String() != address || !errors.As(err, &serr) || serr.Syscall != "connect" ||
			!errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("dial %s: %v, want connect: ENETUNREACH in a *net.OpError", address, err)
		}
	}
}

// TestDialDuring has contexts end while a connect waits, on the host and in a sandbox.
func TestDialDuring(t *testing.T) {
	sb := create(t, open(t, ""), withProgram(t))
	port, _ := startInside(t, sb, "busy")
	hostPort := start(t, "busy").line(t)
	both := bothNetworks(sb)
	tables := []func() ([]byte, error){
		func() ([]byte, error) { return os.ReadFile("/proc/net/tcp") },
		func() ([]byte, error) { return sb.FS().ReadFile("/proc/net/tcp") },
	}
	var deadline, canceled [2]string
	for i, n := range both {
		address := "127.0.0.1:" + []string{hostPort, port}[i]
		fill(t, n, address)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := n.dial(ctx, "tcp", address)
		cancel()
		deadline[i] = strings.ReplaceAll(describe(err), address, "ADDRESS")

		ctx, cancel = context.WithCancel(t.Context())
		dialled := make(chan error)
		go func() { _, err := n.dial(ctx, "tcp", address); dialled <- err }()
		eventually(t, 5*time.Second, "a connect waits", func() bool { return connecting(t, tables[i], address) })
		cancel()
		canceled[i] = strings.ReplaceAll(describe(<-dialled), address, "ADDRESS")
		eventually(t, 5*time.Second, "the socket is gone", func() bool { return !connecting(t, tables[i], address) })
	}
	if !strings.Contains(canceled[0], "operation was canceled") || canceled[1] != canceled[0] {
		t.Errorf("dial that is cancelled gives\n%s\nwant, as package net has it,\n%s", canceled[1], canceled[0])
	}
	// Package net gives one of two errors of that text, whichever it sees first.
	if !strings.Contains(deadline[0], "i/o timeout") || !strings.Contains(deadline[1], "i/o timeout") ||
		!strings.Contains(deadline[1], "is "+context.DeadlineExceeded.Error()) || !strings.Contains(deadline[1], "Timeout() = true") {
		t.Errorf("dial until the deadline gives\n%s\nand in package net\n%s", deadline[1], deadline[0])
	}
}

// fill connects to a listener that accepts nothing until it has no more room.
func fill(t *testing.T, n network, address string) {
	t.Helper()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		c, err := n.dial(ctx, "tcp", address)
		cancel()
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatalf("%s: a listener without a backlog has room for 10", n.name)
}

// connecting tells whether a table of sockets, see proc(5), has one in SYN_SENT to an address.
func connecting(t *testing.T, read func() ([]byte, error), address string) bool {
	t.Helper()
	table, err := read()
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(address, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), fmt.Sprintf(" 0100007F:%04X 02 ", port))
}
