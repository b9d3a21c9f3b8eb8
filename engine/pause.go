package engine

import (
	"context"
	"errors"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
)

// While a sandbox is paused its agent is frozen too. Handles then hold it by their locks alone, and its end is up
// to the engines: to the one that closes the last handle, to any that reaps, or to the next Open.

// holdPatience is how long an agent may take to answer before it is worth a look whether it is frozen.
const holdPatience = 50 * time.Millisecond

// answerTimeout is how long an agent may take to answer in any case.
const answerTimeout = 10 * time.Second

// Pause stops all processes of the sandbox until Resume, or Kill. Meanwhile commands and files, of any handle, are
// ErrPaused at once, and so is what was under way; a RemoveAll that has begun, or another call that frees much, goes
// on after Resume. The deadline goes on, and can be changed. A handle closes as ever, and Reconnect opens one that waits
// for Resume. Pausing a paused sandbox is a no-op. A process in a system call that lasts can't be stopped before its end: when
// that is more than some seconds away, Pause is an error, and the sandbox goes on.
func (s *Sandbox) Pause(ctx context.Context) error {
	return opError("pause", s.id, s.locked(ctx, func() error { return s.pause(ctx) }))
}

// Resume lets the processes of a paused sandbox go on. Resuming one that runs is a no-op.
func (s *Sandbox) Resume(ctx context.Context) error {
	return opError("resume", s.id, s.locked(ctx, func() error { return s.resume(ctx) }))
}

func (s *Sandbox) pause(ctx context.Context) (err error) {
	frozen, err := container.Frozen(s.cgroup)
	if frozen || err != nil {
		return err
	}
	defer func() {
		if err != nil { // as it was, whatever that takes
			ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTimeout, errNoAnswer)
			defer cancel()
			_, rerr := s.thaw(ctx)
			err = errors.Join(err, rerr)
		}
	}()
	if err := s.setPaused(ctx, true); err != nil {
		return err
	}
	if err := s.client.Pause(ctx); err != nil {
		return err
	}
	if err := container.Freeze(s.cgroup); err != nil {
		return err
	}
	s.e.emit(lease.Event{Kind: lease.EventPaused, ID: s.id})
	return nil
}

// setPaused has it remembered that the sandbox is, or may be, paused.
func (s *Sandbox) setPaused(ctx context.Context, paused bool) error {
	state := lease.Running
	if paused {
		state = lease.Paused
	}
	l, err := s.e.lease(ctx, s.id)
	if err != nil {
		return err
	}
	if err := s.e.state.changeFacts(s.id, func(f *facts) { f.Paused, f.ExpiresAt = paused, l.ExpiresAt }); err != nil {
		return err
	}
	return s.e.remembered(ctx, s.id, func() error { return s.e.table.SetState(ctx, s.id, state) })
}

func (s *Sandbox) resume(ctx context.Context) error {
	f, err := s.e.state.readFacts(s.id)
	if err != nil || !f.Paused {
		return err
	}
	l, err := s.thaw(ctx)
	if err != nil {
		return err
	}
	s.e.emit(lease.Event{Kind: lease.EventResumed, ID: s.id, ExpiresAt: l.ExpiresAt})
	return nil
}

// thaw has the sandbox go on, whether it was frozen or was to be.
func (s *Sandbox) thaw(ctx context.Context) (lease.Lease, error) {
	if err := container.Thaw(s.cgroup); err != nil {
		return lease.Lease{}, err
	}
	if err := s.hold.wait(ctx); err != nil {
		return lease.Lease{}, err
	}
	l, err := s.e.lease(ctx, s.id)
	if err != nil {
		return lease.Lease{}, err
	}
	if err := s.client.Resume(ctx, max(0, time.Until(l.ExpiresAt))); err != nil {
		return lease.Lease{}, err
	}
	return l, s.setPaused(ctx, false)
}

// settle ends a pause that was cut off when it began or ended.
func (s *Sandbox) settle(ctx context.Context) error {
	return s.locked(ctx, func() error {
		frozen, err := container.Frozen(s.cgroup)
		if frozen || err != nil {
			return err
		}
		return s.resume(ctx)
	})
}

// holding is a request to hold a sandbox, which a frozen agent answers when it is thawed.
type holding struct {
	done chan struct{}
	info wire.Info // once done is closed, and err is nil
	err  error
}

// beginHold asks the agent to make a connection a handle.
func beginHold(client *agent.Client) *holding {
	h := &holding{done: make(chan struct{})}
	go func() { // ends with the connection at the latest
		defer close(h.done)
		h.info, h.err = client.Hold(context.Background(), nil)
	}()
	return h
}

// held is a holding that is done.
func held(info wire.Info) *holding {
	h := &holding{done: make(chan struct{}), info: info}
	close(h.done)
	return h
}

// info is what the agent told the handle, and nothing before a pause that it was opened in has ended.
func (s *Sandbox) info() wire.Info {
	select {
	case <-s.hold.done:
		return s.hold.info
	default:
		return wire.Info{}
	}
}

func (h *holding) wait(ctx context.Context) error {
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patiently calls f, which waits for the agent of a sandbox, again and again until it has an answer. It is ErrPaused
// when the sandbox turns out to be frozen, and an error when the agent does not answer for long.
func patiently(ctx context.Context, cgroup string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	for {
		patience, cancel := context.WithTimeoutCause(ctx, holdPatience, errImpatient)
		err := f(patience)
		cancel()
		if !errors.Is(err, errImpatient) {
			return err
		}
		if frozen, ferr := container.Frozen(cgroup); frozen || ferr != nil {
			return errors.Join(ErrPaused, ferr)
		}
	}
}

var errImpatient = errors.New("the agent does not answer")

// closeOutside gives up a handle whose agent is frozen, or does not answer. If it was the last, and no time is left,
// that ends the sandbox; how is returned. Else the engines that reap do so in time.
func (s *Sandbox) closeOutside(ctx context.Context) (how lease.EndReason, err error) {
	s.client.Close(ErrClosed)
	free, err := s.e.state.unheld(s.dir)
	if !free || err != nil {
		return "", err
	}
	l, err := s.e.lease(ctx, s.id)
	if err != nil || l.Grace > 0 || time.Now().Before(l.ExpiresAt) {
		return "", err
	}
	l, err = s.e.finish(ctx, s.id, lease.Closed)
	return l.EndReason, err
}
