package agent

import "github.com/nestbox/nestbox/engine/internal/wire"

// maxDiscards is how many descriptors may wait to be closed when another message comes.
const maxDiscards = 512

// discard closes descriptors that the agent sent and nobody wants. To close one may take as long as a hostile agent likes, see
// SO_LINGER in socket(7): nobody waits for it but one goroutine.
func (c *Client) discard(fds []int) {
	if len(fds) == 0 {
		return
	}
	c.discardMu.Lock()
	defer c.discardMu.Unlock()
	if c.discards == nil {
		go c.closeDiscards()
	}
	c.discards = append(c.discards, fds...)
}

// closeDiscards closes what discard was given until there is none left.
func (c *Client) closeDiscards() {
	for {
		c.discardMu.Lock()
		fds := c.discards
		if len(fds) == 0 {
			c.discards = nil
			c.discardMu.Unlock()
			return
		}
		c.discards = fds[1:]
		c.discardMu.Unlock()
		wire.CloseAll(fds[:1])
	}
}

func (c *Client) tooManyDiscards() bool {
	c.discardMu.Lock()
	defer c.discardMu.Unlock()
	return len(c.discards) > maxDiscards
}
