package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
	"github.com/nestbox/nestbox/store"
)

const (
	// reapInterval is how often an engine looks for sandboxes that have ended.
	reapInterval = 500 * time.Millisecond
	// enforceEvery is how many times that is between looks at deadlines.
	enforceEvery = 10
	// forgetEvery is how many times that is between looks at ended leases.
	forgetEvery = 7200
	// makerTimeout is how long Open waits for the lock on an unclaimed sandbox, which its maker has as long as it lives.
	makerTimeout = 250 * time.Millisecond
	// holderTimeout is how long who holds a sandbox that has ended may take to say how.
	holderTimeout = time.Second
	// slack is how late an agent may be before the engine ends its sandbox.
	slack = 3 * time.Second
	// memory is how long ended leases are remembered.
	memory = 24 * time.Hour
	// killTimeout is how long a killed process may take to end.
	killTimeout = 10 * time.Second
	// leftoverTimeout is the same for what another process left of a sandbox that was nobody's. The next sweep tries again.
	leftoverTimeout = time.Second
	// inline is how long removing a tree may take before it goes on in the background.
	inline = 200 * time.Millisecond
)

// clear removes what a sandbox, whose directory is dir, has on this host, in an order that leaves something for the next
// sweep to find wherever it is cut off: processes, cgroup, tree, ids. It may be called by several at once. f is what is
// known of the sandbox, patience how long its processes may take to end.
func (e *Engine) clear(dir string, f facts, patience time.Duration) error {
	name := filepath.Base(dir)
	cgroup := cmp.Or(f.Cgroup, name) // of one that isn't claimed
	if err := container.Kill(cgroup, patience); err != nil {
		return err
	}
	if f.PID > 0 {
		reapChild(f)
	}
	stepHook("clear processes")
	if err := container.RemoveCgroup(cgroup); err != nil {
		return err
	}
	stepHook("clear cgroup")
	aside := e.state.path("trash/" + name)
	err := os.Rename(dir, aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	stepHook("clear directory")
	if err == nil {
		e.removeTree(aside)
	}
	if f.UID > 0 {
		if err := ids.release(e.state.unclaimed(cgroup), f.UID); err != nil {
			return err
		}
	}
	stepHook("clear ids")
	return nil
}

// removeTree removes a tree that was put aside, or leaves it to the background if that takes long.
func (e *Engine) removeTree(aside string) {
	ctx, cancel := context.WithTimeout(context.Background(), inline)
	defer cancel()
	if err := rootfs.RemoveTree(ctx, aside); err != nil {
		e.wakeTrash()
	}
}

// wakeTrash has emptyTrash look.
func (e *Engine) wakeTrash() {
	select {
	case e.trash <- struct{}{}:
	default:
	}
}

// emptyTrash removes what was put aside, until ctx is done. What it doesn't get to the next engine does.
func (e *Engine) emptyTrash(ctx context.Context) {
	e.wakeTrash()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.trash:
		}
		entries, err := os.ReadDir(e.state.path("trash"))
		for _, entry := range entries {
			err = errors.Join(err, rootfs.RemoveTree(ctx, filepath.Join(e.state.path("trash"), entry.Name())))
		}
		if err != nil && ctx.Err() == nil {
			e.log.Error("remove trees", "error", err)
		}
	}
}

// finish removes what a sandbox that has ended, or is to end, leaves, and has remembered how it ended: for
// the reason given, or empty, what its lease suggests; in any case what was noted before.
func (e *Engine) finish(ctx context.Context, id string, reason lease.EndReason) (lease.Lease, error) {
	ctx = context.WithoutCancel(ctx)
	f, err := e.state.readFacts(id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Error("read facts", "sandbox", id, "error", err)
	}
	kills, err := container.OOMKills(cmp.Or(f.Cgroup, id))
	if err != nil {
		e.log.Warn("read OOM kills", "sandbox", id, "error", err)
	}
	if err := e.clear(e.state.sandbox(id), f, killTimeout); err != nil {
		return lease.Lease{}, err
	}
	l, err := e.table.Lease(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return f.lease(id), nil
	}
	if err != nil {
		return lease.Lease{}, err
	}
	now := time.Now()
	if reason == "" {
		reason = inferReason(l, now)
	}
	if reason == lease.Crashed && kills > 0 {
		reason = lease.OOM
	}
	return e.ended(ctx, l, now, reason)
}

