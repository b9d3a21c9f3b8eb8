package engine

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/tap"
	"github.com/nestbox/nestbox/fsapi"
	"github.com/nestbox/nestbox/lease"
)

// Sandbox is a handle on a sandbox, which lives at least as long as it is open. It is safe for concurrent
// use. Close it, unless it is to go with the process.
type Sandbox struct {
	e      *Engine
	id     string
	cgroup string
	client *agent.Client
	hold   *holding
	fs     *fsapi.FS
	dir    *os.File // with the lock
	tap    tap.Func // nil: nobody listens
	done   chan struct{}
	oom    func() (container.OOMCounter, error) // looks for it once

	mu        sync.Mutex
	closing   error // why the handle is being closed; nil: it isn't
	err       error
	listeners map[*listener]struct{}
}

// handle makes a handle of a connection that holds the sandbox. It takes dir and client.
func (e *Engine) handle(id, cgroup string, dir *os.File, client *agent.Client, hold *holding) *Sandbox {
	s := &Sandbox{
		e:      e,
		id:     id,
		cgroup: cgroup,
		client: client,
		hold:   hold,
		fs:     fsapi.New(client),
		dir:    dir,
		done:   make(chan struct{}),
		oom:    sync.OnceValues(func() (container.OOMCounter, error) { return container.CountOOM(cgroup) }),
	}
	client.OnStuck(s.unstick())
	e.mu.Lock()
	e.handles[s] = struct{}{}
	e.mu.Unlock()
	e.work.Go(s.watch)
	return s
}

// watch ends the handle when the sandbox ends by itself.
func (s *Sandbox) watch() {
	<-s.client.Gone()
	if !s.closeOnce(ErrEnded) {
		return
	}
	l, err := s.e.finishCrashed(context.Background(), s.id)
	switch {
	case err == nil:
		err = endedError(string(l.EndReason))
	case !errors.Is(err, errNoAnswer):
		s.e.log.Error("clean up", "sandbox", s.id, "error", err)
		err = endedError(string(lease.Crashed))
	}
	s.end(err)
}

// unstick gives what ends the agent's children that haven't executed a program from one call of it to the next, as a guest
// may stop them, and the agent with them.
func (s *Sandbox) unstick() func() {
	var mu sync.Mutex
	var starting []int
	return func() {
		mu.Lock()
		defer mu.Unlock()
		f, err := s.e.state.readFacts(s.id)
		if err == nil {
			starting, err = container.KillStarting(s.cgroup, f.PID, starting)
		}
		if err != nil {
			starting = nil
			if !errors.Is(err, fs.ErrNotExist) { // it may have ended
				s.e.log.Warn("end what doesn't start", "sandbox", s.id, "error", err)
			}
		}
	}
}

// closeOnce is true for the first who closes the handle, which is why it can't be used until end says more. With
// it its listeners close.
func (s *Sandbox) closeOnce(why error) bool {
	s.mu.Lock()
	first := s.closing == nil
	if first {
		s.closing = why
	}
	listeners := s.listeners
	s.listeners = nil
	s.mu.Unlock()
	for l := range listeners {
		l.drop()
	}
	return first
}

// end gives up what the handle has. err is what Err, and whatever uses the handle, gives from now on.
func (s *Sandbox) end(err error) {
	s.client.Close(err)
	_ = s.dir.Close()
	s.e.mu.Lock()
	delete(s.e.handles, s)
	s.e.mu.Unlock()
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.done)
}

// ID is the sandbox's ID, which Reconnect takes.
func (s *Sandbox) ID() string { return s.id }

// Done is closed when the sandbox has ended, and what it left is removed, or when the handle was closed. Err
// tells then.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Err is nil while the handle is open, ErrEnded with how when the sandbox has ended, ErrClosed when the
// handle was closed and the sandbox lives on.
func (s *Sandbox) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return opError("sandbox", s.id, s.err)
}

// Close gives up the handle. If it was the last, and neither a keep-alive nor a grace time keeps the sandbox,
// this ends it, with all of its processes, and removes what it leaves; trees that take long go on being
// removed in the background. Closing again is a no-op.
//
// What came of the handle by Listen is closed with it. Files and connections stay open.
func (s *Sandbox) Close() error {
	if !s.closeOnce(ErrClosed) {
		<-s.done
		return nil
	}
	how, err := s.release()
	if how == "" {
		s.end(ErrClosed)
	} else {
		s.end(endedError(string(how)))
	}
	return opError("close", s.id, err)
}

// release gives up the handle and tells how the sandbox has ended, if it has.
func (s *Sandbox) release() (how lease.EndReason, err error) {
	ctx := context.Background()
	patience, cancel := context.WithTimeoutCause(ctx, closeTimeout, errImpatient)
	defer cancel()
	ended, err := s.client.Release(patience)
	switch {
	case errors.Is(err, ErrPaused), errors.Is(err, errImpatient):
		return s.closeOutside(ctx)
	case gone(err):
		l, err := s.e.finishCrashed(ctx, s.id)
		return l.EndReason, err
	case !ended:
		return "", err
	}
	l, err := s.e.finish(ctx, s.id, lease.Closed)
	return cmp.Or(l.EndReason, lease.Closed), err
}

// closeTimeout is how long an agent may take to answer that a handle goes. When the connection is closed
// the handle is gone in any case.
const closeTimeout = 2 * time.Second

