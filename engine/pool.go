package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sync/semaphore"
)

// PoolSpec says which sandboxes an engine keeps ready. Create claims one that was made with the same Template, Network,
// Mounts, Seccomp, AppArmor, SELinux and Limits.Disk, and with no less Limits.OpenFiles; all else, from Metadata to
// Limits.Memory, is set when it is claimed, as Create's options say. So a PoolSpec can have the options that are given
// to Create, whose Metadata, KeepAlive and Grace mean nothing here.
//
// Mounts are what they were when the sandbox was made, as for any sandbox that lives: a file that is replaced by another
// is not followed. One whose template's directory was replaced isn't claimed any more.
//
// A sandbox is claimed once: a used one is never put back. What is in the pool belongs to its engine alone, is in no
// list, and ends with the engine or its process.
type PoolSpec struct {
	Create CreateOptions
	Size   int // how many to keep ready, 1 to 4096
	// Warmup is the name and arguments of a command that is run in each fresh sandbox, with Create's Env, Dir and User,
	// before it is ready, such as the start of an interpreter. What it leaves, files and processes, is in what is
	// claimed, and what it took in its Stats; processes keep their limit on open files. Its output goes to the null
	// device. It has a minute, and must exit with 0. Nil: none.
	Warmup []string
}

const (
	maxPool       = 4096
	warmupTimeout = time.Minute
	// settleTime is how long a full pool waits after a claim before it makes another.
	settleTime = 20 * time.Millisecond
	// refillDelay is how long refilling a stock pauses after an error, twice as long after each that follows.
	refillDelay, maxRefillDelay = 250 * time.Millisecond, 30 * time.Second
)

// PoolStats tells how a PoolSpec's pool does.
type PoolStats struct {
	Size   int    // as the PoolSpec says
	Ready  int    // sandboxes that can be claimed
	Hits   uint64 // Creates that claimed one
	Misses uint64 // Creates that would have, had one been ready, and made theirs
	// Err is why the last try to make a sandbox for the pool failed; nil: it didn't. It is tried again.
	Err error
}

// PoolStats tells how the pools of Options.Pool do, in their order.
func (e *Engine) PoolStats() []PoolStats {
	e.pool.mu.Lock()
	defer e.pool.mu.Unlock()
	list := make([]PoolStats, len(e.pool.stocks))
	for i, s := range e.pool.stocks {
		list[i] = PoolStats{Size: s.spec.Size, Ready: len(s.ready), Hits: s.hits, Misses: s.misses, Err: s.err}
	}
	return list
}

// pool makes sandboxes, for those who ask and to have some ready. Who comes first is served first: the turns to make
// one, of which there are few at a time, are given in that order, and who waits for a turn claims what becomes ready
// before those who come later.
type pool struct {
	e       *Engine
	turns   *semaphore.Weighted
	wake    chan struct{} // there may be something to fill
	filling sync.WaitGroup

	mu     sync.Mutex
	stocks []*stock
	closed bool            // nothing is to be made ready any more
	own    map[string]bool // the names of unclaimed sandboxes that this engine makes or keeps
}

// stock is what there is for a PoolSpec.
type stock struct {
	spec    PoolSpec
	order   order
	ready   []*unclaimed // the oldest first
	warming bool         // one more is there, and its warm-up runs
	waiting int          // Creates that wait for their turn
	hits    uint64
	misses  uint64
	err     error         // of the last try to make one
	delay   time.Duration // of the next try, after an error
	again   time.Time     // when that is
}

// turns is how many sandboxes are made at a time. Making one is mostly work of a processor; some is waiting for the
// kernel. More at a time would only take longer each.
func turns() int64 { return int64(2 * runtime.GOMAXPROCS(0)) }

func newPool(e *Engine, specs []PoolSpec) (*pool, error) {
	p := &pool{e: e, turns: semaphore.NewWeighted(turns()), wake: make(chan struct{}, 1), own: map[string]bool{}}
	for i, spec := range specs {
		spec.Warmup, spec.Create.Env = slices.Clone(spec.Warmup), slices.Clone(spec.Create.Env)
		spec.Create.Mounts, spec.Create.Metadata = slices.Clone(spec.Create.Mounts), maps.Clone(spec.Create.Metadata)
		o, err := e.plan(spec.Create)
		if err == nil {
			_, err = e.catalog.Lookup(o.opts.Template)
		}
		if err == nil {
			err = spec.check()
		}
		if err != nil {
			return nil, fmt.Errorf("Options.Pool[%d]: %w", i, err)
		}
		p.stocks = append(p.stocks, &stock{spec: spec, order: o})
	}
	return p, nil
}

