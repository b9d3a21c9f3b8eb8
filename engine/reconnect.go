package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/lease"
)

// Reconnect opens another handle on a sandbox that lives, whichever process created it. If it has ended, the
// error is ErrExpired for a day, and ErrNotFound then.
func (e *Engine) Reconnect(ctx context.Context, id string) (_ *Sandbox, err error) {
	defer func() { err = opError("reconnect", id, err) }()
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.using.Done()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if !validID(id) {
		return nil, ErrNotFound
	}
	sb, err := e.reconnect(ctx, id)
	if !gone(err) {
		return sb, err
	}
	// It has ended, or was never there.
	l, err := e.lease(ctx, id)
	if err == nil && l.State != lease.Ended {
		l, err = e.finishGone(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s %v ago", ErrExpired, l.EndReason, time.Since(l.EndedAt).Round(time.Millisecond))
}

func (e *Engine) reconnect(ctx context.Context, id string) (_ *Sandbox, err error) {
	dir, err := os.Open(e.state.sandbox(id))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	// Who has the exclusive lock ends the sandbox, or finds in a moment that there is nothing to do.
	if err := awaitFlock(ctx, dir, false); err != nil {
		return nil, err
	}
	client, err := agent.Dial(dir) // first: the agent wakes up meanwhile
	if err != nil {
		return nil, err
	}
	f, err := e.state.readFacts(id)
	if err == nil {
		err = f.checkProtocol()
	}
	if err != nil {
		client.Close(ErrClosed)
		return nil, err
	}
	hold := beginHold(client)
	err = patiently(ctx, f.Cgroup, hold.wait)
	if errors.Is(err, ErrPaused) {
		client.SetPaused()
		err = nil
	}
	if err != nil {
		client.Close(ErrClosed)
		return nil, err
	}
	sb := e.handle(id, f.Cgroup, dir, client, hold)
	if f.Paused { // or so it was: who paused or resumed it may have died half-way
		if err := sb.settle(ctx); err != nil {
			return nil, errors.Join(err, sb.Close())
		}
	}
	e.emit(lease.Event{Kind: lease.EventReconnected, ID: id})
	return sb, nil
}
