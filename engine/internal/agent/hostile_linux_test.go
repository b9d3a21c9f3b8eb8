package agent_test

import (
	"context"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// TestHostileTerminal is sent what is no terminal's master. The host neither takes it for one nor keeps it.
func TestHostileTerminal(t *testing.T) {
	regular, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	open := func(name string, flags int) int {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	null, dir, path := open("/dev/null", unix.O_RDWR), open("/", unix.O_RDONLY), open("/dev/ptmx", unix.O_PATH)
	master := open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	tests := []struct {
		name string
		pid  uint64
		fds  []int
		ok   bool
	}{
		{"a master", 2, []int{master}, true},
		{"nothing", 2, nil, false},
		{"a regular file", 2, []int{int(regular.Fd())}, false},
		{"a pipe", 2, []int{int(r.Fd())}, false},
		{"another device", 2, []int{null}, false},
		{"a directory", 2, []int{dir}, false},
		{"two masters", 2, []int{master, master}, false},
		{"pid 0", 0, []int{master}, false},
		{"a large pid", math.MaxUint64, []int{master}, false},
		{"only a path", 2, []int{path}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, func(conn *wire.Conn, q request) error {
				return conn.Send(reply(q.id).Uint(tt.pid).Bytes(), tt.fds...)
			})
			before := openFiles(t)
			p, f, err := c.StartPTY(t.Context(), wire.Command{Path: "sh", PTY: true})
			if ok := err == nil; ok != tt.ok || ok != (p != nil && f != nil) {
				t.Errorf("got %v, %v, %v, want ok %v", p, f, err, tt.ok)
			}
			if f != nil {
				_ = f.Close()
			}
			checkFiles(t, before)
		})
	}
}

// TestHostileProcesses is told of processes without end, or of none that can be.
func TestHostileProcesses(t *testing.T) {
	one := func(pid func(after uint64) int) func(*wire.Message, uint64) {
		return func(m *wire.Message, after uint64) { wire.Process{PID: pid(after)}.Put(m) }
	}
	tests := []struct {
		name string
		put  func(m *wire.Message, after uint64)
	}{
		{"the same again", one(func(uint64) int { return 7 })},
		{"without end", one(func(after uint64) int { return int(after) + 1 })},
		{"number 0", one(func(uint64) int { return 0 })},
		{"a negative number", one(func(uint64) int { return -1 })},
		{"a large number", one(func(uint64) int { return math.MaxInt })},
		{"cut off", func(m *wire.Message, after uint64) { m.Uint(after + 1).Uint(1).Text("name") }},
		{"a negative parent", func(m *wire.Message, after uint64) { wire.Process{PID: 2, PPID: -1}.Put(m) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, func(conn *wire.Conn, q request) error {
				m := reply(q.id)
				tt.put(m, q.r.Uint())
				return conn.Send(m.Bytes())
			})
			if list, err := c.Processes(t.Context()); err == nil {
				t.Errorf("got %d processes, want an error", len(list))
			}
		})
	}
}

// TestHostileAttach is told what can't be of a command that it attaches to.
func TestHostileAttach(t *testing.T) {
	c := dial(t, func(conn *wire.Conn, q request) error {
		m := reply(q.id)
		switch q.op {
		case wire.OpAttach:
			m.Text("sh").Texts([]string{"sh"})
		case wire.OpDetach:
			exit := wire.New(nil, wire.OpExit, q.id-1)
			wire.Exit{Status: math.MaxUint32}.Put(exit)
			for range 3 { // ended three times
				if err := conn.Send(exit.Bytes()); err != nil {
					return err
				}
			}
			m.Uint(math.MaxUint64).Uint(math.MaxUint64)
		}
		return conn.Send(m.Bytes())
	})
	p, _, _, err := c.Attach(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	before, since, err := p.Detach(t.Context(), true)
	if err != nil || before < 0 || since < 0 {
		t.Errorf("missed %d and %d, %v, want no negative number", before, since, err)
	}
	if exit, ok := <-p.Exit; !ok || exit.Status != math.MaxUint32 {
		t.Errorf("exit %+v, %v", exit, ok)
	}
	if _, ok := <-p.Exit; ok {
		t.Error("a command ended twice")
	}

	c = dial(t, func(conn *wire.Conn, q request) error {
		return conn.Send(reply(q.id).Text("sh").Texts(nil).Text("too much").Bytes())
	})
	if _, _, _, err := c.Attach(t.Context(), 7); err == nil || strings.Contains(err.Error(), syscall.ESRCH.Error()) {
		t.Errorf("attach: %v, want an error about the reply", err)
	}
}

// TestAttachGivenUp checks that an agent that answers too late is told to follow no more.
func TestAttachGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	detached := make(chan uint64, 1)
	var attach uint32
	c := dial(t, func(_ *wire.Conn, q request) error {
		switch q.op {
		case wire.OpAttach:
			attach = q.id
			cancel()
		case wire.OpDetach:
			detached <- q.r.Uint()
		}
		return nil
	})
	if _, _, _, err := c.Attach(ctx, 7); err != context.Canceled {
		t.Errorf("attach: %v, want context.Canceled", err)
	}
	if got := <-detached; got != uint64(attach) {
		t.Errorf("told to end request %d, want %d", got, attach)
	}
}