func (s PoolSpec) check() error {
	if s.Size < 1 || s.Size > maxPool {
		return invalid("PoolSpec.Size", "%d; 1 to %d", s.Size, maxPool)
	}
	if s.Warmup != nil && (len(s.Warmup) == 0 || s.Warmup[0] == "") {
		return invalid("PoolSpec.Warmup", "a command without a name; nil for none")
	}
	if slices.ContainsFunc(s.Warmup, func(arg string) bool { return strings.ContainsRune(arg, 0) }) {
		return invalid("PoolSpec.Warmup", "%.64q holds a NUL byte", s.Warmup)
	}
	return nil
}

// take gives a sandbox that fits o, ready or newly made; a fresh one is made in any case.
func (p *pool) take(ctx context.Context, o order, fresh bool) (u *unclaimed, err error) {
	var s *stock
	if !fresh {
		if s, u = p.arrive(o); u != nil {
			return u, nil
		}
	}
	err = p.turns.Acquire(ctx, 1)
	if u = p.served(s, o, err == nil); err != nil {
		return nil, context.Cause(ctx)
	}
	defer p.turns.Release(1)
	if u != nil {
		return u, nil
	}
	return p.e.make(ctx, o)
}

// arrive gives a sandbox that is ready, unless others wait for one. Else the stock where the caller waits now, if there
// is one.
func (p *pool) arrive(o order) (waits *stock, u *unclaimed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stocks {
		if !s.order.fits(o) {
			continue
		}
		if s.waiting == 0 && len(s.ready) > 0 {
			return nil, p.popLocked(s)
		}
		if waits == nil {
			waits = s
		}
	}
	if waits != nil {
		waits.waiting++
	}
	return waits, nil
}

// served ends the wait of arrive. When it is the caller's turn, what has become ready is the caller's.
func (p *pool) served(waited *stock, o order, turn bool) *unclaimed {
	if waited == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	waited.waiting--
	if !turn {
		return nil
	}
	for _, s := range p.stocks {
		if len(s.ready) > 0 && s.order.fits(o) {
			return p.popLocked(s)
		}
	}
	waited.misses++
	return nil
}

// popLocked takes the oldest of what is ready.
func (p *pool) popLocked(s *stock) *unclaimed {
	u := s.ready[0]
	s.ready = slices.Delete(s.ready, 0, 1)
	close(u.claimed)
	p.wakeUp()
	return u
}

// hit counts a claim that went well, if it was of the pool.
func (p *pool) hit(u *unclaimed) {
	if u.stock == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	u.stock.hits++
}