// finishCrashed is finish for a sandbox whose agent has ended a handle's connection, and most likely itself.
func (e *Engine) finishCrashed(ctx context.Context, id string) (lease.Lease, error) {
	if f, err := e.state.readFacts(id); err == nil && f.aliveSoon() {
		return lease.Lease{}, errNoAnswer
	}
	return e.finish(ctx, id, lease.Crashed)
}

// ended has it remembered how the sandbox of l ended, and told once.
func (e *Engine) ended(ctx context.Context, l lease.Lease, now time.Time, reason lease.EndReason) (lease.Lease, error) {
	if reason == lease.Expired && l.Grace == 0 && l.ExpiresAt.Before(now) {
		now = l.ExpiresAt // which may be long ago, if no engine was open
	}
	id := l.ID
	l, first, err := e.table.End(ctx, id, now, reason)
	if first {
		e.emit(lease.Event{Kind: lease.EventEnded, ID: id, EndReason: l.EndReason})
	}
	return l, err
}

// finishGone is finish for a sandbox whose agent has ended without this process having a hand in it. Who holds
// it knows how it ended, and gets the time to say so. If nobody does, its lease suggests it. An agent that lives,
// and doesn't talk, is an error.
func (e *Engine) finishGone(ctx context.Context, id string) (lease.Lease, error) {
	if f, err := e.state.readFacts(id); err == nil && f.aliveSoon() {
		return lease.Lease{}, errNoAnswer
	}
	dir, err := os.Open(e.state.sandbox(id))
	if err != nil { // another has removed it, or this is the error to return
		return e.finish(ctx, id, "")
	}
	defer dir.Close()
	var said lease.Lease // by who holds it
	reason := lease.Crashed
	within(holderTimeout, func() bool {
		if free, err := e.state.unheld(dir); free || err != nil {
			reason = ""
			return true
		}
		l, err := e.table.Lease(ctx, id)
		if err == nil && l.State == lease.Ended {
			said = l
		}
		return said.State == lease.Ended
	})
	if said.State == lease.Ended {
		return said, nil
	}
	return e.finish(ctx, id, reason)
}

// within asks whether f holds until it does, or the time is over. It is for what other processes do with their
// locks and their lives, which nothing announces with a bound.
func within(d time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(d); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// inferReason tells how a sandbox ended that nobody of this process held.
func inferReason(l lease.Lease, now time.Time) lease.EndReason {
	switch {
	case !l.ExpiresAt.IsZero() && now.Before(l.ExpiresAt.Add(-time.Second)):
		return lease.Crashed
	case !l.ExpiresAt.IsZero() || l.Grace > 0:
		return lease.Expired
	default:
		return lease.Closed
	}
}

var errNoAnswer = errors.New("the sandbox lives, but its agent does not answer: Kill it if that stays so")

// aliveSoon is alive, but waits a moment for an agent that is ending.
func (f facts) aliveSoon() bool {
	return !within(holderTimeout, func() bool { return !f.alive() })
}

// checkProtocol refuses to talk to an agent of another version.
func (f facts) checkProtocol() error {
	if f.Protocol == wire.Protocol {
		return nil
	}
	return fmt.Errorf("%w: the sandbox was created by another version of this package (protocol %d, not %d): use that one, or Kill it",
		errors.ErrUnsupported, f.Protocol, wire.Protocol)
}

// alive tells whether a sandbox's agent runs.
func (f facts) alive() bool {
	start, ended, err := startTime(f.PID)
	return err == nil && !ended && start == f.Start
}

// reap looks for sandboxes that have ended, whoever made them, until ctx is done.
func (e *Engine) reap(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	running := map[string]facts{}
	overdue, unheld, due := map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.sweep(ctx, running, false); err != nil && ctx.Err() == nil {
			e.log.Error("sweep", "error", err)
		}
		e.enforce(ctx, lease.Paused, 0, unheld)
		if n%enforceEvery == 0 {
			e.enforce(ctx, lease.Running, slack, overdue)
		}
		if n%socketsEvery == 0 {
			e.enforceSockets(ctx, running, due)
		}
		if n%forgetEvery == 0 {
			if err := e.table.Forget(ctx, time.Now().Add(-memory)); err != nil && ctx.Err() == nil {
				e.log.Error("forget ended leases", "error", err)
			}
		}
	}
}

