// Package lease says how long sandboxes live. Lifetime is the rule for one sandbox, which its agent
// applies; Table is what is remembered of all, in a store.
//
// A sandbox lives while any handle on it is open. When the last one goes, it ends at once, unless its
// keep-alive deadline or its grace time has not run out: then it ends when both have.
package lease

import (
	"context"
	"iter"
	"time"

	"github.com/nestbox/nestbox/store"
)

// State says where a sandbox is in its life.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"
	Ended   State = "ended"
)

// EndReason says how a sandbox ended.
type EndReason string

// The end reasons.
const (
	Closed  EndReason = "closed"  // its last handle went
	Expired EndReason = "expired" // its deadline or grace time ran out
	Killed  EndReason = "killed"
	Crashed EndReason = "crashed" // its agent ended before its time, or the host went down
	OOM     EndReason = "oom"     // its agent ended because memory was used up, or an engine ended it for that
)

// Lease is what is known of a sandbox.
type Lease struct {
	ID        string
	Template  string
	Metadata  map[string]string
	State     State
	CreatedAt time.Time
	ExpiresAt time.Time     // the keep-alive deadline; zero: none
	Grace     time.Duration // how long it outlives its last handle
	// Holders is how many handles are open, in all processes. Only the sandbox itself knows: it is 0 in
	// what Table gives.
	Holders   int
	EndedAt   time.Time // zero: it hasn't
	EndReason EndReason // empty: it hasn't
}

// Query selects leases. The zero Query selects all.
type Query struct {
	Metadata     map[string]string // all must match
	States       []State           // one must match; empty: any
	Template     string            // empty: any
	CreatedAfter time.Time         // zero: any
	Limit        int               // at most so many; 0 or less: all
	Cursor       string            // the ID of the last lease of an earlier query, to go on after it
}

// Table remembers leases. It is safe for concurrent use, as its store is.
type Table struct{ s store.Store }

// NewTable is the table in s, which stays the caller's.
func NewTable(s store.Store) *Table { return &Table{s} }

// Add remembers a new lease; store.ErrExists if there is one of that ID.
func (t *Table) Add(ctx context.Context, l Lease) error { return t.s.Add(ctx, record(l)) }

// Lease gives what is remembered of a sandbox, or store.ErrNotFound.
func (t *Table) Lease(ctx context.Context, id string) (Lease, error) {
	r, err := t.s.Get(ctx, id)
	if err != nil {
		return Lease{}, err
	}
	return fromRecord(r), nil
}

// SetMetadata replaces a lease's metadata.
func (t *Table) SetMetadata(ctx context.Context, id string, md map[string]string) error {
	return t.s.Update(ctx, id, func(r *store.Record) error {
		r.Metadata = md
		return nil
	})
}

// SetExpiry sets when a lease's deadline is; zero: none.
func (t *Table) SetExpiry(ctx context.Context, id string, at time.Time) error {
	return t.s.Update(ctx, id, func(r *store.Record) error {
		r.ExpiresAt = at
		return nil
	})
}

// Extend is SetExpiry, but leaves a deadline that is later.
func (t *Table) Extend(ctx context.Context, id string, at time.Time) error {
	return t.s.Update(ctx, id, func(r *store.Record) error {
		if at.After(r.ExpiresAt) {
			r.ExpiresAt = at
		}
		return nil
	})
}

// SetState makes a lease Running or Paused, unless it has ended.
func (t *Table) SetState(ctx context.Context, id string, state State) error {
	return t.s.Update(ctx, id, func(r *store.Record) error {
		if State(r.State) != Ended {
			r.State = string(state)
		}
		return nil
	})
}

// SetReason says beforehand how a sandbox is about to end. The first reason stays.
func (t *Table) SetReason(ctx context.Context, id string, reason EndReason) error {
	return t.s.Update(ctx, id, func(r *store.Record) error {
		if r.EndReason == "" {
			r.EndReason = string(reason)
		}
		return nil
	})
}

// End makes a lease Ended, for the reason unless one was set before, and gives what it is then, and whether it
// wasn't before. A lease that has ended stays as it is.
func (t *Table) End(ctx context.Context, id string, at time.Time, reason EndReason) (l Lease, first bool, err error) {
	err = t.s.Update(ctx, id, func(r *store.Record) error {
		if first = State(r.State) != Ended; first {
			r.State, r.EndedAt = string(Ended), at.UTC() // as any store gives it
			if r.EndReason == "" {
				r.EndReason = string(reason)
			}
		}
		l = fromRecord(*r)
		return nil
	})
	return l, first && err == nil, err
}

// Forget forgets the leases that ended before at.
func (t *Table) Forget(ctx context.Context, at time.Time) error {
	_, err := t.s.Prune(ctx, at)
	return err
}

// pageSize is how many leases List takes from the store at a time.
const pageSize = 512

// List gives the selected leases, newest first. Sandboxes that come and go meanwhile make it neither skip
// nor repeat others. It stops at the first error.
func (t *Table) List(ctx context.Context, q Query) iter.Seq2[Lease, error] {
	return func(yield func(Lease, error) bool) {
		f := store.Filter{
			Metadata:     q.Metadata,
			Template:     q.Template,
			CreatedAfter: q.CreatedAfter,
			Before:       q.Cursor,
		}
		for _, s := range q.States {
			f.States = append(f.States, string(s))
		}
		for left := q.Limit; ; {
			if f.Limit = pageSize; left > 0 {
				f.Limit = min(left, pageSize)
			}
			page, err := t.s.List(ctx, f)
			if err != nil {
				yield(Lease{}, err)
				return
			}
			for _, r := range page {
				if !yield(fromRecord(r), nil) {
					return
				}
			}
			if left > 0 {
				if left -= len(page); left == 0 {
					return
				}
			}
			if len(page) < f.Limit {
				return
			}
			f.Before = page[len(page)-1].ID
		}
	}
}

func record(l Lease) store.Record {
	return store.Record{
		ID:        l.ID,
		Template:  l.Template,
		Metadata:  l.Metadata,
		State:     string(l.State),
		CreatedAt: l.CreatedAt,
		ExpiresAt: l.ExpiresAt,
		Grace:     l.Grace,
		EndedAt:   l.EndedAt,
		EndReason: string(l.EndReason),
	}
}

func fromRecord(r store.Record) Lease {
	return Lease{
		ID:        r.ID,
		Template:  r.Template,
		Metadata:  r.Metadata,
		State:     State(r.State),
		CreatedAt: r.CreatedAt,
		ExpiresAt: r.ExpiresAt,
		Grace:     r.Grace,
		EndedAt:   r.EndedAt,
		EndReason: EndReason(r.EndReason),
	}
}
