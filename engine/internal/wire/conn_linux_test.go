package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// openFiles counts the descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// checkFiles checks at the test's end that no descriptor is left of it.
func checkFiles(t testing.TB) {
	t.Helper()
	r, w, err := os.Pipe() // has the runtime open what it polls with
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.Close(), w.Close()
	before := openFiles(t)
	t.Cleanup(func() {
		if n := openFiles(t); n != before {
			t.Errorf("%d descriptors are open, %d were", n, before)
		}
	})
}

// socketpair makes two connected sockets; the second is left as it is, for a test to misuse.
func socketpair(t testing.TB) (*wire.Conn, int) {
	t.Helper()
	checkFiles(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.NewConn(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, fds[1]
}

// pair makes two connected Conns.
func pair(t testing.TB) (*wire.Conn, *wire.Conn) {
	t.Helper()
	a, fd := socketpair(t)
	b, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return a, b
}

// devNull opens n descriptors, which are closed when the test ends.
func devNull(t testing.TB, n int) []int {
	t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	t.Cleanup(func() { wire.CloseAll(fds) })
	return fds
}

func TestSendRecv(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sent := devNull(t, wire.MaxFiles-1)
	if err := a.Send([]byte("message"), append([]int{int(w.Fd())}, sent...)...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("by the sender, "); err != nil {
		t.Errorf("the sender's own descriptor: %v", err)
	}
	_ = w.Close()
	msg, fds, err := b.Recv(make([]byte, wire.MaxMessage))
	if err != nil || string(msg) != "message" || len(fds) != wire.MaxFiles {
		t.Fatalf("Recv = %q, %d descriptors, %v, want message, %d", msg, len(fds), err, wire.MaxFiles)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags of a descriptor are %#x, %v, want FD_CLOEXEC", flags, err)
		}
	}
	if _, err := unix.Write(fds[0], []byte("by the receiver")); err != nil {
		t.Error(err)
	}
	wire.CloseAll(fds)
	if got, err := io.ReadAll(r); err != nil || string(got) != "by the sender, by the receiver" {
		t.Errorf("the pipe holds %q, %v", got, err)
	}
}

// Each message is received whole, and by its own: of any size and number, from many goroutines at once. There
// are more than the socket's queue holds.
func TestSendConcurrently(t *testing.T) {
	a, b := pair(t)
	const senders, messages = 4, 200
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := range messages {
				size := 1 + n*(wire.MaxMessage-1)/(messages-1)
				if err := a.Send(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
					t.Error(err)
					_ = a.Close() // so that nobody waits for the rest
					return
				}
			}
		})
	}
	got := [senders]int{}
	buf := make([]byte, wire.MaxMessage)
	for range senders * messages {
		msg, _, err := b.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		i := int(msg[0])
		size := 1 + got[i]*(wire.MaxMessage-1)/(messages-1)
		if len(msg) != size || !bytes.Equal(msg, bytes.Repeat(msg[:1], size)) {
			t.Errorf("message %d of sender %d has %d bytes, want %d, all the same", got[i], i, len(msg), size)
		}
		got[i]++
	}
	wg.Wait()
}

func TestTrySend(t *testing.T) {
	a, b := pair(t)
	sent := 0
	var err error
	for ; err == nil; sent++ {
		err = a.TrySend([]byte("m"))
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("TrySend when the queue is full: %v, want EAGAIN", err)
	}
	buf := make([]byte, wire.MaxMessage)
	for range sent - 1 {
		if msg, _, err := b.Recv(buf); err != nil || string(msg) != "m" {
			t.Fatalf("Recv = %q, %v, want m", msg, err)
		}
	}
	if err := a.TrySend([]byte("next")); err != nil {
		t.Error(err)
	}
	if msg, _, err := b.Recv(buf); err != nil || string(msg) != "next" {
		t.Errorf("Recv = %q, %v, want what was sent next", msg, err)
	}
	if err := a.TrySend(make([]byte, wire.MaxMessage+1)); err != wire.ErrMessage {
		t.Errorf("TrySend of MaxMessage + 1 bytes: %v, want ErrMessage", err)
	}
}

func TestSendRefuses(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(make([]byte, wire.MaxMessage+1)); err != wire.ErrMessage {
		t.Errorf("Send of MaxMessage + 1 bytes: %v, want ErrMessage", err)
	}
	if err := a.Send([]byte("m"), devNull(t, wire.MaxFiles+1)...); err != wire.ErrMessage {
		t.Errorf("Send with MaxFiles + 1 descriptors: %v, want ErrMessage", err)
	}
	if err := a.Send([]byte("m"), -1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Send with a bad descriptor: %v, want EBADF", err)
	}
	if err := a.Send([]byte("next")); err != nil {
		t.Fatal(err)
	}
	if msg, _, err := b.Recv(make([]byte, wire.MaxMessage)); err != nil || string(msg) != "next" {
		t.Errorf("Recv = %q, %v, want what was sent next", msg, err)
	}
}