// Kill ends the sandbox now, whoever else holds it, and the handle with it.
func (s *Sandbox) Kill(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return opError("kill", s.id, err)
	}
	return s.e.Kill(ctx, s.id)
}

// usable is an error when the handle is closed or the sandbox has ended.
func (s *Sandbox) usable() error {
	select {
	case <-s.done:
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.closing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// begin counts an operation on the sandbox in, as Engine.begin does, if the handle can be used.
func (s *Sandbox) begin() (done func(), err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := s.e.begin(); err != nil {
		return nil, err
	}
	return s.e.using.Done, nil
}

// locked calls f under the lock on the sandbox's facts, which all that change them or the deadline, pause or resume
// take, in whichever process.
func (s *Sandbox) locked(ctx context.Context, f func() error) error {
	done, err := s.begin()
	if err != nil {
		return err
	}
	defer done()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	unlock, err := s.e.state.lockFacts(ctx, s.id)
	if err == nil {
		defer unlock()
		err = f()
	}
	if errors.Is(err, fs.ErrNotExist) { // the sandbox's directory is gone
		return ErrEnded
	}
	return err
}

// Lease tells what is known of the sandbox.
func (s *Sandbox) Lease(ctx context.Context) (lease.Lease, error) {
	done, err := s.begin()
	if err != nil {
		return lease.Lease{}, opError("lease", s.id, err)
	}
	defer done()
	l, err := s.e.lookup(ctx, s.id)
	return l, opError("lease", s.id, err)
}

// SetMetadata replaces the sandbox's metadata. It has the bounds of CreateOptions.Metadata.
func (s *Sandbox) SetMetadata(ctx context.Context, md map[string]string) error {
	err := checkMetadata(md)
	if err == nil {
		err = s.locked(ctx, func() error {
			err := s.e.remembered(ctx, s.id, func() error { return s.e.table.SetMetadata(ctx, s.id, md) })
			if err != nil {
				return err
			}
			return s.e.state.changeFacts(s.id, func(f *facts) { f.Metadata = md })
		})
	}
	return opError("set metadata", s.id, err)
}

// KeepAlive sets the deadline to now + d, in the place of an earlier one, also if that is sooner; 0 cancels
// it. Until the deadline the sandbox lives without a handle. d is at most Options.MaxKeepAlive, else the
// error is ErrKeepAliveTooLong.
func (s *Sandbox) KeepAlive(ctx context.Context, d time.Duration) error {
	return opError("keep alive", s.id, s.setDeadline(ctx, d, false))
}

// Extend is KeepAlive, but never shortens: an earlier deadline that is later stays.
func (s *Sandbox) Extend(ctx context.Context, d time.Duration) error {
	return opError("extend", s.id, s.setDeadline(ctx, d, true))
}

// setDeadline has the agent change the deadline, which decides, and has it remembered: before, so that who
// looks never sees one that is too soon, and after, since it may be sooner.
func (s *Sandbox) setDeadline(ctx context.Context, d time.Duration, extend bool) error {
	if err := checkDuration("keep-alive", d, s.e.maxKeepAlive); err != nil {
		return err
	}
	return s.locked(ctx, func() error {
		before, err := s.e.lease(ctx, s.id)
		if err == nil && d > 0 {
			err = s.e.table.Extend(ctx, s.id, time.Now().Add(d))
		}
		if err != nil {
			return err
		}
		remaining, err := s.tellDeadline(ctx, d, extend)
		ctx := context.WithoutCancel(ctx)
		switch {
		case err == nil:
			err = s.e.table.SetExpiry(ctx, s.id, expiry(remaining))
		case !errors.Is(err, ErrPaused): // if the agent sets it after all, who looks at deadlines asks it
			return errors.Join(err, s.e.table.SetExpiry(ctx, s.id, before.ExpiresAt))
		case extend: // the agent is told when it is resumed
			err = nil
		default:
			err = s.e.table.SetExpiry(ctx, s.id, expiry(d))
		}
		if err != nil {
			return err
		}
		l, err := s.e.lease(ctx, s.id)
		if err == nil && l.State == lease.Paused {
			err = s.e.state.changeFacts(s.id, func(f *facts) { f.ExpiresAt = l.ExpiresAt })
		}
		s.e.emit(lease.Event{Kind: lease.EventExtended, ID: s.id, ExpiresAt: l.ExpiresAt})
		return err
	})
}

// tellDeadline tells the agent. It is ErrPaused when the sandbox is paused, and not when the handle has yet to hear
// that it was resumed. The caller has the lock.
func (s *Sandbox) tellDeadline(ctx context.Context, d time.Duration, extend bool) (remaining time.Duration, err error) {
	for {
		if extend {
			remaining, err = s.client.Extend(ctx, d)
		} else {
			remaining, err = s.client.KeepAlive(ctx, d)
		}
		if !errors.Is(err, ErrPaused) {
			return remaining, err
		}
		if f, ferr := s.e.state.readFacts(s.id); f.Paused || ferr != nil {
			return 0, errors.Join(err, ferr)
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// expiry is when a deadline is that is so far away; 0 is none.
func expiry(remaining time.Duration) time.Time {
	if remaining <= 0 {
		return time.Time{}
	}
	return time.Now().Add(remaining)
}

// FS gives the sandbox's files, with the rights of its user. It is good until the handle is closed.
func (s *Sandbox) FS() *fsapi.FS { return s.fs }
