package engine_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// terminal is a PTY in a test.
type terminal struct {
	*engine.PTY
	cmd  *engine.Cmd
	seen strings.Builder
}

// startPTY starts a command on a terminal that is closed when the test ends.
func startPTY(t *testing.T, c *engine.Cmd, size engine.WindowSize) *terminal {
	t.Helper()
	p, err := c.StartPTY(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return &terminal{PTY: p, cmd: c}
}

// startShell starts a shell and waits for its prompt.
func startShell(t *testing.T, c *engine.Cmd) *terminal {
	t.Helper()
	c.Env = append(c.Environ(), "PS1=ready> ", "TERM=xterm")
	p := startPTY(t, c, engine.WindowSize{Rows: 30, Cols: 100})
	p.expect(t, "ready> ")
	return p
}

// send types a text.
func (p *terminal) send(t *testing.T, s string) {
	t.Helper()
	if _, err := p.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// expect reads until the terminal has shown a text, and forgets all before its end.
func (p *terminal) expect(t *testing.T, want string) {
	t.Helper()
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		if _, after, ok := strings.Cut(p.seen.String(), want); ok {
			p.seen.Reset()
			p.seen.WriteString(after)
			return
		}
		n, err := p.Read(b)
		p.seen.Write(b[:n])
		if err != nil {
			t.Fatalf("the terminal shows %q, not %q: %v", p.seen.String(), want, err)
		}
	}
}

// rest reads to the end.
func (p *terminal) rest(t *testing.T) string {
	t.Helper()
	if _, err := io.Copy(&p.seen, p); err != nil {
		t.Errorf("reading to the end: %v, want io.EOF", err)
	}
	return p.seen.String()
}

func TestPTY(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	for _, user := range []string{"", "nobody", "1234:4321"} {
		t.Run("user "+user, func(t *testing.T) {
			t.Parallel()
			c := sb.Command("sh", "-c", `: </dev/tty && echo controlling; test -t 0 && test -t 1 && test -t 2 && echo streams
echo hello > $(tty) && echo opened; stty size; id -u; stat -c %u $(tty); echo $TERM; ps -o tpgid=,pid= -p $$; exit 3`)
			c.User, c.Dir = user, "/"
			p := startPTY(t, c, engine.WindowSize{Rows: 33, Cols: 111})
			f := strings.Fields(p.rest(t))
			if len(f) != 11 {
				t.Fatalf("the terminal shows %q", f)
			}
			if got := strings.Join(f[:6], " "); got != "controlling streams hello opened 33 111" {
				t.Errorf("the terminal shows %q", got)
			}
			if f[6] != f[7] {
				t.Errorf("the terminal is user %s's, want %s's", f[7], f[6])
			}
			if f[8] != "xterm-256color" {
				t.Errorf("TERM is %q", f[8])
			}
			if f[9] != f[10] {
				t.Errorf("the group in the foreground, and the command's: %q, want them the same", f[9:])
			}
			var exit *engine.ExitError
			if err := c.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
				t.Errorf("wait: %v, want exit status 3", err)
			}
		})
	}
}

func TestPTYShell(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	p := startShell(t, sb.Command("bash", "--norc", "--noediting", "-i"))

	p.send(t, "sleep 1000\n")
	p.expect(t, "sleep 1000\r\n")
	awaitForeground(t, sb, "sleep")
	p.send(t, "\x1a") // Ctrl-Z
	p.expect(t, "Stopped")
	p.expect(t, "ready> ")
	awaitProcess(t, sb, "sleep", "stopped")
	p.send(t, "jobs; bg; jobs\n")
	p.expect(t, "Running")
	p.expect(t, "ready> ")
	p.send(t, "fg\n")
	p.expect(t, "fg\r\nsleep 1000\r\n")
	awaitForeground(t, sb, "sleep")
	p.send(t, "\x03") // Ctrl-C
	p.expect(t, "ready> ")
	p.send(t, "echo code $?\n")
	p.expect(t, "code 130\r\nready> ")

	p.send(t, `trap 'echo now $(stty size)' WINCH; echo trapped`+"\n")
	p.expect(t, "\r\ntrapped\r\nready> ")
	if err := p.Resize(engine.WindowSize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	p.send(t, "\n")
	p.expect(t, "now 50 132\r\n")
	p.expect(t, "ready> ")

	p.send(t, `printf '\033]0;%s\007' 'a title'`+"\n")
	p.expect(t, "\x1b]0;a title\x07")
	p.expect(t, "ready> ")
	p.send(t, "cat\n")
	awaitForeground(t, sb, "cat")
	p.send(t, "typed\n\x04") // Ctrl-D
	p.expect(t, "typed\r\ntyped\r\n")
	p.expect(t, "ready> ")
	p.send(t, "exit 5\n")
	p.rest(t)
	var exit *engine.ExitError
	if err := p.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("wait: %v, want exit status 5", err)
	}
}

