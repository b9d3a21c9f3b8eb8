package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
	"golang.org/x/sys/unix"
)

// patience is how long a call may take to return when it has a reason to.
const patience = 20 * time.Second

// method is one of Client's. What it takes out of an answer it closes.
type method struct {
	name  string
	first wire.Op // what is answered well before it comes to the method; 0: nothing
	// unbound is a method without a context: Close ends it.
	unbound bool
	call    func(ctx context.Context, c *agent.Client, f *os.File) error
}

// methods are all that wait for an agent.
func methods() []method {
	ok := func(_ any, err error) error { return err }
	file := func(f *os.File, err error) error {
		if f != nil {
			_ = f.Close()
		}
		return err
	}
	attach := func(f func(ctx context.Context, p *agent.Process) error) func(context.Context, *agent.Client, *os.File) error {
		return func(ctx context.Context, c *agent.Client, _ *os.File) error {
			p, _, _, err := c.Attach(ctx, 7)
			if err != nil {
				return err
			}
			return f(ctx, p)
		}
	}
	watch := func(f func(fsapi.Watcher) error) func(context.Context, *agent.Client, *os.File) error {
		return func(_ context.Context, c *agent.Client, _ *os.File) error {
			w, err := c.Watch()
			if err != nil {
				return err
			}
			defer w.Close()
			return f(w)
		}
	}
	list := []method{
		{name: "Hold", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.Hold(ctx, nil)) }},
		{name: "Hold a fresh one", call: func(ctx context.Context, c *agent.Client, _ *os.File) error {
			return ok(c.Hold(ctx, &wire.Config{Seccomp: strings.Repeat("x", 4096)}))
		}},
		{name: "Status", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.Status(ctx)) }},
		{name: "Release", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.Release(ctx)) }},
		{name: "Pause", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return c.Pause(ctx) }},
		{name: "Resume", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return c.Resume(ctx, time.Hour) }},
		{name: "KeepAlive", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.KeepAlive(ctx, time.Hour)) }},
		{name: "Extend", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.Extend(ctx, time.Hour)) }},
		{name: "LimitOpenFiles", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return c.LimitOpenFiles(ctx, 64) }},
		{name: "Start", call: func(ctx context.Context, c *agent.Client, f *os.File) error {
			return ok(c.Start(ctx, wire.Command{Path: "sh", Stdio: 1}, int(f.Fd())))
		}},
		{name: "Start a large one", call: func(ctx context.Context, c *agent.Client, f *os.File) error {
			return ok(c.Start(ctx, wire.Command{Path: strings.Repeat("x", wire.MaxMessage), Stdio: 1}, int(f.Fd())))
		}},
		{name: "StartPTY", call: func(ctx context.Context, c *agent.Client, _ *os.File) error {
			_, f, err := c.StartPTY(ctx, wire.Command{Path: "sh", PTY: true})
			return file(f, err)
		}},
		{name: "Signal", first: wire.OpAttach, call: attach(func(ctx context.Context, p *agent.Process) error { return p.Signal(ctx, syscall.SIGKILL, true) })},
		{name: "Attach", call: attach(func(context.Context, *agent.Process) error { return nil })},
		{name: "Follow", first: wire.OpAttach, call: attach(func(ctx context.Context, p *agent.Process) error { return p.Follow(ctx, 2, 0) })},
		{name: "Detach", first: wire.OpAttach, call: attach(func(ctx context.Context, p *agent.Process) error {
			_, _, err := p.Detach(ctx, true)
			return err
		})},
		{name: "Processes", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return ok(c.Processes(ctx)) }},
		{name: "Connect", call: func(ctx context.Context, c *agent.Client, _ *os.File) error {
			return file(c.Connect(ctx, wire.Socket{Net: "tcp4"}))
		}},
		{name: "Listen", call: func(ctx context.Context, c *agent.Client, _ *os.File) error {
			return file(c.Listen(ctx, wire.Socket{Net: "unix"}))
		}},
		{name: "Unlink", call: func(ctx context.Context, c *agent.Client, _ *os.File) error { return c.Unlink(ctx, "n") }},
		{name: "Watch", unbound: true, call: watch(func(fsapi.Watcher) error { return nil })},
		{name: "watch Add", unbound: true, first: wire.OpWatch, call: watch(func(w fsapi.Watcher) error { return ok(w.Add("n", true)) })},
		{name: "watch Remove", unbound: true, first: wire.OpWatch, call: watch(func(w fsapi.Watcher) error { return w.Remove(1) })},
		{name: "ReadDir to the end", unbound: true, call: func(_ context.Context, c *agent.Client, f *os.File) error {
			for { // as fsapi does
				if _, err := c.ReadDir(f); err != nil {
					return err
				}
			}
		}},
	}
	for name, call := range map[string]func(c *agent.Client, f *os.File) error{
		"Open":     func(c *agent.Client, _ *os.File) error { return file(c.Open("n", os.O_RDWR, 0)) },
		"Fstat":    func(c *agent.Client, f *os.File) error { return ok(c.Fstat(f)) },
		"Stat":     func(c *agent.Client, _ *os.File) error { return ok(c.Stat("n")) },
		"Lstat":    func(c *agent.Client, _ *os.File) error { return ok(c.Lstat("n")) },
		"Readlink": func(c *agent.Client, _ *os.File) error { return ok(c.Readlink("n")) },
		"Mkdir":    func(c *agent.Client, _ *os.File) error { return c.Mkdir("n", 0) },
		"MkdirAll": func(c *agent.Client, _ *os.File) error { return c.MkdirAll("n", 0) },
		"Remove":   func(c *agent.Client, _ *os.File) error { return c.Remove("n") },
		"RemoveAll": func(c *agent.Client, _ *os.File) error {
			return c.RemoveAll("n")
		},
		"Rename":   func(c *agent.Client, _ *os.File) error { return c.Rename("n", "m") },
		"Symlink":  func(c *agent.Client, _ *os.File) error { return c.Symlink("n", "m") },
		"Chmod":    func(c *agent.Client, _ *os.File) error { return c.Chmod("n", 0) },
		"Chown":    func(c *agent.Client, _ *os.File) error { return c.Chown("n", 0, 0) },
		"Link":     func(c *agent.Client, _ *os.File) error { return c.Link("n", "m") },
		"Truncate": func(c *agent.Client, _ *os.File) error { return c.Truncate("n", 0) },
		"Chtimes":  func(c *agent.Client, _ *os.File) error { return c.Chtimes("n", fsapi.Attr{}) },
		"SetAttr":  func(c *agent.Client, f *os.File) error { return c.SetAttr(f, fsapi.Attr{}) },
		"Place a file": func(c *agent.Client, f *os.File) error {
			return file(c.Place(f, fsapi.Place{Kind: wire.PlaceFile}))
		},
		"Place a link": func(c *agent.Client, f *os.File) error {
			return file(c.Place(f, fsapi.Place{Kind: wire.PlaceSymlink}))
		},
	} {
		list = append(list, method{name: name, unbound: true, call: func(_ context.Context, c *agent.Client, f *os.File) error { return call(c, f) }})
	}
	return list
}

