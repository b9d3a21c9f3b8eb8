package engine

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// MaxSpool is the most that Cmd.Spool may be, in bytes. For all commands of a sandbox together 64 MiB are set aside:
// what those that have ended keep goes, oldest first, when another needs it, and if that is not enough Start's
// error is an *fs.PathError with ENOBUFS. What is kept counts as memory of the sandbox.
const MaxSpool = 16 << 20

// ErrSpoolOverrun is what Wait gives of a command that ended well if some of its output was missed, since the Cmd's
// writers, or who reads its pipes, took it too slowly; see Cmd.Spool.
var ErrSpoolOverrun = errors.New("output was missed: it was taken too slowly for the spool")

// Attach gives a command that was started with a Spool, by this process or another, whether it runs or has ended.
// The error is os.ErrProcessDone if there is no such process and none is remembered, and fs.ErrInvalid if it has
// no spool.
//
// Set Stdout and Stderr, or take StdoutPipe and StderrPipe, and use the Cmd as one that is yet to be started: Start,
// Run, Output and CombinedOutput replay what the spool holds and then follow; Wait gives the end. Wait without
// Start does both. If the command was started with one writer for both outputs all of it comes on Stdout.
// Signal and Kill can be used at once. Several may attach to a command at a time; each gets all.
//
// When ctx is done the Cmd lets go of the command, which goes on, and Wait gives ctx's error: that is what Cancel is
// set to. Let it go in this way, or wait for it: until then, or the handle's end, what it keeps stays.
//
// An ended command is remembered until a Wait has returned with its end, of the Cmd that started it or of one that
// attached; of those that nobody waits for the last 64.
func (s *Sandbox) Attach(ctx context.Context, pid int) (*Cmd, error) {
	c, err := s.attach(ctx, pid)
	return c, opError("attach", s.id, err)
}

func (s *Sandbox) attach(ctx context.Context, pid int) (*Cmd, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if pid <= 0 {
		return nil, invalid("pid", "%d", pid)
	}
	process, path, args, err := s.client.Attach(ctx, pid)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return nil, os.ErrProcessDone
	case errors.Is(err, syscall.EINVAL):
		return nil, invalid("pid", "command %d was started without a Spool", pid)
	case err != nil:
		return nil, err
	}
	c := &Cmd{Path: path, Args: args, sb: s, ctx: ctx, process: process, attached: true, oomBefore: s.oomKills()}
	c.Cancel = c.detach
	return c, nil
}

// follow has the streams get the output of a command that was attached to.
func (c *Cmd) follow(std stdio) error {
	return opError("attach", c.sb.id, c.process.Follow(c.context(), std.mask, std.fds...))
}

// detach lets go of a command that goes on.
func (c *Cmd) detach() error {
	if c.over.Load() {
		return os.ErrProcessDone
	}
	c.detached.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_, _, err := c.process.Detach(ctx, false)
	return err
}

// letGo has the sandbox forget a command with a spool that was waited for.
func (c *Cmd) letGo() error {
	if c.Spool == 0 && !c.attached || c.detached.Load() || c.ProcessState == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	before, since, err := c.process.Detach(ctx, true)
	if err != nil {
		return nil // the handle is closed, the sandbox has ended, or it doesn't answer; the command's end is known
	}
	c.missed = before + since
	if since > 0 {
		return ErrSpoolOverrun
	}
	return nil
}

// Missed tells how much of the output of a command with a spool, in bytes, the Cmd did not get: what was no longer
// kept when it attached, and what it took too slowly. It is known when Wait has returned.
func (c *Cmd) Missed() int64 { return c.missed }
