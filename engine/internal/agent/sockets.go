package agent

import (
	"context"
	"errors"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Connect connects a socket in the sandbox and waits until it is. Errors of system calls are
// *os.SyscallError.
//
// What the agent sends is looked at before it is used: it is a socket of the kind that was asked for. The
// agent could keep it as well, so that one that was taken over could make reading and writing wait.
func (c *Client) Connect(ctx context.Context, so wire.Socket) (*os.File, error) {
	f, err := c.socket(ctx, wire.OpConnect, so)
	if err != nil {
		return nil, err
	}
	if err := awaitConnect(ctx, f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Listen makes a socket that listens in the sandbox. What is said of Connect holds.
func (c *Client) Listen(ctx context.Context, so wire.Socket) (*os.File, error) {
	return c.socket(ctx, wire.OpListen, so)
}

func (c *Client) socket(ctx context.Context, op wire.Op, so wire.Socket) (*os.File, error) {
	_, rep, err := c.call(ctx, op, nil, so.Put)
	if err != nil {
		return nil, socketError(err)
	}
	if rep.r.Done() != nil || len(rep.fds) != 1 {
		c.discard(rep.fds)
		return nil, errReply
	}
	f, err := takeSocket(rep.fds[0], so, op == wire.OpListen)
	if err != nil {
		c.discard(rep.fds)
	}
	return f, err
}

// socketError names the system call that failed in the agent.
func socketError(err error) error {
	var aerr *Error
	if !errors.As(err, &aerr) {
		return err
	}
	switch aerr.Stage {
	case wire.StageSocket, wire.StageSetsockopt, wire.StageConnect, wire.StageBind, wire.StageListen:
		return os.NewSyscallError(aerr.Stage, aerr.Errno)
	}
	return aerr.Errno
}

// Unlink removes the file of a socket.
func (c *Client) Unlink(ctx context.Context, name string) error {
	return fileError(c.simple(ctx, wire.OpRemove, func(m *wire.Message) { m.Text(name) }, nil))
}

// PostUnlink is Unlink, but doesn't wait for the answer, of which nothing is learned. What is asked later on
// this connection is answered later.
func (c *Client) PostUnlink(name string) {
	_ = c.post(wire.OpRemove, func(m *wire.Message) { m.Text(name) })
}