// misbehaviour is what an agent does when it is asked for something.
type misbehaviour struct {
	name string
	// open is one after which a call may go on to wait for its answer; others end it.
	open bool
	do   func(conn *wire.Conn, q request) error
}

// raw sends a message past what a Conn refuses to send. A queue that is full is as good.
func raw(q request, b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(q.raw, b, oob, nil, unix.MSG_NOSIGNAL); err != nil && err != unix.EAGAIN {
		return err
	}
	return nil
}

var errEnd = errors.New("the agent ends")

// misbehaviours are those that do not depend on what is asked. kinds are descriptors of any kind.
func misbehaviours(kinds []made) []misbehaviour {
	body := func(put func(*wire.Message)) func(*wire.Conn, request) error {
		return func(conn *wire.Conn, q request) error {
			m := reply(q.id)
			put(m)
			return conn.Send(m.Bytes())
		}
	}
	other := func(op wire.Op, n int) func(*wire.Conn, request) error {
		return func(conn *wire.Conn, q request) error {
			return conn.Send(append(wire.New(nil, op, q.id).Bytes(), make([]byte, n)...))
		}
	}
	list := []misbehaviour{
		{"says nothing", true, func(*wire.Conn, request) error { return nil }},
		{"ends", false, func(*wire.Conn, request) error { return errEnd }},
		{"ends in the middle", false, func(conn *wire.Conn, q request) error {
			return errors.Join(errEnd, conn.Send(wire.New(nil, wire.OpReply, q.id).Bytes()))
		}},
		{"sends an empty message", false, func(_ *wire.Conn, q request) error { return raw(q, nil, nil) }},
		{"sends less than a header", false, func(conn *wire.Conn, _ request) error { return conn.Send([]byte{1, 2}) }},
		{"sends too much", false, func(_ *wire.Conn, q request) error { return raw(q, make([]byte, wire.MaxMessage+1), nil) }},
		{"replies nothing", false, other(wire.OpReply, 0)},
		{"replies half an errno", false, func(conn *wire.Conn, q request) error {
			return conn.Send(append(wire.New(nil, wire.OpReply, q.id).Bytes(), 0x80))
		}},
		{"replies a stage of 2⁶⁴-1 bytes", false, func(conn *wire.Conn, q request) error {
			return conn.Send(wire.New(nil, wire.OpReply, q.id).Uint(0).Uint(math.MaxUint64).Bytes())
		}},
		{"replies an errno that is none", false, func(conn *wire.Conn, q request) error {
			return conn.Send(wire.New(nil, wire.OpReply, q.id).Uint(math.MaxUint64).Text(wire.StageSpool).Uint(math.MaxUint64).Bytes())
		}},
		{"replies a length of 2⁶⁴-1", false, body(func(m *wire.Message) { m.Uint(math.MaxUint64).Text("a") })},
		{"replies zeros", false, body(func(m *wire.Message) { m.Text(strings.Repeat("\x00", 60<<10)) })},
		{"replies to others", true, func(conn *wire.Conn, q request) error {
			return errors.Join(conn.Send(reply(q.id+1).Bytes(), 0), conn.Send(reply(math.MaxUint32).Bytes()))
		}},
		{"replies three times", false, func(conn *wire.Conn, q request) error {
			for range 3 {
				if err := conn.Send(reply(q.id).Uint(7).Bytes(), 0); err != nil {
					return err
				}
			}
			return nil
		}},
		{"asks", false, other(wire.OpHold, 0)},
		{"sends an operation that is none", false, other(255, 100)},
		{"spills", false, func(conn *wire.Conn, q request) error {
			return conn.Send(wire.New(nil, wire.OpSpilled, q.id).Bytes(), 0)
		}},
		{"tells of an end", true, func(conn *wire.Conn, q request) error {
			m := wire.New(nil, wire.OpExit, q.id)
			wire.Exit{}.Put(m)
			return errors.Join(conn.Send(m.Bytes(), 0), conn.Send(m.Bytes(), 0))
		}},
		{"pauses", true, func(conn *wire.Conn, q request) error { return conn.Send(wire.New(nil, wire.OpPaused, 0).Bytes(), 0) }},
		{"tells more of a pause than there is", false, other(wire.OpPaused, 1)},
		{"resumes", true, other(wire.OpResumed, 1)},
		{"sends a flood", true, flood},
		{"sends as many descriptors as the kernel takes", false, func(_ *wire.Conn, q request) error {
			fds := make([]int, 253) // SCM_MAX_FD of unix(7)
			return raw(q, reply(q.id).Bytes(), fds)
		}},
		{"sends as many as are taken", false, func(conn *wire.Conn, q request) error {
			return conn.Send(reply(q.id).Bytes(), make([]int, wire.MaxFiles)...)
		}},
		{"sends a descriptor with an error", false, func(conn *wire.Conn, q request) error {
			return conn.Send(wire.New(nil, wire.OpReply, q.id).Uint(1).Text("").Bytes(), 0, 0)
		}},
	}
	for _, kind := range kinds {
		send := func(put func(*wire.Message)) func(*wire.Conn, request) error {
			return func(conn *wire.Conn, q request) error {
				m := reply(q.id)
				put(m)
				return conn.Send(m.Bytes(), kind.fd)
			}
		}
		list = append(list,
			misbehaviour{"sends " + kind.name, true, send(func(*wire.Message) {})},
			misbehaviour{"sends, as if a file, " + kind.name, true, send(wire.Stat{}.Put)},
			misbehaviour{"sends, as if a terminal, " + kind.name, true, send(func(m *wire.Message) { m.Uint(7) })})
	}
	return list
}

