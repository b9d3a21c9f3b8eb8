package engine

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
)

// WindowSize is a terminal's size in characters. Zero Rows are 24, zero Cols 80.
type WindowSize struct {
	Rows, Cols uint16
}

func (s WindowSize) orDefault() WindowSize {
	if s.Rows == 0 {
		s.Rows = 24
	}
	if s.Cols == 0 {
		s.Cols = 80
	}
	return s
}

// PTY is a command's terminal, as who sits in front of it has it: what is written to it is typed, what is read
// from it is shown. It is safe for concurrent use. It is not closed by Wait; close it.
type PTY struct {
	master *os.File
}

// StartPTY is Start with a terminal as the command's standard streams, none of which may be set, and as its
// session's controlling terminal. It belongs to the command's user. With a nil Env the command is given a TERM,
// xterm-256color, if the sandbox's environment has none. When this process dies the terminal is hung up, as Close
// does. A command with a terminal can't have a Spool.
func (c *Cmd) StartPTY(size WindowSize) (*PTY, error) {
	switch {
	case c.Stdin != nil:
		return nil, errors.New("engine: Stdin already set")
	case c.Stdout != nil:
		return nil, errors.New("engine: Stdout already set")
	case c.Stderr != nil:
		return nil, errors.New("engine: Stderr already set")
	case c.Spool != 0:
		return nil, opError("start", c.sb.id, invalid("Spool", "a command on a terminal can't have one"))
	case c.attached:
		return nil, opError("start", c.sb.id, errors.New("an attached command has no terminal"))
	}
	var p *PTY
	err := c.begin(func() error {
		cmd, err := c.command()
		if err != nil {
			return err
		}
		size = size.orDefault()
		cmd.PTY, cmd.Rows, cmd.Cols = true, size.Rows, size.Cols
		ctx := c.context()
		process, master, err := c.sb.client.StartPTY(ctx, cmd)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return c.startError(err)
		}
		c.process, p = process, &PTY{master}
		return nil
	})
	return p, err
}

// Read reads what the terminal shows. It is io.EOF once nothing is left and no process has the terminal open: the
// command, and those that it left behind.
func (p *PTY) Read(b []byte) (int, error) {
	n, err := p.master.Read(b)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

// Write types. "\x03" is Ctrl-C, "\x04" on an empty line the end of the input.
func (p *PTY) Write(b []byte) (int, error) { return p.master.Write(b) }

// Resize changes the terminal's size; the program in its foreground gets SIGWINCH.
func (p *PTY) Resize(size WindowSize) error {
	size = size.orDefault()
	return agent.Resize(p.master, size.Rows, size.Cols)
}

// Close hangs the terminal up: its session's leader, which the command is, and those in the foreground get SIGHUP.
// A Read or Write that waits returns os.ErrClosed.
func (p *PTY) Close() error { return p.master.Close() }

// SetDeadline sets when Read and Write give up with os.ErrDeadlineExceeded; zero: never.
func (p *PTY) SetDeadline(t time.Time) error { return p.master.SetDeadline(t) }

// SetReadDeadline is SetDeadline for Read.
func (p *PTY) SetReadDeadline(t time.Time) error { return p.master.SetReadDeadline(t) }

// SetWriteDeadline is SetDeadline for Write.
func (p *PTY) SetWriteDeadline(t time.Time) error { return p.master.SetWriteDeadline(t) }
