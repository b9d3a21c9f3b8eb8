package agent

import (
	"context"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Hold makes the connection a handle. cfg is for a fresh sandbox, else nil. ErrGone means that the
// sandbox has ended.
func (c *Client) Hold(ctx context.Context, cfg *wire.Config) (info wire.Info, err error) {
	if cfg != nil {
		c.rest.Store(1) // the agent has only started
	}
	err = c.simple(ctx, wire.OpHold, func(m *wire.Message) {
		if cfg != nil {
			cfg.Put(m)
		}
	}, func(r *wire.Reader) { info = wire.ReadInfo(r) })
	return info, err
}

// Configure configures a sandbox that was held before, in the place of what the first Hold said; its seccomp program
// stays.
func (c *Client) Configure(ctx context.Context, cfg wire.Config) (info wire.Info, err error) {
	err = c.simple(ctx, wire.OpConfigure, cfg.Put, func(r *wire.Reader) { info = wire.ReadInfo(r) })
	return info, err
}

// Status is the state of a lease.
type Status struct {
	Holders   int
	Remaining time.Duration // until the deadline; 0: none, or passed
}

// Status asks for the state of the lease. It needs no Hold.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.simple(ctx, wire.OpStatus, nil, func(r *wire.Reader) {
		s = Status{Holders: int(r.Uint()), Remaining: time.Duration(r.Uint())}
	})
	return s, err
}

// Release gives up the handle and tells whether that ended the sandbox.
func (c *Client) Release(ctx context.Context) (ended bool, err error) {
	err = c.simple(ctx, wire.OpRelease, nil, func(r *wire.Reader) { ended = r.Bool() })
	return ended, err
}

// Pause has the agent take no more requests, and tell every handle. Then the sandbox may be frozen.
func (c *Client) Pause(ctx context.Context) error { return c.simple(ctx, wire.OpPause, nil, nil) }

// Resume has the agent of a sandbox that was thawed go on, with a deadline that far away; 0: none.
func (c *Client) Resume(ctx context.Context, remaining time.Duration) error {
	return c.simple(ctx, wire.OpResume, func(m *wire.Message) { m.Int(int64(remaining)) }, nil)
}

// KeepAlive sets the deadline to now + d and tells how far away it is.
func (c *Client) KeepAlive(ctx context.Context, d time.Duration) (time.Duration, error) {
	return c.deadline(ctx, wire.OpKeepAlive, d)
}

// Extend is KeepAlive, but only if that is later.
func (c *Client) Extend(ctx context.Context, d time.Duration) (time.Duration, error) {
	return c.deadline(ctx, wire.OpExtend, d)
}

func (c *Client) deadline(ctx context.Context, op wire.Op, d time.Duration) (remaining time.Duration, err error) {
	err = c.simple(ctx, op, func(m *wire.Message) { m.Int(int64(d)) },
		func(r *wire.Reader) { remaining = time.Duration(r.Uint()) })
	return remaining, err
}

// LimitOpenFiles limits the open files of processes that start from now on. To raise the limit is EPERM.
func (c *Client) LimitOpenFiles(ctx context.Context, most uint64) error {
	return c.simple(ctx, wire.OpOpenFiles, func(m *wire.Message) { m.Uint(most) }, nil)
}