// What a hostile other end sends, however many descriptors come with it, leaves none behind.
func TestRecvRefuses(t *testing.T) {
	tests := []struct {
		name string
		send []byte
		fds  int
		buf  int
		want error
	}{
		{"too many descriptors", []byte("m"), wire.MaxFiles + 1, wire.MaxMessage, wire.ErrMessage},
		{"as many as the kernel takes", []byte("m"), 253, wire.MaxMessage, wire.ErrMessage}, // SCM_MAX_FD of unix(7)
		{"larger than the buffer", make([]byte, 101), 0, 100, wire.ErrMessage},
		{"larger, with descriptors", make([]byte, wire.MaxMessage+1), wire.MaxFiles, wire.MaxMessage, wire.ErrMessage},
		{"empty", nil, 0, 100, io.EOF},
		{"empty, with descriptors", nil, 2, 100, wire.ErrMessage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, peer := socketpair(t)
			defer unix.Close(peer)
			var oob []byte
			if tt.fds > 0 {
				oob = unix.UnixRights(devNull(t, tt.fds)...)
			}
			if err := sendmsg(peer, tt.send, oob); err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			if msg, fds, err := c.Recv(make([]byte, tt.buf)); err != tt.want || msg != nil || fds != nil {
				t.Errorf("Recv = %d bytes, %v, %v, want %v", len(msg), fds, err, tt.want)
			}
			if n := openFiles(t); n != before {
				t.Errorf("%d descriptors are open after Recv, %d were before", n, before)
			}
		})
	}
}

// sendmsg is sendmsg(2) as it is; that of package unix adds a byte to what is empty.
func sendmsg(fd int, b, oob []byte) error {
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Iov: &iov, Control: unsafe.SliceData(oob)}
	msg.SetIovlen(1)
	msg.SetControllen(len(oob))
	if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0); errno != 0 {
		return errno
	}
	return nil
}

// TestTryRecv receives what is there, also while somebody awaits it.
func TestTryRecv(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 100)
	if _, _, err := a.TryRecv(buf); err != wire.ErrNoMessage {
		t.Errorf("before there is a message: %v, want ErrNoMessage", err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _ = a.TryRecv(buf) }); n != 0 {
		t.Errorf("to look for a message makes %v pieces of garbage", n)
	}
	if err := b.Send([]byte("one"), devNull(t, 1)...); err != nil {
		t.Fatal(err)
	}
	msg, fds, err := a.TryRecv(buf)
	if err != nil || string(msg) != "one" || len(fds) != 1 {
		t.Errorf("TryRecv = %q, %v, %v", msg, fds, err)
	}
	wire.CloseAll(fds)

	var mu sync.Mutex
	var got []string
	take := func() error {
		mu.Lock()
		defer mu.Unlock()
		msg, _, err := a.TryRecv(buf)
		if err == nil {
			got = append(got, string(msg))
		}
		return err
	}
	ended := make(chan error)
	go func() {
		err := error(nil)
		for err == nil {
			err = a.Await(take)
		}
		ended <- err
	}()
	var want []string
	for i := range 1000 {
		want = append(want, string(rune('a'+i%26)))
		if err := b.Send([]byte(want[i])); err != nil {
			t.Fatal(err)
		}
		_ = take()
	}
	_ = b.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("Await: %v, want io.EOF", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d messages, or in another order, want %d", len(got), len(want))
	}
	_ = a.Close()
	if _, _, err := a.TryRecv(buf); err == nil || err == io.EOF || err == wire.ErrNoMessage {
		t.Errorf("TryRecv of what is closed: %v", err)
	}
}

