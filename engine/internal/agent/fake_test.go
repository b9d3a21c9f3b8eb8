//go:build linux

package agent_test

import (
	"os"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// request is what a client has sent. Its descriptors are closed when it is answered.
type request struct {
	op  wire.Op
	id  uint32
	r   *wire.Reader
	fds []int
	raw int // the agent's end of the connection

	epoch uint8
}

// dial gives a client of an agent that answers each request as answer says, until that fails.
func dial(t testing.TB, answer func(conn *wire.Conn, q request) error) *agent.Client {
	t.Helper()
	c, fd := connect(t)
	conn, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		for buf := make([]byte, wire.MaxMessage); ; {
			b, fds, err := conn.Recv(buf)
			if err != nil {
				return
			}
			q := request{fds: fds, raw: fd}
			if q.op, q.id, q.r, err = wire.Read(b); err == nil {
				q.epoch = wire.Epoch(b)
				err = answer(conn, q)
			}
			wire.CloseAll(fds)
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		c.Close(agent.ErrClosed)
		<-done
	})
	return c
}

// connect gives a client, and the agent's end of its connection, which is the caller's.
func connect(t testing.TB) (*agent.Client, int) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := wire.Listen(dir, agent.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := agent.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return c, fd
}

// reply begins an answer that says that all went well.
func reply(id uint32) *wire.Message { return wire.New(nil, wire.OpReply, id).Uint(0).Text("") }
