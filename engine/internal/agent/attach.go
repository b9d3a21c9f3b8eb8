package agent

import (
	"context"
	"math"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

const (
	// maxProcesses is how many processes an agent may tell of.
	maxProcesses = 1 << 16
	// maxProcessBytes is how much memory all may take: one that tells the truth about so many takes far less.
	maxProcessBytes = 128 << 20
)

// Attach follows the command pid, which has a spool: syscall.EINVAL if it has none, syscall.ESRCH if there is no
// such process. It gives what the command was started with.
func (c *Client) Attach(ctx context.Context, pid int) (_ *Process, path string, args []string, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, "", nil, err
	}
	exit := make(chan wire.Exit, 1)
	id, rep, err := c.call(ctx, wire.OpAttach, exit, func(m *wire.Message) { m.Uint(uint64(pid)) })
	if err != nil {
		if ctx.Err() != nil && id != 0 { // the agent may follow the command, or does in a moment
			_ = c.post(wire.OpDetach, func(m *wire.Message) { m.Uint(uint64(id)).Bool(false) })
		}
		return nil, "", nil, err
	}
	c.discard(rep.fds)
	path, args = rep.r.Text(), rep.r.Texts()
	if rep.r.Done() != nil {
		c.forget(id)
		return nil, "", nil, errReply
	}
	return &Process{PID: pid, Exit: exit, c: c, id: id}, path, args, nil
}

// Follow has the descriptors files, which it borrows, one for each of bits 1 and 2 of stdio, get the output of a
// command that was attached to.
func (p *Process) Follow(ctx context.Context, stdio uint8, files ...int) error {
	return p.c.simple(ctx, wire.OpFollow, func(m *wire.Message) {
		m.Uint(uint64(p.id)).Uint(uint64(stdio))
	}, nil, files...)
}

// Detach follows a command that has a spool no more. If it has ended, and waited says that its end was taken note
// of, the sandbox forgets it. Detach tells how many bytes of the output there were before the oldest that was
// kept at the time of Follow, and how many were missed since. If Exit hasn't given the end it is closed.
func (p *Process) Detach(ctx context.Context, waited bool) (before, since int64, err error) {
	err = p.c.simple(ctx, wire.OpDetach, func(m *wire.Message) {
		m.Uint(uint64(p.id)).Bool(waited)
	}, func(r *wire.Reader) {
		before, since = int64(r.Uint()&math.MaxInt64), int64(r.Uint()&math.MaxInt64)
	})
	p.c.mu.Lock()
	exit := p.c.exits[p.id]
	delete(p.c.exits, p.id)
	p.c.mu.Unlock()
	if exit != nil {
		close(exit)
	}
	return before, since, err
}

// Processes tells what runs in the sandbox, in the order of the numbers.
func (c *Client) Processes(ctx context.Context) ([]wire.Process, error) {
	var list []wire.Process
	size := 0
	for after := 0; ; {
		n := len(list)
		_, rep, err := c.call(ctx, wire.OpProcesses, nil, func(m *wire.Message) { m.Uint(uint64(after)) })
		if err != nil {
			return nil, err
		}
		c.discard(rep.fds)
		for rep.r.More() {
			p := wire.ReadProcess(rep.r)
			if rep.r.Err() != nil || p.PID <= after || p.PID > maxPID || p.PPID < 0 || p.PPID > maxPID || len(list) == maxProcesses {
				return nil, errReply
			}
			if size += sizeOf(p); size > maxProcessBytes {
				return nil, errReply
			}
			list, after = append(list, p), p.PID
		}
		if rep.r.Err() != nil {
			return nil, errReply
		}
		if len(list) == n {
			return list, nil
		}
	}
}

// sizeOf is about how much memory a process takes in a list.
func sizeOf(p wire.Process) int {
	n := 128 + len(p.Name) + len(p.User)
	for _, arg := range p.Args {
		n += 16 + len(arg)
	}
	return n
}
