package agent_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
	"golang.org/x/sys/unix"
)

// answers are what a client makes of an answer, with an error if it took what can't be. The first result is the
// client's own error.
var answers = []struct {
	name  string
	first wire.Op // what is answered well before it comes to the answer; 0: nothing
	call  func(t *testing.T, c *agent.Client, f *os.File) (err, wrong error)
}{
	{"Hold", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		_, err = c.Hold(t.Context(), nil)
		return err, nil
	}},
	{"Status", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		_, err = c.Status(t.Context())
		return err, nil
	}},
	{"Start", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		p, err := c.Start(t.Context(), wire.Command{Path: "sh"})
		return err, wrongProcess(p, err)
	}},
	{"StartPTY", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		p, f, err := c.StartPTY(t.Context(), wire.Command{Path: "sh", PTY: true})
		if err == nil {
			wrong = fmt.Errorf("took %s for a terminal", f.Name())
			_ = f.Close()
		}
		return err, wrongOr(wrongProcess(p, err), wrong)
	}},
	{"Attach", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		_, _, _, err = c.Attach(t.Context(), 7)
		return err, nil
	}},
	{"Detach", wire.OpAttach, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		p, _, _, err := c.Attach(t.Context(), 7)
		if err != nil {
			return err, nil
		}
		before, since, err := p.Detach(t.Context(), true)
		if before < 0 || since < 0 {
			wrong = fmt.Errorf("missed %d and %d bytes", before, since)
		}
		return err, wrong
	}},
	{"Processes", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		list, err := c.Processes(t.Context())
		for i, p := range list {
			if p.PID <= 0 || p.PID > 1<<22 || p.PPID < 0 || p.PPID > 1<<22 || i > 0 && p.PID <= list[i-1].PID {
				wrong = fmt.Errorf("process %+v", p)
			}
		}
		return err, wrong
	}},
	{"Connect", 0, func(t *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		f, err := c.Connect(t.Context(), wire.Socket{Net: "unix"})
		return err, wrongFile(f, unix.S_IFSOCK)
	}},
	{"Open", 0, func(_ *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		f, err := c.Open("n", os.O_RDWR, 0)
		return err, wrongFile(f, unix.S_IFREG)
	}},
	{"Place", 0, func(_ *testing.T, c *agent.Client, dir *os.File) (err, wrong error) {
		f, err := c.Place(dir, fsapi.Place{Name: "n", Kind: wire.PlaceFile})
		return err, wrongFile(f, unix.S_IFREG)
	}},
	{"ReadDir", 0, func(_ *testing.T, c *agent.Client, dir *os.File) (err, wrong error) {
		list, err := c.ReadDir(dir)
		for _, e := range list {
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
				wrong = fmt.Errorf("entry %q", e.Name)
			}
		}
		return err, wrong
	}},
	{"Stat", 0, func(_ *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		_, err = c.Stat("n")
		return err, nil
	}},
	{"Readlink", 0, func(_ *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		_, err = c.Readlink("n")
		return err, nil
	}},
	{"watch Add", wire.OpWatch, func(_ *testing.T, c *agent.Client, _ *os.File) (err, wrong error) {
		w, err := c.Watch()
		if err != nil {
			return err, nil
		}
		defer w.Close()
		_, err = w.Add("n", false)
		return err, nil
	}},
}

func wrongOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func wrongProcess(p *agent.Process, err error) error {
	if (p == nil) != (err != nil) || p != nil && (p.PID <= 0 || p.PID > 1<<22) {
		return fmt.Errorf("process %+v with the error %v", p, err)
	}
	return nil
}

// wrongFile looks at a file that was taken, and closes it.
func wrongFile(f *os.File, want uint32) error {
	if f == nil {
		return nil
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != want {
		return fmt.Errorf("took a file of mode %#o", st.Mode)
	}
	return nil
}

// FuzzAnswers has an agent answer whatever it likes, with any descriptors, and then end. The client returns a result
// that can be, or an error that callers know, and keeps none of the descriptors.
func FuzzAnswers(f *testing.F) {
	file, err := os.Create(f.TempDir() + "/f")
	if err != nil {
		f.Fatal(err)
	}
	dir, err := os.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	kinds := []int{int(file.Fd()), int(null.Fd()), sockets[0], sockets[1], int(null.Fd())}
	f.Cleanup(func() { wire.CloseAll(sockets[:]); _, _, _ = file.Close(), dir.Close(), null.Close() })
	f.Fuzz(func(t *testing.T, method, op, kind, count uint8, content []byte) {
		m := answers[int(method)%len(answers)]
		if len(content) > wire.MaxMessage-100 {
			return
		}
		fds := make([]int, count%10)
		for i := range fds {
			fds[i] = kinds[(int(kind)+i)%len(kinds)]
		}
		before := openFiles(t)
		c, fd := connect(t)
		conn, err := wire.NewConn(fd)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		answered := false
		go func() {
			defer close(served)
			defer conn.Close()
			serve(conn, fd, m.first, func(_ *wire.Conn, q request) error {
				if answered { // asked for more processes, of which there are none
					return raw(q, reply(q.id).Bytes(), nil)
				}
				answered = true
				err := raw(q, append(wire.New(nil, wire.Op(op), q.id).Bytes(), content...), fds)
				if q.op == wire.OpProcesses && wire.Op(op) == wire.OpReply {
					return err
				}
				return errEnd
			}, func() {})
		}()
		err, wrong := m.call(t, c, dir)
		if err != nil && !expected(err) && err != io.EOF {
			t.Errorf("%s: %v, which no caller can tell", m.name, err)
		}
		if wrong != nil {
			t.Errorf("%s: %v", m.name, wrong)
		}
		c.Close(agent.ErrClosed)
		<-served
		checkFiles(t, before)
	})
}