// awaitProcess waits until a program is in a state.
func awaitProcess(t *testing.T, sb *engine.Sandbox, name, state string) (p engine.Process) {
	t.Helper()
	eventually(t, 10*time.Second, name+" is "+state, func() bool {
		list, err := sb.Processes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p = range list {
			if p.Name == name && p.State == state {
				return true
			}
		}
		return false
	})
	return p
}

// awaitForeground waits until a program is in its terminal's foreground.
func awaitForeground(t *testing.T, sb *engine.Sandbox, name string) {
	t.Helper()
	eventually(t, 10*time.Second, name+" is in the foreground", func() bool {
		out, _ := sb.Command("ps", "-C", name, "-o", "stat=").Output()
		return strings.HasPrefix(string(out), "S") && strings.Contains(string(out), "+")
	})
}

func TestPTYEnds(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	t.Run("deadline", func(t *testing.T) {
		p := startPTY(t, sb.Command("cat"), engine.WindowSize{})
		if err := p.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %d, %v, want ErrDeadlineExceeded", n, err)
		}
		if err := p.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		p.send(t, "still there\n")
		p.expect(t, "still there\r\nstill there\r\n")
		if err := p.cmd.Kill(); err != nil {
			t.Error(err)
		}
		if err := p.cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("wait: %v, want signal: killed", err)
		}
		if n, err := p.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read after the end: %d, %v, want io.EOF", n, err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		p := startPTY(t, sb.Command("cat"), engine.WindowSize{})
		p.send(t, "a\n")
		p.expect(t, "a\r\na\r\n")
		read := make(chan error)
		go func() {
			_, err := p.Read(make([]byte, 1))
			read <- err
		}()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; !errors.Is(err, os.ErrClosed) {
			t.Errorf("read: %v, want ErrClosed", err)
		}
		if err := p.cmd.Wait(); err == nil || err.Error() != "signal: hangup" {
			t.Errorf("wait: %v, want signal: hangup", err)
		}
		if err := p.Resize(engine.WindowSize{}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("resize: %v, want ErrClosed", err)
		}
		if err := p.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("close again: %v, want ErrClosed", err)
		}
	})
	t.Run("much", func(t *testing.T) {
		p := startPTY(t, sb.Command("seq", "100000"), engine.WindowSize{})
		if got := p.rest(t); strings.Count(got, "\r\n") != 100000 || !strings.HasSuffix(got, "\r\n100000\r\n") {
			t.Errorf("read %d lines, want 100000", strings.Count(got, "\r\n"))
		}
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestPTYRefused(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	tests := []struct {
		name string
		set  func(*engine.Cmd)
		want func(error) bool
	}{
		{"stdin", func(c *engine.Cmd) { c.Stdin = strings.NewReader("") }, nil},
		{"stdout", func(c *engine.Cmd) { c.Stdout = io.Discard }, nil},
		{"stderr", func(c *engine.Cmd) { c.Stderr = io.Discard }, nil},
		{"spool", func(c *engine.Cmd) { c.Spool = 1 }, is(fs.ErrInvalid)},
		{"program", func(c *engine.Cmd) { c.Path = "/no/such" }, is(fs.ErrNotExist)},
		{"user", func(c *engine.Cmd) { c.User = "no-such" }, is(fs.ErrInvalid)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := sb.Command("true")
			tt.set(c)
			p, err := c.StartPTY(engine.WindowSize{})
			if err == nil || p != nil || tt.want != nil && !tt.want(err) {
				t.Errorf("got %v, %v, want an error of another kind", p, err)
			}
		})
	}
	c := sb.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartPTY(engine.WindowSize{}); err == nil {
		t.Error("a command that was started can be started on a terminal")
	}
	// What a guest puts in the place of the device is an error, and never waited for.
	for _, script := range []string{"mkfifo /dev/ptmx", "ln -s /dev/null /dev/ptmx", "mkdir /dev/ptmx", "echo > /dev/ptmx", ":"} {
		if out, err := sb.Command("sh", "-c", "rm -rf /dev/ptmx && "+script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		p, err := sb.Command("true").StartPTY(engine.WindowSize{})
		var perr *fs.PathError
		if p != nil || !errors.As(err, &perr) || perr.Op != "pty" {
			t.Errorf("after %s: %v, %v, want an *fs.PathError", script, p, err)
		}
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

// BenchmarkPTY measures how long it takes until a command on a terminal has shown its first byte.
func BenchmarkPTY(b *testing.B) {
	sb := create(b, open(b, ""), engine.CreateOptions{})
	sideBySide(b, func() {
		c := sb.Command("echo", "x")
		p, err := c.StartPTY(engine.WindowSize{})
		try(b, err)
		_, err = p.Read(make([]byte, 1))
		try(b, err)
		b.StopTimer()
		try(b, p.Close())
		if err := c.Wait(); err != nil && !strings.Contains(err.Error(), syscall.SIGHUP.String()) {
			b.Fatal(fmt.Errorf("wait: %w", err))
		}
		b.StartTimer()
	}, nil)
}
