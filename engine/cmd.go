package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Cmd is a command of a sandbox, being prepared or run. What it shares with exec.Cmd means the same; what
// differs is said here. It can't be used again after Run, Start, Output or CombinedOutput.
//
// A command runs in a session and process group of its own. It goes on when the handle is closed and the
// sandbox lives on, like a child of a process that has ended.
type Cmd struct {
	// Path is the program. Without a slash it is looked for in the PATH of the sandbox's environment.
	Path string
	// Args are the arguments, with the program's name first. Empty: Path alone.
	Args []string
	// Env is the whole environment. Nil: the sandbox's, which Environ gives. Of the host's nothing is passed
	// on.
	Env []string
	// Dir is the working directory. Relative ones start at the sandbox's; empty: that one.
	Dir string
	// User is "name", "uid" or "uid:gid", of the sandbox. Empty: the sandbox's user.
	User string
	// Stdin, Stdout and Stderr are the standard streams. Nil: the sandbox's null device. An *os.File is passed
	// to the command, which can do with it what its mode allows; of anything else the bytes are copied.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Cancel is called when the context of CommandContext is done. It kills the process group unless it is set
	// to something else.
	Cancel func() error
	// WaitDelay bounds how long Wait waits, after the context is done or the command has ended, for what is
	// left to happen: the command's end, and the end of its streams, which others may hold open. Zero: no
	// bound.
	WaitDelay time.Duration
	// ProcessState is set by Wait.
	ProcessState *ProcessState

	sb      *Sandbox
	ctx     context.Context // nil: none
	process *agent.Process
	started bool
	waited  bool
	given   []*os.File     // the command's ends of pipes, until it has started
	kept    []io.Closer    // the host's ends, until Wait ends
	copies  []func() error // what copies streams, until it is started
	copied  chan error     // gets the error of each that copies
	exited  chan struct{}  // closed when the command has ended
	watched chan watched   // gets what became of the context
}

// Command prepares to run a program in the sandbox.
func (s *Sandbox) Command(name string, arg ...string) *Cmd {
	return &Cmd{Path: name, Args: append([]string{name}, arg...), sb: s}
}

// CommandContext is Command, but Cancel is called when ctx is done before the command has ended.
func (s *Sandbox) CommandContext(ctx context.Context, name string, arg ...string) *Cmd {
	if ctx == nil {
		panic("nil Context")
	}
	c := s.Command(name, arg...)
	c.ctx = ctx
	c.Cancel = c.Kill
	return c
}

// String gives the command for people to read.
func (c *Cmd) String() string {
	return strings.Join(append([]string{c.Path}, c.Args[min(1, len(c.Args)):]...), " ")
}

// Environ gives a copy of the environment that the command will have.
func (c *Cmd) Environ() []string {
	env := c.Env
	if env == nil {
		env = c.sb.info().Env
	}
	return append([]string{}, env...)
}

