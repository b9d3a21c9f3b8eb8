package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// stdio is what is sent for a command's standard streams.
type stdio struct {
	fds  []int
	mask uint8 // wire.Command's Stdio
}

func (s stdio) close() {
	for _, fd := range s.fds {
		closeFD(fd)
	}
}

// stdio makes the command's standard streams.
func (c *Cmd) stdio() (std stdio, err error) {
	defer func() {
		if err != nil {
			std.close()
		}
	}()
	if err := c.lendInput(&std); err != nil {
		return std, err
	}
	stdout, err := c.output(c.Stdout)
	if err != nil {
		return std, err
	}
	stderr := stdout
	if merged := c.Stderr != nil && same(c.Stderr, c.Stdout); !merged {
		if stderr, err = c.output(c.Stderr); err != nil {
			return std, err
		}
	} else if c.Spool > 0 {
		std.mask |= wire.StdioMerged
	}
	if c.Stdout != nil {
		if err := std.lend(1, stdout); err != nil {
			return std, err
		}
	}
	if c.Stderr != nil && std.mask&wire.StdioMerged == 0 {
		return std, std.lend(2, stderr)
	}
	return std, nil
}

// lend adds a file as descriptor n.
func (s *stdio) lend(n int, f *os.File) error {
	fd, err := lend(f)
	if errors.Is(err, os.ErrClosed) {
		s.mask |= wire.StdioClosed << n
		return nil
	}
	if err == nil {
		s.fds = append(s.fds, fd)
		s.mask |= 1 << n
	}
	return err
}

// tapped is w, and tells who listens what is written.
func (c *Cmd) tapped(w io.Writer) io.Writer {
	if c.sb.tap == nil {
		return w
	}
	command := c.String()
	return writerFunc(func(b []byte) (int, error) {
		c.sb.tap(command, b)
		return w.Write(b)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// same tells whether two writers are one, for which there is to be one pipe.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// lendInput adds the command's end of Stdin.
func (c *Cmd) lendInput(std *stdio) error {
	if c.Stdin == nil {
		return nil
	}
	if c.attached {
		return opError("attach", c.sb.id, invalid("Stdin", "a command that runs can't be given one"))
	}
	if f, ok := c.Stdin.(*os.File); ok {
		return std.lend(0, f)
	}
	command, host, err := c.pipe(true)
	if err != nil {
		return err
	}
	stdin := c.Stdin
	c.copies = append(c.copies, func() error {
		_, err := io.Copy(host, stdin)
		var perr *fs.PathError
		if errors.As(err, &perr) && perr.Op == "write" && perr.Path == host.Name() && errors.Is(err, syscall.EPIPE) {
			err = nil // the command doesn't read all, as is its right
		}
		if cerr := host.Close(); err == nil {
			err = cerr
		}
		return err
	})
	return std.lend(0, command)
}

// output is the command's end of a stream that goes to w; nil: the null device.
func (c *Cmd) output(w io.Writer) (*os.File, error) {
	if w == nil {
		return nil, nil
	}
	if f, ok := w.(*os.File); ok && (!c.attached && c.Spool == 0 || slices.Contains(c.given, f)) {
		return f, nil
	}
	command, host, err := c.pipe(false)
	if err != nil {
		return nil, err
	}
	c.copies = append(c.copies, func() error {
		_, err := io.Copy(c.tapped(w), host)
		_ = host.Close() // if w has had enough
		return err
	})
	return command, nil
}

// pipe makes a pipe; the ends are closed in time.
func (c *Cmd) pipe(toCommand bool) (command, host *os.File, err error) {
	command, host, err = pipe(toCommand)
	if err != nil {
		return nil, nil, err
	}
	c.given = append(c.given, command)
	c.kept = append(c.kept, host)
	return command, host, nil
}

func (c *Cmd) closeGiven() {
	for _, f := range c.given {
		_ = f.Close()
	}
	c.given = nil
}

func (c *Cmd) closeKept() {
	for _, f := range c.kept {
		_ = f.Close() // which who copies, or the caller, may have done
	}
	c.kept = nil
}

// StdinPipe gives a pipe to the command's standard input. Wait closes it; close it yourself for the command
// to see the end before.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil {
		return nil, errors.New("engine: Stdin already set")
	}
	command, host, err := c.userPipe("StdinPipe", true)
	if err != nil {
		return nil, err
	}
	c.Stdin = command
	return host, nil
}

// StdoutPipe gives a pipe from the command's standard output. Wait closes it: read to the end before.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil {
		return nil, errors.New("engine: Stdout already set")
	}
	command, host, err := c.userPipe("StdoutPipe", false)
	if err != nil {
		return nil, err
	}
	c.Stdout = command
	return host, nil
}

// StderrPipe gives a pipe from the command's standard error. Wait closes it: read to the end before.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil {
		return nil, errors.New("engine: Stderr already set")
	}
	command, host, err := c.userPipe("StderrPipe", false)
	if err != nil {
		return nil, err
	}
	c.Stderr = command
	return host, nil
}

func (c *Cmd) userPipe(name string, toCommand bool) (command, host *os.File, err error) {
	if c.started {
		return nil, nil, errors.New("engine: " + name + " after process started")
	}
	return c.pipe(toCommand)
}