// flood sends what nobody asked for until nobody takes it.
func flood(conn *wire.Conn, q request) error {
	exit := wire.New(nil, wire.OpExit, 0)
	wire.Exit{}.Put(exit)
	for n := uint32(0); ; n++ {
		m := exit.Bytes()
		switch n % 4 {
		case 0:
			m = reply(q.id + 1 + n).Text(strings.Repeat("x", 4<<10)).Bytes()
		case 1:
			m = wire.New(nil, wire.OpReply, q.id+1+n).Uint(5).Text(strings.Repeat("x", 4<<10)).Bytes()
		case 2:
			m = wire.New(nil, wire.OpResumed, n).Uint(uint64(n)).Bytes()
		}
		if err := conn.Send(m, 0, 1); err != nil {
			return err
		}
	}
}

// hostileKinds are descriptors of any kind, of which none is what a method wants.
func hostileKinds(t *testing.T) []made {
	list := descriptors(t)
	add := func(name string, fd int, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		list = append(list, made{name: name, fd: fd})
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a named pipe": fifo, "a file of the kernel": "/proc/self/comm", "a terminal": "/dev/ptmx"} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		add(name, fd, err)
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		add(name+" by its path", fd, err)
	}
	return append(list, made{name: "standard input", fd: 0})
}

