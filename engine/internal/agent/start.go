package agent

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Process is a started command.
type Process struct {
	PID  int
	Exit <-chan wire.Exit // gives one, or is closed without when the agent is gone

	c  *Client
	id uint32
}

// Start starts a command. It borrows the descriptors files, one for each bit of cmd.Stdio. If ctx is done before
// the agent has answered, a command that starts after all is killed.
func (c *Client) Start(ctx context.Context, cmd wire.Command, files ...int) (*Process, error) {
	p, fds, err := c.start(ctx, cmd, files)
	c.discard(fds)
	return p, err
}

// start is Start, and gives the descriptors that the agent sent, which are the caller's.
func (c *Client) start(ctx context.Context, cmd wire.Command, files []int) (*Process, []int, error) {
	exit := make(chan wire.Exit, 1)
	id, ch, err := c.request(ctx, wire.OpStart, exit, cmd.Put, files...)
	if err != nil {
		return nil, nil, err
	}
	answered := c.watchStart()
	select {
	case rep := <-ch:
		answered()
		return c.started(id, rep, exit)
	case <-ctx.Done():
		go func() { // ends with the connection at the latest
			rep := <-ch
			answered()
			p, fds, err := c.started(id, rep, exit)
			c.discard(fds)
			if err == nil {
				_ = p.Signal(context.Background(), syscall.SIGKILL, true)
			}
		}()
		return nil, nil, context.Cause(ctx)
	}
}

// The agent itself frees what doesn't get from fork(2) to execve(2), after 3 s. But Go's runtime doesn't let go of a
// processor meanwhile, nor can it collect garbage, and so a guest may keep the agent from it.
const (
	startTimeout  = 4 * time.Second
	startInterval = time.Second
)

// OnStuck has f called when the agent hasn't answered for startTimeout that a command is started, and each
// startInterval until it has. It is called before anything is started.
func (c *Client) OnStuck(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstick = f
}

// watchStart sees to it that what OnStuck was given is called, until a start is answered.
func (c *Client) watchStart() (answered func()) {
	c.mu.Lock()
	unstick := c.unstick
	c.mu.Unlock()
	if unstick == nil {
		return func() {}
	}
	done := make(chan struct{})
	timer := time.AfterFunc(startTimeout, func() {
		for {
			unstick()
			select {
			case <-done:
				return
			case <-time.After(startInterval):
			}
		}
	})
	return func() {
		timer.Stop()
		close(done)
	}
}

// maxPID is PID_MAX_LIMIT of proc_sys_kernel(5).
const maxPID = 1 << 22

// started is the command that the agent has started, with the descriptors that it sent.
func (c *Client) started(id uint32, rep reply, exit <-chan wire.Exit) (*Process, []int, error) {
	if rep.err != nil {
		c.forget(id)
		return nil, nil, rep.err
	}
	pid := rep.r.Uint()
	if rep.r.Done() != nil || pid == 0 || pid > maxPID {
		c.discard(rep.fds)
		c.forget(id)
		return nil, nil, errReply
	}
	return &Process{PID: int(pid), Exit: exit, c: c, id: id}, rep.fds, nil
}

// Signal signals a command, or its process group. It is os.ErrProcessDone if it has ended.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal, group bool) error {
	err := p.c.simple(ctx, wire.OpSignal, func(m *wire.Message) {
		m.Uint(uint64(p.id)).Uint(uint64(sig)).Bool(group)
	}, nil)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
