package agent

import (
	"context"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// StartPTY is Start for a command that has PTY set, and gives its terminal's master, which is the caller's.
func (c *Client) StartPTY(ctx context.Context, cmd wire.Command) (*Process, *os.File, error) {
	p, fds, err := c.start(ctx, cmd, nil)
	if err != nil {
		return nil, nil, err
	}
	if len(fds) != 1 {
		c.discard(fds)
		c.forget(p.id)
		return nil, nil, errReply
	}
	f, err := master(fds[0])
	if err != nil {
		c.discard(fds)
		c.forget(p.id)
		return nil, nil, err
	}
	return p, f, nil
}
