package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// watched is what became of a command's context.
type watched struct {
	err   error
	timer *time.Timer // until WaitDelay is over; nil: it has not begun, or is over
}

// startCopies starts what copies streams.
func (c *Cmd) startCopies() {
	if len(c.copies) == 0 {
		return
	}
	var (
		copied = make(chan error, 1)
		mu     sync.Mutex
		first  error
		left   = len(c.copies)
	)
	c.copied = copied
	for _, f := range c.copies {
		go func() {
			err := f()
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
			if left--; left == 0 {
				copied <- first
			}
		}()
	}
	c.copies = nil
}

// watch calls Cancel when the context is done before Wait has seen the command's end, and when WaitDelay has
// passed after that kills the command and ends the copying.
func (c *Cmd) watch() {
	select {
	case c.watched <- watched{}:
		return
	case <-c.ctx.Done():
	}
	var err error
	if c.Cancel != nil {
		switch cerr := c.Cancel(); {
		case cerr == nil:
			err = c.ctx.Err()
		case !errors.Is(cerr, os.ErrProcessDone):
			err = fmt.Errorf("engine: canceling Cmd: %w", cerr)
		}
	}
	if c.WaitDelay == 0 {
		c.watched <- watched{err: err}
		return
	}
	timer := time.NewTimer(c.WaitDelay)
	select {
	case c.watched <- watched{err, timer}:
		return
	case <-timer.C:
	}
	killed := false
	switch kerr := c.Kill(); {
	case kerr == nil:
		killed = true // which the command's status tells
	case !errors.Is(kerr, os.ErrProcessDone):
		err = fmt.Errorf("engine: killing Cmd: %w", kerr)
	}
	if cerr := c.endCopies(); err == nil && (!killed || errors.Is(cerr, exec.ErrWaitDelay)) {
		err = cerr
	}
	select {
	case c.watched <- watched{err: err}:
	case <-time.After(closeTimeout): // the agent does not tell of an end
		close(c.unanswered)
		c.watched <- watched{err: err}
	}
}

// Wait waits until the command has ended and its streams are copied. If the command's exit code is not 0, or a
// signal ended it, the error is an *ExitError; if the sandbox ended first, ErrEnded. ErrSpoolOverrun is the least: it
// tells of a command with a Spool that all else went well.
func (c *Cmd) Wait() error {
	if c.attached && !c.started {
		if err := c.Start(); err != nil {
			return err
		}
	}
	if c.process == nil {
		return errors.New("engine: not started")
	}
	if c.waited {
		return errors.New("engine: Wait was already called")
	}
	c.waited = true
	err := c.waitExit()
	var timer *time.Timer
	if c.watched != nil {
		w := <-c.watched
		timer = w.timer
		if err == nil {
			err = w.err
		}
	}
	if cerr := c.awaitCopies(timer); err == nil {
		err = cerr
	}
	c.closeKept()
	if lerr := c.letGo(); err == nil {
		err = lerr
	}
	return err
}

// waitExit waits until the command has ended.
func (c *Cmd) waitExit() error {
	var exit wire.Exit
	var ok bool
	select {
	case exit, ok = <-c.process.Exit:
	case <-c.unanswered:
		select {
		case exit, ok = <-c.process.Exit:
		default:
			return opError("wait", c.sb.id, errNoAnswer)
		}
	}
	c.over.Store(true)
	switch {
	case ok:
		c.ProcessState = &ProcessState{pid: c.process.PID, exit: exit}
		if !c.ProcessState.Success() {
			return &ExitError{ProcessState: c.ProcessState, OOM: c.outOfMemory(c.ProcessState)}
		}
		return nil
	case c.detached.Load():
		return nil
	}
	return opError("wait", c.sb.id, c.lost())
}

// lost is why the end of a command can't be known.
func (c *Cmd) lost() error {
	if err := c.sb.client.Err(); err != nil {
		return err
	}
	return ErrEnded
}

// awaitCopies waits for what copies streams, at most until the timer says so, which has run since the context was
// done, or for WaitDelay.
func (c *Cmd) awaitCopies(timer *time.Timer) error {
	if timer != nil {
		defer timer.Stop()
	}
	if c.copied == nil {
		return nil
	}
	if timer == nil {
		if c.WaitDelay == 0 {
			return <-c.copied
		}
		timer = time.NewTimer(c.WaitDelay)
		defer timer.Stop()
	}
	select {
	case err := <-c.copied:
		return err
	case <-timer.C:
		return c.endCopies()
	}
}

// endCopies ends what copies streams, which is exec.ErrWaitDelay if it hadn't ended.
func (c *Cmd) endCopies() error {
	if c.copied == nil {
		return nil
	}
	defer func() { c.copied = nil }()
	select {
	case err := <-c.copied:
		return err
	default:
	}
	c.closeKept()
	<-c.copied
	return exec.ErrWaitDelay
}