// sweep removes what ended sandboxes have left. At opening it also adopts living ones that the store doesn't
// know, and looks for what a crash has left anywhere else. running has the facts of those that lived before,
// which don't change as far as it matters here.
func (e *Engine) sweep(ctx context.Context, running map[string]facts, opening bool) error {
	found, err := e.state.list("sandboxes")
	if err != nil {
		return err
	}
	for _, id := range found {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := e.sweepOne(ctx, id, running, opening); err != nil {
			e.log.Error("sweep", "sandbox", id, "error", err)
		}
	}
	if err := e.sweepUnclaimed(ctx, opening); err != nil {
		return err
	}
	if !opening {
		maps.DeleteFunc(running, func(id string, _ facts) bool {
			_, ok := slices.BinarySearch(found, id) // os.ReadDir sorts
			return !ok
		})
		return nil
	}
	if err := e.endMissing(ctx); err != nil {
		return err
	}
	e.enforce(ctx, lease.Paused, 0, map[string]time.Time{})
	if err := e.table.Forget(ctx, time.Now().Add(-memory)); err != nil {
		return err
	}
	return ids.sweep()
}

func (e *Engine) sweepOne(ctx context.Context, id string, running map[string]facts, opening bool) error {
	f, known := running[id]
	if !known {
		var err error
		f, err = e.state.readFacts(id)
		if errors.Is(err, fs.ErrNotExist) { // it has been removed
			return nil
		}
		if err != nil {
			return err
		}
	}
	if !f.alive() {
		_, err := e.finishGone(ctx, id)
		return err
	}
	if opening {
		if err := e.settle(ctx, id); gone(err) {
			_, err := e.finishGone(ctx, id)
			return err
		}
	}
	running[id] = f
	if opening {
		return e.adopt(ctx, id, f)
	}
	return nil
}

// settle waits until the agent of a sandbox that nobody holds any more has noticed, and may have ended.
func (e *Engine) settle(ctx context.Context, id string) error {
	dir, err := os.Open(e.state.sandbox(id))
	if err != nil {
		return err
	}
	free, err := e.state.unheld(dir)
	if err := errors.Join(err, dir.Close()); !free || err != nil {
		return err
	}
	within(holderTimeout, func() bool {
		var status agent.Status
		status, err = e.status(ctx, id)
		return err != nil || status.Holders == 0
	})
	return err
}

// sweepUnclaimed removes what other processes, which are no more, have left of sandboxes that were nobody's.
func (e *Engine) sweepUnclaimed(ctx context.Context, opening bool) error {
	found, err := e.state.list("pool")
	if err != nil {
		return err
	}
	for _, name := range found {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if e.pool.owns(name) {
			continue
		}
		if err := e.sweepOneUnclaimed(e.state.unclaimed(name), opening); err != nil {
			e.log.Error("sweep", "unclaimed", name, "error", err)
		}
	}
	return nil
}

// sweepOneUnclaimed removes a sandbox if its maker is no more. Of one that was killed a moment ago a child may not have
// come to its exec, and still have the lock: that is waited for if it matters.
func (e *Engine) sweepOneUnclaimed(path string, wait bool) error {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var patience time.Duration
	if wait {
		patience = makerTimeout
	}
	var unheld bool
	within(patience, func() bool {
		unheld, err = e.state.unheld(dir)
		return unheld || err != nil
	})
	if !unheld || err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) { // it was claimed meanwhile
		return nil
	}
	f, err := readFacts(path)
	if err != nil { // it is incomplete
		f = facts{}
	}
	return e.clear(path, f, leftoverTimeout)
}

// adopt remembers a living sandbox that the store has lost.
func (e *Engine) adopt(ctx context.Context, id string, f facts) error {
	_, err := e.table.Lease(ctx, id)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return e.add(ctx, id, f)
}