// TestSlowClose has an agent send sockets that take long to close, of which it keeps none.
func TestSlowClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var peers []net.Conn
	var closing sync.WaitGroup
	linger := func() int {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return -1
		}
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Error(err)
			return -1
		}
		peers = append(peers, peer)
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		for err == nil { // more than its peer, which doesn't read, has room for
			_, err = c.Write(make([]byte, 1<<20))
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Error(err)
			return -1
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600})
		}
		if err != nil {
			t.Error(err)
		}
		return fd
	}
	for _, tt := range []struct {
		name string
		id   uint32 // of the request that is answered, beside the real one
		fds  int
	}{
		{"answer", 0, 1},
		{"answer to nobody", 1 << 30, 1},
		{"too many", 0, wire.MaxFiles + 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, func(conn *wire.Conn, q request) error {
				var fds []int
				for range tt.fds {
					fds = append(fds, linger())
				}
				err := raw(q, reply(q.id+tt.id).Bytes(), fds)
				closing.Go(func() { wire.CloseAll(fds) }) // which may be the last
				if err == nil && tt.id > 0 {
					err = conn.Send(reply(q.id).Bytes())
				}
				return err
			})
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if _, err := c.KeepAlive(ctx, time.Second); errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the call had to wait: %v", err)
				}
				cancel()
			}
		})
	}
	for _, peer := range peers {
		_ = peer.Close()
	}
	closing.Wait()
}

// TestMisbehaviour has each method of a client ask an agent that does each thing it should not. Whatever that is,
// the call returns: by itself, with its context, or without one by Close. No descriptor and no goroutine is left.
func TestMisbehaviour(t *testing.T) {
	f := openFile(t, t.TempDir(), os.O_RDONLY)
	list := misbehaviours(hostileKinds(t))
	all := methods()
	warm := connectOnce(t)
	defer warm()
	before, goroutines := openFiles(t), runtime.NumGoroutine()
	for _, b := range list {
		for _, m := range all {
			misbehave(t, m, b, f)
		}
		if !within(func() bool { return openFiles(t) <= before && runtime.NumGoroutine() <= goroutines }) {
			t.Fatalf("an agent that %s: %d descriptors and %d goroutines are left, there were %d and %d", b.name, openFiles(t), runtime.NumGoroutine(), before, goroutines)
		}
	}
}

// connectOnce has the runtime open what it polls with.
func connectOnce(t *testing.T) func() {
	c, fd := connect(t)
	return func() {
		_ = unix.Close(fd)
		c.Close(agent.ErrClosed)
	}
}