// Pid is the command's process number in the sandbox; 0 before it has started.
func (c *Cmd) Pid() int {
	if c.process == nil {
		return 0
	}
	return c.process.PID
}

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Start starts the command. If the program isn't there the error is exec.ErrNotFound; if it, or Dir, can't be
// used, an *fs.PathError. After Start without an error Wait must be called.
func (c *Cmd) Start() (err error) {
	if c.started {
		return errors.New("engine: command already started")
	}
	c.started = true
	defer func() {
		c.closeGiven()
		if err != nil {
			c.closeKept()
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	files, mask, err := c.stdio()
	if err != nil {
		return err
	}
	args := c.Args
	if len(args) == 0 {
		args = []string{c.Path}
	}
	c.process, err = c.sb.client.Start(wire.Command{
		Path:    c.Path,
		Args:    args,
		Env:     dedup(c.Env),
		Inherit: c.Env == nil,
		Dir:     c.Dir,
		User:    c.User,
		Stdio:   mask,
	}, files...)
	if err != nil {
		return c.startError(err)
	}
	c.copied = make(chan error, len(c.copies))
	for _, f := range c.copies {
		go func() { c.copied <- f() }()
	}
	if c.ctx != nil && c.ctx.Done() != nil {
		c.exited = make(chan struct{})
		c.watched = make(chan watched)
		go c.watch()
	}
	return nil
}

// check refuses what can't be started, before anything is.
func (c *Cmd) check() error {
	if c.Path == "" && len(c.Args) == 0 {
		return errors.New("engine: no command")
	}
	if (c.Cancel != nil) && c.ctx == nil {
		return errors.New("engine: command with a non-nil Cancel was not created with CommandContext")
	}
	for _, s := range append(append([]string{c.Path, c.Dir, c.User}, c.Args...), c.Env...) {
		if strings.IndexByte(s, 0) >= 0 {
			return &fs.PathError{Op: "fork/exec", Path: c.Path, Err: syscall.EINVAL}
		}
	}
	if c.ctx != nil {
		return c.ctx.Err()
	}
	return nil
}

// startError is what os/exec says for what the agent does.
func (c *Cmd) startError(err error) error {
	var aerr *agent.Error
	if !errors.As(err, &aerr) {
		return opError("start", c.sb.id, err)
	}
	switch aerr.Stage {
	case wire.StageLookup:
		return &exec.Error{Name: c.Path, Err: exec.ErrNotFound}
	case wire.StageDot:
		return &exec.Error{Name: c.Path, Err: exec.ErrDot}
	case wire.StageChdir:
		return &fs.PathError{Op: "chdir", Path: cmp.Or(c.Dir, c.sb.info().Dir), Err: aerr.Errno}
	case wire.StageUser:
		return opError("start", c.sb.id, invalid("User", "%.64q is not in the sandbox's /etc/passwd or /etc/group", c.User))
	default:
		return &fs.PathError{Op: "fork/exec", Path: c.Path, Err: aerr.Errno}
	}
}

// dedup drops all but the last value of each variable, as os/exec does.
func dedup(env []string) []string {
	last := map[string]int{}
	for i, kv := range env {
		key, _, ok := strings.Cut(kv, "=")
		if ok {
			last[key] = i
		}
	}
	var out []string
	for i, kv := range env {
		if key, _, ok := strings.Cut(kv, "="); !ok || last[key] == i {
			out = append(out, kv)
		}
	}
	return out
}

// watched is what became of a command's context.
type watched struct {
	err   error
	delay <-chan time.Time // when WaitDelay is over; nil: it has not begun
}

// watch calls Cancel when the context is done before the command has ended, and kills the command when
// WaitDelay has passed after that.
func (c *Cmd) watch() {
	select {
	case <-c.exited:
		c.watched <- watched{}
		return
	case <-c.ctx.Done():
	}
	w := watched{err: c.ctx.Err()}
	if c.Cancel != nil {
		switch err := c.Cancel(); {
		case errors.Is(err, os.ErrProcessDone):
			w.err = nil
		case err != nil:
			w.err = fmt.Errorf("engine: canceling command: %w", err)
		}
	}
	if c.WaitDelay == 0 {
		c.watched <- w
		return
	}
	timer := time.NewTimer(c.WaitDelay)
	w.delay = timer.C
	select {
	case c.watched <- w:
		return
	case <-timer.C:
	}
	over := make(chan time.Time)
	close(over)
	w.delay = over
	switch err := c.Kill(); {
	case err == nil:
		// The command's status tells.
	case !errors.Is(err, os.ErrProcessDone):
		w.err = fmt.Errorf("engine: killing command: %w", err)
	}
	c.watched <- w
}

// Wait waits until the command has ended and its streams are copied. If the command's exit code is not 0, or a
// signal ended it, the error is an *ExitError; if the sandbox ended first, ErrEnded.
func (c *Cmd) Wait() error {
	if c.process == nil {
		return errors.New("engine: not started")
	}
	if c.waited {
		return errors.New("engine: Wait was already called")
	}
	c.waited = true
	exit, ok := <-c.process.Exit
	var err error
	if ok {
		c.ProcessState = &ProcessState{pid: c.process.PID, exit: exit}
		if !c.ProcessState.Success() {
			err = &ExitError{ProcessState: c.ProcessState}
		}
	} else {
		err = opError("wait", c.sb.id, c.lost())
	}
	var delay <-chan time.Time
	if c.watched != nil {
		close(c.exited)
		w := <-c.watched
		delay = w.delay
		if err == nil {
			err = w.err
		}
	}
	if cerr := c.awaitCopies(delay); err == nil {
		err = cerr
	}
	c.closeKept()
	return err
}

// lost is why the end of a command can't be known.
func (c *Cmd) lost() error {
	if err := c.sb.client.Err(); err != nil {
		return err
	}
	return ErrEnded
}

// awaitCopies waits for what copies streams, at most until delay, or for WaitDelay.
func (c *Cmd) awaitCopies(delay <-chan time.Time) error {
	if c.WaitDelay > 0 && delay == nil && len(c.copies) > 0 {
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		delay = timer.C
	}
	var first error
	for left := len(c.copies); left > 0; left-- {
		select {
		case err := <-c.copied:
			if first == nil {
				first = err
			}
		case <-delay:
			delay = nil
			c.closeKept() // which ends the copying
			if first == nil {
				first = exec.ErrWaitDelay
			}
			left++
		}
	}
	return first
}

// Signal sends a signal to the command's first process; os.ErrProcessDone if it has ended.
func (c *Cmd) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return errors.New("engine: unsupported signal type")
	}
	return c.signal(s, false)
}

// Kill ends the command with its whole process group; os.ErrProcessDone if it has ended.
func (c *Cmd) Kill() error { return c.signal(syscall.SIGKILL, true) }

func (c *Cmd) signal(sig syscall.Signal, group bool) error {
	if c.process == nil {
		return errors.New("engine: not started")
	}
	return c.process.Signal(sig, group)
}

// Output runs the command and gives what it writes to its standard output. An *ExitError has some of its
// standard error, unless Stderr is set.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("engine: Stdout already set")
	}
	var stdout bytes.Buffer
	c.Stdout = &stdout
	var stderr *excerpt
	if c.Stderr == nil {
		stderr = &excerpt{}
		c.Stderr = stderr
	}
	err := c.Run()
	if eerr, ok := err.(*ExitError); ok && stderr != nil {
		eerr.Stderr = stderr.bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the command and gives what it writes to its standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("engine: Stdout already set")
	}
	if c.Stderr != nil {
		return nil, errors.New("engine: Stderr already set")
	}
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return b.Bytes(), err
}