func (e *Engine) add(ctx context.Context, id string, f facts) error {
	l := f.lease(id)
	status, err := e.status(ctx, id)
	switch {
	case err == nil:
		l.ExpiresAt = expiry(status.Remaining)
	case errors.Is(err, ErrPaused):
		l.State, l.ExpiresAt = lease.Paused, f.ExpiresAt
	case gone(err) && !f.aliveSoon():
		return e.clear(e.state.sandbox(id), f, killTimeout)
	default:
		return err
	}
	e.log.Info("adopted", "sandbox", id)
	err = e.table.Add(ctx, l)
	if errors.Is(err, store.ErrExists) { // by another engine, or its creator
		return nil
	}
	return err
}

// remembered calls f, which works on the record of a sandbox, and once more if the store had lost that. It is
// ErrNotFound if there is no such sandbox.
func (e *Engine) remembered(ctx context.Context, id string, f func() error) error {
	err := f()
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	known, err := e.state.readFacts(id)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	if err := e.add(ctx, id, known); err != nil {
		return err
	}
	if err = f(); errors.Is(err, store.ErrNotFound) { // it has ended meanwhile
		return ErrNotFound
	}
	return err
}

// lease gives what is remembered of a sandbox, or ErrNotFound.
func (e *Engine) lease(ctx context.Context, id string) (l lease.Lease, err error) {
	err = e.remembered(ctx, id, func() error {
		l, err = e.table.Lease(ctx, id)
		return err
	})
	return l, err
}

// endMissing ends the leases of sandboxes that have no directory any more.
func (e *Engine) endMissing(ctx context.Context) error {
	for l, err := range e.table.List(ctx, lease.Query{States: []lease.State{lease.Running, lease.Paused}}) {
		if err != nil {
			return err
		}
		if _, err := os.Lstat(e.state.sandbox(l.ID)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		now := time.Now()
		if _, err := e.ended(ctx, l, now, inferReason(l, now)); err != nil {
			return err
		}
	}
	return nil
}

// enforce ends sandboxes of a state whose time has been over for some slack and whose agents don't see to it:
// those that are paused can't. unheld has since when each was seen without a handle.
func (e *Engine) enforce(ctx context.Context, state lease.State, slack time.Duration, unheld map[string]time.Time) {
	now := time.Now()
	seen := map[string]bool{}
	for l, err := range e.table.List(ctx, lease.Query{States: []lease.State{state}}) {
		if err != nil {
			if ctx.Err() == nil {
				e.log.Error("look at deadlines", "error", err)
			}
			return
		}
		if now.Before(l.ExpiresAt.Add(slack)) {
			continue
		}
		seen[l.ID] = true
		if err := e.enforceOne(ctx, l, now, slack, unheld); err != nil {
			e.log.Error("end overdue", "sandbox", l.ID, "error", err)
		}
	}
	for id := range unheld {
		if !seen[id] {
			delete(unheld, id)
		}
	}
}

func (e *Engine) enforceOne(ctx context.Context, l lease.Lease, now time.Time, slack time.Duration, unheld map[string]time.Time) error {
	dir, err := os.Open(e.state.sandbox(l.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close() // until then nobody can reconnect
	free, err := e.state.unheld(dir)
	if err != nil {
		return err
	}
	if !free {
		delete(unheld, l.ID)
		return nil
	}
	if _, known := unheld[l.ID]; !known {
		unheld[l.ID] = now
	}
	if now.Before(unheld[l.ID].Add(l.Grace + slack)) {
		return nil
	}
	if l.State == lease.Running {
		// The agent's clock goes on by itself, while the host's may have been set.
		status, err := e.status(ctx, l.ID)
		if errors.Is(err, errors.ErrUnsupported) { // another version's, which sees to itself
			return nil
		}
		if err == nil && status.Remaining > 0 && (e.maxKeepAlive < 0 || status.Remaining <= e.maxKeepAlive) {
			return e.table.SetExpiry(ctx, l.ID, expiry(status.Remaining))
		}
		e.log.Warn("the agent does not end its sandbox", "sandbox", l.ID)
	}
	reason := lease.Expired
	if l.ExpiresAt.IsZero() && l.Grace == 0 {
		reason = lease.Closed
	}
	return e.kill(ctx, l.ID, reason)
}
