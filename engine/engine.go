// Package engine runs sandboxes from within your own process: no daemon, no VM, no other program.
//
// Open gives an Engine on a state directory, Create a Sandbox, which runs commands (Command, as os/exec has
// them) and gives its files (FS, as os has them). A sandbox lives while any handle on it is open. When the
// last one goes, it ends at once, unless its keep-alive deadline or its grace time has not run out: then it
// ends when both have. Until then Reconnect opens another handle, from any process of the host.
//
// Options.Pool has sandboxes kept ready, which Create claims.
//
// A sandbox is a set of namespaces and a cgroup, with a user namespace of its own, in which the package's
// agent is the first process. The package is for Linux and root, and needs cgo; elsewhere it compiles, and
// Open is errors.ErrUnsupported.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/agent/agentbin"
	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/rootfs"
	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/sqlite"
)

// Engine creates sandboxes and finds them again. It is safe for concurrent use.
//
// Locks are taken in the order Engine.mu, Sandbox.mu; neither is held during a system call that waits.
type Engine struct {
	state        stateDir
	catalog      *rootfs.Catalog
	table        *lease.Table
	ownStore     store.Store // nil: the caller's
	maxKeepAlive time.Duration
	limits       Limits
	log          *slog.Logger
	program      *os.File // the agent's, sealed

	events eventLog
	pool   *pool

	background context.Context // done when the engine closes
	stop       context.CancelFunc
	work       sync.WaitGroup // what runs in the background
	trash      chan struct{}  // there is a tree to remove

	mu      sync.Mutex
	closed  bool
	handles map[*Sandbox]struct{}
	using   sync.WaitGroup // operations under way
}

// Open opens an engine on a state directory. It removes what ended sandboxes have left there, and finds
// those that live. ctx is for the opening alone.
func Open(ctx context.Context, opts Options) (_ *Engine, err error) {
	defer func() { err = opError("open", "", err) }()
	if err := Probe(ctx).Err(); err != nil {
		return nil, err
	}
	limits, err := opts.Limits.or(defaultLimits)
	if err != nil {
		return nil, err
	}
	if opts.MaxKeepAlive == 0 {
		opts.MaxKeepAlive = time.Hour
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	state, err := openStateDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	if opts.Templates == "" {
		opts.Templates = state.path("templates")
	}
	e := &Engine{
		state:        state,
		catalog:      rootfs.NewCatalog(opts.Templates, state.path("base")),
		maxKeepAlive: opts.MaxKeepAlive,
		limits:       limits,
		log:          opts.Logger,
		trash:        make(chan struct{}, 1),
		handles:      map[*Sandbox]struct{}{},
	}
	e.background, e.stop = context.WithCancel(context.Background())
	if e.program, err = memfd("agent", agentbin.Binary); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.release())
		}
	}()
	s := opts.Store
	if s == nil {
		if s, err = e.openStore(); err != nil {
			return nil, err
		}
		e.ownStore = s
	}
	e.table = lease.NewTable(s)
	if e.pool, err = newPool(e, opts.Pool); err != nil {
		return nil, err
	}
	if err := e.sweep(ctx, map[string]facts{}, true); err != nil {
		return nil, err
	}
	e.work.Go(func() { e.reap(e.background) })
	e.work.Go(func() { e.emptyTrash(e.background) })
	e.pool.open(e.background)
	return e, nil
}

// openStore opens the store in the state directory. One that is damaged is put aside: what lives is found
// without it.
func (e *Engine) openStore() (store.Store, error) {
	unlock, err := e.state.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := e.state.path("store.db")
	s, err := openSQLite(path)
	if !errors.Is(err, store.ErrCorrupt) {
		return s, err
	}
	aside := fmt.Sprintf("%s.corrupt-%d", path, time.Now().UnixNano())
	e.log.Error("the store is damaged; a new one begins", "kept as", aside, "error", err)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return openSQLite(path)
}

// openSQLite opens a store and reads what Open needs of it, so that damage shows.
func openSQLite(path string) (store.Store, error) {
	s, err := sqlite.Open(path)
	if err != nil {
		return nil, err
	}
	if _, err := s.List(context.Background(), store.Filter{States: []string{string(lease.Running), string(lease.Paused)}}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// begin counts an operation in, unless the engine is closed.
func (e *Engine) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.using.Add(1)
	return nil
}

// Close closes the engine's handles and waits for what is under way. Sandboxes live on where the lifetime
// rule says so. Closing again is a no-op.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()

	e.using.Wait() // what is being created adds its handle
	e.mu.Lock()
	open := slices.Collect(maps.Keys(e.handles))
	e.mu.Unlock()
	errs := make([]error, len(open))
	var closing sync.WaitGroup
	for i, sb := range open {
		closing.Go(func() { errs[i] = sb.Close() })
	}
	closing.Wait()
	e.stop()
	errs = append(errs, e.pool.close())
	e.work.Wait()
	return opError("close", "", errors.Join(append(errs, e.release())...))
}

