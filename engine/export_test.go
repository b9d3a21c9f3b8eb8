package engine

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
)

// SetStepHook has f called after each step of creating and removing a sandbox, in this process.
func SetStepHook(f func(step string)) { stepHook = f }

// NetlinkQueues is netlinkQueues.
var NetlinkQueues = netlinkQueues

// IDRegistry is where the ranges of user ids are kept.
var IDRegistry = ids.dir

// AgentPID gives the host's number of a sandbox's agent.
func (e *Engine) AgentPID(id string) (int, error) {
	f, err := e.state.readFacts(id)
	return f.PID, err
}

// Dir is the state directory.
func (e *Engine) Dir() string { return e.state.dir }

// Emit writes an event.
func (e *Engine) Emit(ev lease.Event) { e.emit(ev) }

// ListenerFile gives the socket of a listener of Listen.
func ListenerFile(l net.Listener) (*os.File, error) {
	return l.(*listener).Listener.(interface{ File() (*os.File, error) }).File()
}

// Listeners is how many listeners close with the handle.
func (s *Sandbox) Listeners() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.listeners)
}

// Turns is how many sandboxes are made at a time.
func Turns() int { return int(turns()) }

// TakeTurns takes all of them, until release is called.
func (e *Engine) TakeTurns(ctx context.Context) (release func()) {
	if err := e.pool.turns.Acquire(ctx, turns()); err != nil {
		panic(err)
	}
	return func() { e.pool.turns.Release(turns()) }
}

// EmptyPool discards what is ready, of pools that are full, and has no more made.
func (e *Engine) EmptyPool() {
	_ = e.pool.drain()
}

// What there is to fuzz.
var (
	ValidID       = validID
	NewID         = newID
	CheckMetadata = checkMetadata
	FindHost      = findHost
)

// Check is check, and gives the limits with those of base in the place of zero.
func (o CreateOptions) Check(maxKeepAlive time.Duration, base Limits) (Limits, error) {
	if err := o.check(maxKeepAlive); err != nil {
		return Limits{}, err
	}
	return o.Limits.or(base)
}

// Prepare makes a Cmd of no sandbox one of a sandbox, and gives what its agent would be told.
func (c *Cmd) Prepare() (wire.Command, error) {
	c.sb = &Sandbox{}
	if err := c.check(); err != nil {
		return wire.Command{}, err
	}
	return c.command()
}

// OrDefault is orDefault.
func (s WindowSize) OrDefault() WindowSize { return s.orDefault() }