// within waits for ok.
func within(ok func() bool) bool {
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// misbehave calls one method of a client whose agent does one thing.
func misbehave(t *testing.T, m method, b misbehaviour, f *os.File) {
	t.Helper()
	c, fd := connect(t)
	conn, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer conn.Close()
		serve(conn, fd, m.first, b.do, sync.OnceFunc(func() { close(asked) }))
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	returned := make(chan error, 1)
	go func() { returned <- m.call(ctx, c, f) }()
	name := fmt.Sprintf("%s of an agent that %s", m.name, b.name)
	select {
	case err = <-returned:
	case <-asked:
		if b.open && m.unbound || m.name == "ReadDir to the end" {
			go c.Close(agent.ErrClosed)
		} else if b.open {
			cancel()
		}
		select {
		case err = <-returned:
		case <-time.After(patience):
			t.Fatalf("%s: does not return", name)
		}
	}
	if err != nil && !expected(err) {
		t.Errorf("%s: %v, which no caller can tell", name, err)
	}
	c.Close(agent.ErrClosed)
	<-served
}

// expected tells whether callers know an error.
func expected(err error) bool {
	var errno syscall.Errno
	for _, e := range []error{agent.ErrGone, agent.ErrClosed, agent.ErrPaused, agent.ErrReply, wire.ErrMessage, fsapi.ErrInsecurePath, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.As(err, &errno)
}

// serve answers what comes first well, and the rest by do.
func serve(conn *wire.Conn, fd int, first wire.Op, do func(*wire.Conn, request) error, asked func()) {
	defer asked()
	for buf := make([]byte, wire.MaxMessage); ; {
		b, fds, err := conn.Recv(buf)
		if err != nil {
			return
		}
		q := request{fds: fds, raw: fd}
		q.op, q.id, q.r, err = wire.Read(b)
		switch {
		case err != nil:
		case q.op == first && first == wire.OpAttach:
			err = conn.Send(reply(q.id).Text("sh").Texts(nil).Bytes())
		case q.op == first:
			err = conn.Send(reply(q.id).Bytes())
		default:
			asked()
			err = do(conn, q)
		}
		wire.CloseAll(fds)
		if err != nil {
			return
		}
	}
}

// TestNeverReads has each method of a client ask an agent that reads nothing, of which the queue is full.
func TestNeverReads(t *testing.T) {
	f := openFile(t, t.TempDir(), os.O_RDONLY)
	warm := connectOnce(t)
	defer warm()
	before, goroutines := openFiles(t), runtime.NumGoroutine()
	for _, m := range methods() {
		if m.first != 0 {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			c, fd := connect(t)
			defer unix.Close(fd)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			for range 1000 { // more than the kernel keeps
				if _, err := c.Status(over); !errors.Is(err, context.Canceled) {
					t.Fatalf("Status: %v, want context.Canceled", err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			returned := make(chan error, 1)
			go func() { returned <- m.call(ctx, c, f) }()
			if cancel(); m.unbound {
				go c.Close(agent.ErrClosed)
			}
			select {
			case err := <-returned:
				if err == nil || !expected(err) {
					t.Errorf("got %v", err)
				}
			case <-time.After(patience):
				t.Error("does not return")
			}
			c.Close(agent.ErrClosed)
		})
	}
	if !within(func() bool { return openFiles(t) <= before && runtime.NumGoroutine() <= goroutines }) {
		t.Errorf("%d descriptors and %d goroutines are left, there were %d and %d", openFiles(t), runtime.NumGoroutine(), before, goroutines)
	}
}

// TestPostNeverWaits tells an agent that reads nothing what needs no answer, until its queue is full and beyond.
func TestPostNeverWaits(t *testing.T) {
	unlink := func(c *agent.Client) { c.PostUnlink("n") }
	attach := func(c *agent.Client) { // sends two messages, of which either may be the first that waits
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Microsecond)
		defer cancel()
		_, _, _, _ = c.Attach(ctx, 7)
	}
	for _, tt := range []struct {
		name        string
		first, post func(*agent.Client)
	}{
		{"unlink", unlink, unlink},
		{"attach that is given up", attach, attach},
		{"attach that is given up, after something else", unlink, attach},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, fd := connect(t)
			defer unix.Close(fd)
			defer c.Close(agent.ErrClosed)
			done := make(chan struct{})
			go func() {
				defer close(done)
				tt.first(c)
				for range 1000 { // more than the kernel keeps
					tt.post(c)
				}
			}()
			select {
			case <-done:
			case <-time.After(patience):
				t.Error("does not return")
			}
		})
	}
}

// TestFloodIsForgotten measures what is kept of what nobody asked for.
func TestFloodIsForgotten(t *testing.T) {
	const messages = 20_000
	c := dial(t, func(conn *wire.Conn, q request) error {
		for n := range uint32(messages) {
			if err := conn.Send(reply(q.id + 1 + n).Text(strings.Repeat("x", 32<<10)).Bytes()); err != nil {
				return err
			}
		}
		return conn.Send(reply(q.id).Uint(1).Uint(1).Bytes())
	})
	before := heap()
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("%d bytes are kept of a flood", after-before)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestHostileProcessesSize is told of processes with as much about each as a message holds.
func TestHostileProcessesSize(t *testing.T) {
	for name, args := range map[string][]string{
		"a long argument":    {strings.Repeat("x", 60<<10)},
		"many arguments":     make([]string, 60<<10),
		"a long name, alone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			answers := 0
			c := dial(t, func(conn *wire.Conn, q request) error {
				if answers++; answers > 4096 {
					return errEnd // before they take too much memory
				}
				m := reply(q.id)
				p := wire.Process{PID: int(q.r.Uint()) + 1, Args: args}
				if args == nil {
					p.Name = strings.Repeat("x", 60<<10)
				}
				p.Put(m)
				return conn.Send(m.Bytes())
			})
			if list, err := c.Processes(t.Context()); !errors.Is(err, agent.ErrReply) {
				t.Errorf("got %d processes, %v, want ErrReply", len(list), err)
			}
		})
	}
}