// release gives back what the engine itself holds.
func (e *Engine) release() error {
	e.stop()
	e.events.close()
	err := e.program.Close()
	if e.ownStore != nil {
		err = errors.Join(err, e.ownStore.Close())
	}
	return err
}

// Templates is the engine's catalog.
func (e *Engine) Templates() *rootfs.Catalog { return e.catalog }

// Lease tells what is known of a sandbox: of one that lives by asking it, of one that has ended in the last
// day by what is remembered.
func (e *Engine) Lease(ctx context.Context, id string) (_ lease.Lease, err error) {
	defer func() { err = opError("lease", id, err) }()
	if err := e.begin(); err != nil {
		return lease.Lease{}, err
	}
	defer e.using.Done()
	if !validID(id) {
		return lease.Lease{}, ErrNotFound
	}
	return e.lookup(ctx, id)
}

// lookup is Lease for a valid ID.
func (e *Engine) lookup(ctx context.Context, id string) (lease.Lease, error) {
	l, err := e.lease(ctx, id)
	if err != nil || l.State == lease.Ended {
		return l, err
	}
	if l.State == lease.Paused {
		return l, nil
	}
	status, err := e.status(ctx, id)
	if gone(err) {
		return e.finishGone(ctx, id)
	}
	if errors.Is(err, ErrPaused) { // since
		return e.lease(ctx, id)
	}
	if err != nil {
		return lease.Lease{}, err
	}
	l.Holders, l.ExpiresAt = status.Holders, expiry(status.Remaining)
	return l, nil
}

// status asks a sandbox's agent for the state of its lease.
func (e *Engine) status(ctx context.Context, id string) (agent.Status, error) {
	f, err := e.state.readFacts(id)
	if err == nil {
		err = f.checkProtocol()
	}
	if err != nil {
		return agent.Status{}, err
	}
	dir, err := os.Open(e.state.sandbox(id))
	if err != nil {
		return agent.Status{}, err
	}
	defer dir.Close()
	c, err := agent.Dial(dir)
	if err != nil {
		return agent.Status{}, err
	}
	defer c.Close(ErrClosed)
	var status agent.Status
	err = patiently(ctx, f.Cgroup, func(ctx context.Context) error {
		status, err = c.Status(ctx)
		return err
	})
	return status, err
}

// List gives the leases that q selects, newest first, as they are remembered: a sandbox that has ended
// without a trace may still be Running there for about a second, and Holders is not known. After an error
// it ends.
func (e *Engine) List(ctx context.Context, q lease.Query) iter.Seq2[lease.Lease, error] {
	return func(yield func(lease.Lease, error) bool) {
		if err := e.begin(); err != nil {
			yield(lease.Lease{}, opError("list", "", err))
			return
		}
		defer e.using.Done()
		for l, err := range e.table.List(ctx, q) {
			if !yield(l, opError("list", "", err)) {
				return
			}
		}
	}
}

// Kill ends a sandbox now, whoever holds it, and removes what it leaves. It is no error if it has ended
// already, in the last day.
func (e *Engine) Kill(ctx context.Context, id string) (err error) {
	defer func() { err = opError("kill", id, err) }()
	if err := e.begin(); err != nil {
		return err
	}
	defer e.using.Done()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !validID(id) {
		return ErrNotFound
	}
	return e.kill(context.WithoutCancel(ctx), id, lease.Killed)
}

func (e *Engine) kill(ctx context.Context, id string, reason lease.EndReason) error {
	err := e.remembered(ctx, id, func() error { return e.table.SetReason(ctx, id, reason) })
	if err != nil {
		return err
	}
	if _, err := e.finish(ctx, id, reason); err != nil {
		return err
	}
	for _, sb := range e.handlesOn(id) {
		<-sb.done
	}
	return nil
}

// handlesOn gives the open handles on a sandbox.
func (e *Engine) handlesOn(id string) (list []*Sandbox) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for sb := range e.handles {
		if sb.id == id {
			list = append(list, sb)
		}
	}
	return list
}

// validID tells whether id is in the form that Create gives.
func validID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id && u.Version() == 7 && u.Variant() == uuid.RFC4122
}

// gone tells whether err means that there is no agent any more.
func gone(err error) bool {
	return errors.Is(err, agent.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRefused)
}

// createdAt is when the sandbox of an ID was created, or zero if the ID is none.
func createdAt(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(u.Time().UnixTime())
}

// newID gives an ID that sorts after those before it.
func newID() (string, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return u.String(), nil
}
