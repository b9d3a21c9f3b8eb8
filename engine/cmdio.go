package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"syscall"
)

// stdio makes the command's standard streams: the descriptors to send, and which of them there are.
func (c *Cmd) stdio() (fds []int, mask uint8, err error) {
	stdin, err := c.input()
	if err != nil {
		return nil, 0, err
	}
	stdout, err := c.output(c.Stdout)
	if err != nil {
		return nil, 0, err
	}
	stderr := stdout
	if c.Stderr == nil || !same(c.Stderr, c.Stdout) {
		if stderr, err = c.output(c.Stderr); err != nil {
			return nil, 0, err
		}
	}
	for n, f := range []*os.File{stdin, stdout, stderr} {
		if f == nil {
			continue
		}
		fd := f.Fd() // and the file blocks from now on, as the command expects
		if fd == ^uintptr(0) {
			return nil, 0, &fs.PathError{Op: "fork/exec", Path: c.Path, Err: os.ErrClosed}
		}
		fds = append(fds, int(fd))
		mask |= 1 << n
	}
	return fds, mask, nil
}

// same tells whether two writers are one, for which there is to be one pipe.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && a == b
}

// input is the command's end of Stdin; nil: the null device.
func (c *Cmd) input() (*os.File, error) {
	if c.Stdin == nil {
		return nil, nil
	}
	if f, ok := c.Stdin.(*os.File); ok {
		return f, nil
	}
	command, host, err := c.pipe(true)
	if err != nil {
		return nil, err
	}
	stdin := c.Stdin
	c.copies = append(c.copies, func() error {
		_, err := io.Copy(host, stdin)
		if errors.Is(err, syscall.EPIPE) { // the command doesn't read all, as is its right
			err = nil
		}
		return errors.Join(err, host.close())
	})
	return command, nil
}

// output is the command's end of a stream that goes to w; nil: the null device.
func (c *Cmd) output(w io.Writer) (*os.File, error) {
	if w == nil {
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	command, host, err := c.pipe(false)
	if err != nil {
		return nil, err
	}
	c.copies = append(c.copies, func() error {
		_, err := io.Copy(w, host)
		return errors.Join(err, host.close())
	})
	return command, nil
}

// pipe makes a pipe; the ends are closed in time.
func (c *Cmd) pipe(toCommand bool) (command *os.File, host *pipeEnd, err error) {
	command, f, err := pipe(toCommand)
	if err != nil {
		return nil, nil, err
	}
	host = &pipeEnd{File: f}
	c.given = append(c.given, command)
	c.kept = append(c.kept, host)
	return command, host, nil
}

// pipeEnd is the host's end of a pipe, which can be closed again and again.
type pipeEnd struct {
	*os.File
	once sync.Once
	err  error
}

// Close closes the pipe.
func (p *pipeEnd) Close() error {
	p.once.Do(func() { p.err = p.File.Close() })
	return p.err
}

// close is Close by who copies: what has been closed meanwhile is in order.
func (p *pipeEnd) close() error {
	if err := p.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func (c *Cmd) closeGiven() {
	for _, f := range c.given {
		_ = f.Close()
	}
	c.given = nil
}

func (c *Cmd) closeKept() {
	for _, f := range c.kept {
		_ = f.Close()
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

func (c *Cmd) userPipe(name string, toCommand bool) (*os.File, *pipeEnd, error) {
	if c.started {
		return nil, nil, errors.New("engine: " + name + " after command started")
	}
	return c.pipe(toCommand)
}

// excerpt keeps the beginning and the end of what is written to it.
type excerpt struct {
	head, tail []byte
	skipped    bool
}

// excerptSize is how much of either it keeps, in bytes.
const excerptSize = 32 << 10

func (e *excerpt) Write(b []byte) (int, error) {
	n := len(b)
	take := min(len(b), excerptSize-len(e.head))
	e.head = append(e.head, b[:take]...)
	e.tail = append(e.tail, b[take:]...)
	if over := len(e.tail) - excerptSize; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
		e.skipped = true
	}
	return n, nil
}

func (e *excerpt) bytes() []byte {
	if e.skipped {
		e.head = append(e.head, "\n... some of the output is left out ...\n"...)
	}
	return append(e.head, e.tail...)
}
