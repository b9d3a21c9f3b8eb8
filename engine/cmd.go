package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Cmd is a command of a sandbox, being prepared or run. What it shares with exec.Cmd means the same; what
// differs is said here. It can't be used again after Run, Start, StartPTY, Output or CombinedOutput.
//
// A command runs in a session and process group of its own. It goes on when the handle is closed and the
// sandbox lives on, like a child of a process that has ended: what it writes to a pipe that nobody has the other
// end of any more ends it by SIGPIPE, unless it has a Spool.
type Cmd struct {
	// Path is the program. Without a slash it is looked for in the PATH of the sandbox's environment, at Start,
	// among what the command's user may execute.
	Path string
	// Args are the arguments, with the program's name first. Empty: Path alone.
	Args []string
	// Env is the whole environment. Nil: the sandbox's, which Environ gives. Of the host's nothing is passed
	// on.
	Env []string
	// Dir is the working directory. Relative ones start at the sandbox's. Empty: that one, or with a User, in a
	// sandbox that wasn't given a Dir, the user's home.
	Dir string
	// User is "name", "uid" or "uid:gid", of the sandbox. Empty: the sandbox's user.
	User string
	// Stdin, Stdout and Stderr are the standard streams. Nil: the sandbox's null device. An *os.File is passed
	// to the command; of anything else the bytes are copied. Position and flags of the file are shared, as with
	// os/exec; but a pipe blocks for the command alone, and has its deadlines still. A file that is closed is one
	// that the command starts without; a directory is refused.
	//
	// A guest can do more with a file than it was opened for: it can open it again through /proc/self/fd, by the
	// file's permissions alone, to read or truncate what was opened to append to, and see its path. Pass a pipe,
	// or a writer, where that matters.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Cancel is called when the context of CommandContext is done. It kills the process group unless it is set
	// to something else.
	Cancel func() error
	// WaitDelay bounds how long Wait waits, after the context is done or the command has ended, for what is
	// left to happen: the command's end, and the end of its streams, which others may hold open. Zero: no
	// bound.
	WaitDelay time.Duration
	// Spool is how many bytes of its output the sandbox keeps for Attach: the last of Stdout and as many of
	// Stderr, or of both together if they are one writer. At most MaxSpool; zero: none.
	//
	// With it the sandbox reads what the command writes, whoever else does, and copies it for this Cmd and for
	// those that attached: an *os.File is not passed. None of them is waited for who takes less than 64 KiB in
	// a second while the spool is full of what it hasn't got; it misses what is oldest, which Wait tells by
	// ErrSpoolOverrun and Missed counts.
	Spool int64
	// ProcessState is set by Wait.
	ProcessState *ProcessState

	sb       *Sandbox
	ctx      context.Context // nil: none
	process  *agent.Process
	attached bool // to what another has started
	detached atomic.Bool
	started  bool
	waited   bool
	over     atomic.Bool    // the end is known
	given    []*os.File     // the command's ends of pipes, until it has started
	kept     []*os.File     // the host's ends, until Wait ends
	copies   []func() error // what copies streams, until it is started
	copied   chan error     // gets the first error of what copies, once all have ended; nil: nothing copies
	watched  chan watched   // gets what became of the context; nil: nobody watches it
	// unanswered is closed when the command was killed for its WaitDelay, and the agent doesn't tell of its end.
	unanswered chan struct{}
	missed     int64

	oomBefore oomKills // when it started, or was attached to
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

// Environ gives a copy of the environment that the command will have, but for what User changes.
func (c *Cmd) Environ() []string {
	env, _ := c.environ()
	return env
}

func (c *Cmd) environ() ([]string, error) {
	env := c.Env
	if env == nil {
		env = c.sb.info().Env
		if c.Dir != "" {
			dir := c.Dir
			if !path.IsAbs(dir) {
				dir = path.Join(c.sb.info().Dir, dir)
			}
			env = append(slices.Clip(env), "PWD="+path.Clean(dir))
		}
	}
	return dedup(env)
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
func (c *Cmd) Start() error {
	return c.begin(func() error {
		std, err := c.stdio()
		if err != nil {
			return err
		}
		defer std.close()
		if c.attached {
			return c.follow(std)
		}
		cmd, err := c.command()
		if err != nil {
			return err
		}
		cmd.Stdio, cmd.Spool = std.mask, uint64(c.Spool)
		ctx := c.context()
		c.process, err = c.sb.client.Start(ctx, cmd, std.fds...)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		return c.startError(err)
	})
}

// context is that of CommandContext, or of Attach, if there is one.
func (c *Cmd) context() context.Context {
	if c.ctx == nil {
		return context.Background()
	}
	return c.ctx
}

// begin has start start the command, and what goes on beside it.
func (c *Cmd) begin(start func() error) (err error) {
	if c.started {
		return errors.New("engine: already started")
	}
	c.started = true
	defer func() {
		c.closeGiven()
		if err != nil {
			c.closeKept()
			c.copies = nil
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	if !c.attached {
		c.oomBefore = c.sb.oomKills()
	}
	if err := start(); err != nil {
		return err
	}
	c.startCopies()
	if (c.Cancel != nil || c.WaitDelay != 0) && c.ctx != nil && c.ctx.Done() != nil {
		c.watched = make(chan watched)
		c.unanswered = make(chan struct{})
		go c.watch()
	}
	return nil
}

// check refuses what can't be started, before anything is.
func (c *Cmd) check() error {
	if c.Path == "" && !c.attached {
		return errors.New("engine: no command")
	}
	if c.Cancel != nil && c.ctx == nil {
		return errors.New("engine: command with a non-nil Cancel was not created with CommandContext")
	}
	if c.Spool < 0 || c.Spool > MaxSpool {
		return opError("start", c.sb.id, invalid("Spool", "%d bytes; at most MaxSpool, which is %d", c.Spool, MaxSpool))
	}
	if c.ctx != nil {
		return c.ctx.Err()
	}
	return nil
}

// command is what the agent is told.
func (c *Cmd) command() (wire.Command, error) {
	env, err := c.environ()
	if err != nil {
		return wire.Command{}, err
	}
	args := c.Args
	if len(args) == 0 {
		args = []string{c.Path}
	}
	cmd := wire.Command{Path: c.Path, Args: args, Inherit: c.Env == nil, Dir: c.Dir, User: c.User}
	if c.Env != nil {
		cmd.Env = env
	}
	return cmd, nil
}

// startError is what os/exec says for what the agent does.
func (c *Cmd) startError(err error) error {
	if err == nil {
		return nil
	}
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
	}
	op, name := "fork/exec", c.Path
	if aerr.Stage == wire.StagePTY || aerr.Stage == wire.StageSpool {
		op = aerr.Stage
	}
	if aerr.Path != "" {
		name = aerr.Path // where it was found
	}
	return &fs.PathError{Op: op, Path: name, Err: aerr.Errno}
}

// dedup drops all but the last value of each variable, and what can't be one, as os/exec does.
func dedup(env []string) (out []string, err error) {
	last := map[string]int{}
	for i, kv := range env {
		if name, ok := variable(kv); ok {
			last[name] = i
		}
	}
	out = make([]string, 0, len(env))
	for i, kv := range env {
		switch name, ok := variable(kv); {
		case strings.IndexByte(kv, 0) >= 0:
			err = errors.New("engine: environment variable contains NUL")
		case ok && last[name] == i, !ok && kv != "":
			out = append(out, kv)
		}
	}
	return out, err
}

// variable is the name of a variable of an environment. Its first byte may be a "=".
func variable(kv string) (name string, ok bool) {
	i := strings.IndexByte(kv, '=')
	if i == 0 {
		i = strings.IndexByte(kv[1:], '=') + 1
	}
	if i < 0 || strings.IndexByte(kv, 0) >= 0 {
		return "", false
	}
	return kv[:i], true
}

// Signal sends a signal to the command's first process; os.ErrProcessDone if it has ended, whether or not Wait
// was called.
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
	if c.over.Load() {
		return os.ErrProcessDone
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := c.process.Signal(ctx, sig, group)
	var aerr *agent.Error
	switch {
	case errors.As(err, &aerr):
		return aerr.Errno
	case errors.Is(err, os.ErrProcessDone):
		return err
	}
	return opError("signal", c.sb.id, err)
}

// Output runs the command and gives what it writes to its standard output, all of which it keeps: for a command that
// isn't trusted, run it with an Excerpt as Stdout. An *ExitError has some of its
// standard error, unless Stderr is set.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("engine: Stdout already set")
	}
	var stdout bytes.Buffer
	c.Stdout = &stdout
	var stderr *Excerpt
	if c.Stderr == nil {
		stderr = &Excerpt{}
		c.Stderr = stderr
	}
	err := c.Run()
	if eerr, ok := err.(*ExitError); ok && stderr != nil {
		eerr.Stderr = stderr.Bytes()
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
