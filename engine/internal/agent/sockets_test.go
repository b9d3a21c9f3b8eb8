//go:build linux

package agent_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// made is a descriptor that an agent could pass.
type made struct {
	name string
	fd   int
	is   string // the network it is good for, with "listen " in front if it listens
}

// descriptors are some of each kind.
func descriptors(t *testing.T) (list []made) {
	t.Helper()
	add := func(name string, fd int, err error, is string) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		list = append(list, made{name, fd, is})
	}
	addSocket := func(name string, domain, typ, proto int, is string) {
		fd, err := unix.Socket(domain, typ, proto)
		add(name, fd, err, is)
		if typ != unix.SOCK_STREAM || domain == unix.AF_UNIX { // what isn't bound can't listen there
			return
		}
		fd, err = unix.Socket(domain, typ, proto)
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		if is != "" {
			is = "listen " + is
		}
		add(name+" that listens", fd, err, is)
	}
	addSocket("TCP socket", unix.AF_INET, unix.SOCK_STREAM, 0, "tcp4")
	addSocket("TCP socket of IPv6", unix.AF_INET6, unix.SOCK_STREAM, 0, "tcp6")
	addSocket("MPTCP socket", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, "")
	addSocket("UDP socket, not connected", unix.AF_INET, unix.SOCK_DGRAM, 0, "")
	addSocket("raw socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP, "")
	addSocket("packet socket", unix.AF_PACKET, unix.SOCK_RAW, 0, "")
	addSocket("netlink socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, "")
	addSocket("unix socket, not connected", unix.AF_UNIX, unix.SOCK_STREAM, 0, "")
	for typ, is := range map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_SEQPACKET: "unixpacket", unix.SOCK_DGRAM: "unixgram"} {
		p, err := unix.Socketpair(unix.AF_UNIX, typ, 0)
		add("pair of "+is, p[0], err, is)
		add("pair of "+is, p[1], err, is)
	}
	fd, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	add("device", fd, err, "")
	fd, err = unix.Open(t.TempDir(), unix.O_RDONLY, 0)
	add("directory", fd, err, "")
	fd, err = unix.Open(t.TempDir(), unix.O_PATH, 0)
	add("directory by its path", fd, err, "")
	fd, err = unix.MemfdCreate("file", 0)
	add("file", fd, err, "")
	fd, err = unix.EpollCreate1(0)
	add("epoll", fd, err, "")
	var p [2]int
	err = unix.Pipe2(p[:], 0)
	add("pipe", p[0], err, "")
	add("pipe", p[1], err, "")
	return list
}

// TestCheckSocket asks for each kind of socket and gives each kind of descriptor.
func TestCheckSocket(t *testing.T) {
	networks := []string{"tcp4", "tcp6", "udp4", "udp6", "unix", "unixpacket", "unixgram", "", "tcp"}
	for _, m := range descriptors(t) {
		for _, network := range networks {
			for _, listening := range []bool{false, true} {
				asked := network
				if listening {
					asked = "listen " + network
				}
				err := agent.CheckSocket(m.fd, wire.Socket{Net: network}, listening)
				if good := m.is != "" && m.is == asked; (err == nil) != good || err != nil && !errors.Is(err, agent.ErrReply) {
					t.Errorf("asked for %s, got a %s: %v, want it good: %v", asked, m.name, err, good)
				}
			}
		}
	}
}

// answering answers every request of a client with what reply gives, as an agent that was taken over could.
func answering(t *testing.T, reply func() (m func(id uint32) *wire.Message, fds []int)) *agent.Client {
	return dial(t, func(conn *wire.Conn, q request) error {
		m, fds := reply()
		return conn.Send(m(q.id).Bytes(), fds...)
	})
}

// TestHostileSockets has an agent pass what it was not asked for: that is an error, and nothing stays open.
func TestHostileSockets(t *testing.T) {
	var all []int
	for _, m := range descriptors(t) {
		if m.is != "tcp4" && m.is != "listen tcp4" {
			all = append(all, m.fd)
		}
	}
	type answer struct {
		m   func(uint32) *wire.Message
		fds []int
	}
	answers := []answer{
		{reply, nil},
		{reply, all[:2]},
		{reply, all[:wire.MaxFiles]},
		{func(id uint32) *wire.Message { return reply(id).Text("more") }, all[:1]},
		{func(id uint32) *wire.Message {
			return wire.New(nil, wire.OpReply, id).Uint(uint64(syscall.EPERM)).Text("made-up stage")
		}, all[:1]},
	}
	for _, fd := range all {
		answers = append(answers, answer{reply, []int{fd}})
	}
	next := make(chan answer, 1)
	c := answering(t, func() (func(uint32) *wire.Message, []int) {
		a := <-next
		return a.m, a.fds
	})
	before := openFiles(t)
	for i, a := range answers {
		for name, call := range map[string]func(context.Context, wire.Socket) (*os.File, error){"connect": c.Connect, "listen": c.Listen} {
			next <- a
			f, err := call(t.Context(), wire.Socket{Net: "tcp4"})
			if f != nil || !errors.Is(err, agent.ErrReply) && err != syscall.EPERM {
				t.Errorf("answer %d to %s: %v, %v, want no file and an error", i, name, f, err)
			}
		}
	}
	checkFiles(t, before)
}

// TestConnectWaits has an agent pass a socket that never connects: only the context ends that.
func TestConnectWaits(t *testing.T) {
	c := answering(t, func() (func(uint32) *wire.Message, []int) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return func(id uint32) *wire.Message { return wire.New(nil, wire.OpReply, id).Uint(0).Text("") }, []int{fd}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("cause")
	connected := make(chan error)
	go func() { _, err := c.Connect(ctx, wire.Socket{Net: "tcp4"}); connected <- err }()
	cancel(cause)
	if err := <-connected; !errors.Is(err, cause) {
		t.Errorf("Connect: %v, want the context's cause", err)
	}
}

// checkFiles checks that as many descriptors are open as before, in a moment: those of others are closed aside.
func checkFiles(t *testing.T, before int) {
	t.Helper()
	if !within(func() bool { return openFiles(t) == before }) {
		t.Errorf("%d descriptors are open, %d were before", openFiles(t), before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