func TestEnd(t *testing.T) {
	buf := make([]byte, 100)
	t.Run("other end is gone", func(t *testing.T) {
		a, b := pair(t)
		if err := b.Send([]byte("last"), devNull(t, 1)...); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		msg, fds, err := a.Recv(buf)
		if err != nil || string(msg) != "last" || len(fds) != 1 {
			t.Errorf("Recv = %q, %v, %v, want what was sent before the end", msg, fds, err)
		}
		wire.CloseAll(fds)
		for range 2 {
			if _, _, err := a.Recv(buf); err != io.EOF {
				t.Errorf("Recv: %v, want io.EOF", err)
			}
		}
		if err := a.Send([]byte("m")); !errors.Is(err, unix.EPIPE) {
			t.Errorf("Send: %v, want EPIPE", err)
		}
	})
	t.Run("other end didn't read", func(t *testing.T) {
		a, b := pair(t)
		if err := a.Send([]byte("unread"), devNull(t, 1)...); err != nil {
			t.Fatal(err)
		}
		_ = b.Close() // which is a reset, see unix(7)
		if _, _, err := a.Recv(buf); err != io.EOF {
			t.Errorf("Recv: %v, want io.EOF", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		a, _ := pair(t)
		_ = a.Close()
		if _, _, err := a.Recv(buf); err == nil || err == io.EOF {
			t.Errorf("Recv: %v, want an error that isn't the other end's", err)
		}
		if err := a.Send([]byte("m")); err == nil {
			t.Error("Send: no error")
		}
		if err := a.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Close: %v, want os.ErrClosed", err)
		}
	})
	t.Run("closed while Recv waits", func(t *testing.T) {
		a, _ := pair(t)
		done := make(chan error)
		go func() {
			_, _, err := a.Recv(buf)
			done <- err
		}()
		_ = a.Close()
		if err := <-done; err == nil || err == io.EOF {
			t.Errorf("Recv: %v, want an error that isn't the other end's", err)
		}
	})
	t.Run("closed while Send waits", func(t *testing.T) {
		a, _ := pair(t)
		done := make(chan error)
		go func() {
			var err error
			for err == nil {
				err = a.Send(buf)
			}
			done <- err
		}()
		_ = a.Close()
		<-done
	})
}

func TestListenDial(t *testing.T) {
	checkFiles(t)
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 200)) // a socket's address has 108 bytes
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := wire.Dial(dir, "agent.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dial where there is no socket: %v, want fs.ErrNotExist", err)
	}
	l, err := wire.Listen(dir, "agent.sock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Listen(dir, "agent.sock"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Listen where there is a socket: %v, want EADDRINUSE", err)
	}
	a, err := wire.Dial(dir, "agent.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := a.Send([]byte("hello")); err != nil {
		t.Error(err)
	}
	if msg, _, err := b.Recv(make([]byte, 10)); err != nil || string(msg) != "hello" {
		t.Errorf("Recv = %q, %v, want hello", msg, err)
	}
	_ = l.Close()
	if _, err := wire.Dial(dir, "agent.sock"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("Dial when nobody listens: %v, want ECONNREFUSED", err)
	}
}

func TestSpill(t *testing.T) {
	a, b := pair(t)
	for _, size := range []int{0, 1, wire.MaxMessage + 1, wire.MaxSpill} {
		want := bytes.Repeat([]byte("spill"), size/5+1)[:size]
		f, err := wire.Spill(want)
		if err != nil {
			t.Fatal(err)
		}
		err = a.Send(wire.New(nil, wire.OpSpilled, 1).Bytes(), int(f.Fd()))
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, fds, err := b.Recv(make([]byte, wire.MaxMessage))
		if err != nil || len(fds) != 1 {
			t.Fatalf("Recv: %v, %v, want one descriptor", fds, err)
		}
		for range 2 { // reading leaves the file as it is
			if got, err := wire.Unspill(fds[0]); err != nil || !bytes.Equal(got, want) {
				t.Errorf("Unspill = %d bytes, %v, want the %d that were spilled", len(got), err, size)
			}
		}
		wire.CloseAll(fds)
	}
	if f, err := wire.Spill(make([]byte, wire.MaxSpill+1)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("Spill of MaxSpill + 1 bytes = %v, %v, want E2BIG", f, err)
	}
}

func TestUnspillRefuses(t *testing.T) {
	checkFiles(t)
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, wire.MaxSpill+1)); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(dir, "small")
	if err := os.WriteFile(small, []byte("m"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		flags      int
	}{
		{"too large", large, unix.O_RDONLY},
		{"pipe", fifo, unix.O_RDWR},
		{"device", "/dev/zero", unix.O_RDONLY},
		{"directory", dir, unix.O_RDONLY},
		{"for writing alone", small, unix.O_WRONLY},
		{"path alone", small, unix.O_PATH},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := unix.Open(tt.path, tt.flags|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if b, err := wire.Unspill(fd); err != wire.ErrMessage {
				t.Errorf("Unspill = %d bytes, %v, want ErrMessage", len(b), err)
			}
		})
	}
	if _, err := wire.Unspill(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Unspill of no descriptor: %v, want EBADF", err)
	}
}

// TestSendBesideOne has one wait for a queue that is full, without a bound. Others are bound by their own.
func TestSendBesideOne(t *testing.T) {
	a, b := pair(t)
	var err error
	for err == nil {
		err = a.TrySend([]byte("m"))
	}
	first, stop := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() { waiting <- a.SendContext(first, []byte("first")) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, send := range map[string]func() error{
		"TrySend":     func() error { return a.TrySend([]byte("m")) },
		"SendContext": func() error { return a.SendContext(ctx, []byte("m")) },
	} {
		done := make(chan error, 1)
		go func() {
			var err error
			for range 1000 { // the first may not have begun to wait
				if err = send(); err == nil {
					break
				}
				runtime.Gosched()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want EAGAIN or context.Canceled", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for another", name)
		}
	}
	stop()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v, want context.Canceled", err)
	}
	if _, _, err := b.Recv(make([]byte, wire.MaxMessage)); err != nil {
		t.Error(err)
	}
	if err := a.Send([]byte("m")); err != nil {
		t.Error(err)
	}
}
