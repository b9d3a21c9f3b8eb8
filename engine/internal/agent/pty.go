package agent

import (
	"context"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// StartPTY starts a command, which has PTY set, and gives its terminal's master, which is the caller's.
func (c *Client) StartPTY(cmd wire.Command) (*Process, *os.File, error) {
	exit := make(chan wire.Exit, 1)
	id, rep, err := c.call(context.Background(), wire.OpStart, exit, cmd.Put)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.started(id, rep, exit)
	if err != nil || len(rep.fds) != 1 {
		wire.CloseAll(rep.fds)
		c.forget(id)
		return nil, nil, errReply
	}
	f, err := master(rep.fds[0])
	if err != nil {
		c.forget(id)
		return nil, nil, err
	}
	return p, f, nil
}