func (p *pool) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// fill keeps the stocks full until ctx is done. It makes one sandbox at a time, and rests for a part of the time that it
// took, the longer the fuller the stock is: the host has other things to do.
func (p *pool) fill(ctx context.Context) {
	for {
		s, again := p.emptiest()
		rest := settleTime // what was claimed is about to be used
		if s == nil {
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			case <-again:
			}
		} else {
			start := time.Now()
			rest = time.Duration(p.refill(ctx, s) * float64(time.Since(start)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

// emptiest is the stock that lacks most for its size, of those that needn't wait after an error or for a warm-up; nil:
// there is none, and again tells of the end of the first wait after an error, if there is one.
func (p *pool) emptiest() (emptiest *stock, again <-chan time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	now, least, wait := time.Now(), 1.0, time.Duration(0)
	for _, s := range p.stocks {
		full, left := s.full(), s.again.Sub(now)
		switch {
		case full >= 1, s.warming:
		case left > 0:
			if wait == 0 || left < wait {
				wait = left
			}
		case full < least:
			least, emptiest = full, s
		}
	}
	if emptiest == nil && wait > 0 {
		again = time.After(wait)
	}
	return emptiest, again
}

// refill makes a sandbox for a stock when it is its turn, and tells how full that is then. Who has the next turn finds it
// there, unless it is to be warmed up first, which keeps nobody else.
func (p *pool) refill(ctx context.Context, s *stock) (full float64) {
	if p.turns.Acquire(ctx, 1) != nil { // the pool closes
		return 0
	}
	defer p.turns.Release(1)
	u, err := p.e.make(ctx, s.order)
	if err != nil || s.spec.Warmup == nil {
		return p.add(ctx, s, u, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.warming = true
	p.filling.Go(func() {
		err := u.warmUp(ctx, s.spec.Warmup)
		if err != nil {
			err = errors.Join(err, u.discard())
		}
		p.add(ctx, s, u, err)
		p.wakeUp()
	})
	return s.full()
}

// warmUp runs a command in the sandbox.
func (u *unclaimed) warmUp(ctx context.Context, argv []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, warmupTimeout, errWarmup)
	defer cancel()
	p, err := u.client.Start(ctx, wire.Command{Path: argv[0], Args: argv, Inherit: true})
	if err != nil {
		return fmt.Errorf("PoolSpec.Warmup: start %q: %w", argv, err)
	}
	select {
	case exit, ok := <-p.Exit:
		if state := (&ProcessState{p.PID, exit}); !ok || !state.Success() {
			return fmt.Errorf("PoolSpec.Warmup: %q: %v", argv, state)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errWarmup = fmt.Errorf("PoolSpec.Warmup: not done after %v", warmupTimeout)

// add adds a sandbox to a stock, unless making it was an error, and tells how full the stock is now.
func (p *pool) add(ctx context.Context, s *stock, u *unclaimed, err error) (full float64) {
	if err != nil && ctx.Err() == nil { // else the pool closes
		p.e.log.Error("fill the pool", "template", s.order.opts.Template, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.warming = false
	if s.err = err; err != nil {
		s.delay = min(max(2*s.delay, refillDelay), maxRefillDelay)
		s.again = time.Now().Add(s.delay)
		return s.full()
	}
	s.delay = 0
	u.stock = s
	s.ready = append(s.ready, u)
	p.e.work.Go(func() { // until it is claimed, or ends by itself
		select {
		case <-u.claimed:
		case <-u.client.Gone():
			if p.remove(s, u) {
				p.e.log.Error("a sandbox of the pool has ended", "error", errors.Join(u.client.Err(), u.discard()))
			}
		}
	})
	return s.full()
}

// full is how full the stock is, 1 if it is. The caller has the pool's mutex.
func (s *stock) full() float64 { return float64(len(s.ready)) / float64(s.spec.Size) }

// remove takes a sandbox out of a stock. It is false if it isn't there.
func (p *pool) remove(s *stock, u *unclaimed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(s.ready, u)
	if i < 0 {
		return false
	}
	s.ready = slices.Delete(s.ready, i, i+1)
	p.wakeUp()
	return true
}

// open begins to fill the stocks, until ctx is done.
func (p *pool) open(ctx context.Context) { p.filling.Go(func() { p.fill(ctx) }) }

// close discards what is ready. It is called when nothing is taken any more, and the context of open is done.
func (p *pool) close() error {
	p.filling.Wait()
	return p.drain()
}

// drain discards what is ready, and has no more made.
func (p *pool) drain() error {
	p.mu.Lock()
	p.closed = true
	var list []*unclaimed
	for _, s := range p.stocks {
		list = append(list, s.ready...)
		s.ready = nil // so that remove doesn't find what is discarded here
	}
	p.mu.Unlock()
	for _, u := range list {
		close(u.claimed)
	}
	errs := make([]error, len(list))
	var closing sync.WaitGroup
	for i, u := range list {
		closing.Go(func() { errs[i] = u.discard() })
	}
	closing.Wait()
	return errors.Join(errs...)
}

// keep notes whether the unclaimed sandbox of a name is this engine's.
func (p *pool) keep(name string, own bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if own {
		p.own[name] = true
	} else {
		delete(p.own, name)
	}
}

// owns tells whether the unclaimed sandbox of a name is this engine's.
func (p *pool) owns(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own[name]
}
