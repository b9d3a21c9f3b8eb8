// Package store keeps the records of sandboxes: which there are and were, with their metadata and how they
// ended. A store remembers; it decides nothing: who lives until when is the agents' to say.
//
// Store has two implementations: Memory, for one process, and the one of package sqlite. Package storetest
// runs any other through the same tests.
package store

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound means that there is no record of that id.
	ErrNotFound = errors.New("store: no such record")
	// ErrExists means that there is a record of that id already.
	ErrExists = errors.New("store: record exists")
	// ErrCorrupt means that what the store is kept in can't be read.
	ErrCorrupt = errors.New("store: data is corrupt")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Record is what is remembered of a sandbox. Its strings are UTF-8. Times are kept to the nanosecond, without a
// zone; the zero time is none. Those before 1678 or after 2262 may come back as the first or last between.
type Record struct {
	ID        string // sorts by the time of creation
	Template  string
	Metadata  map[string]string
	State     string
	CreatedAt time.Time
	ExpiresAt time.Time // the deadline
	Grace     time.Duration
	EndedAt   time.Time
	EndReason string
}

// Filter selects records. The zero Filter selects all.
type Filter struct {
	Metadata     map[string]string // all of these
	States       []string          // one of these; empty: any
	Template     string            // empty: any
	CreatedAfter time.Time         // zero: any
	Before       string            // ids that sort before this one; empty: all
	Limit        int               // at most so many; 0 or less: all
}

// Store keeps records. It is safe for concurrent use. A record that is passed in or returned shares nothing
// with the store.
type Store interface {
	// Add keeps a new record, or is ErrExists.
	Add(ctx context.Context, r Record) error
	// Get gives a record, or ErrNotFound.
	Get(ctx context.Context, id string) (Record, error)
	// Update replaces a record by what change makes of it, at once and whole, or is ErrNotFound. If change
	// fails nothing is replaced and its error is returned. It must not change the ID, and not use the store.
	Update(ctx context.Context, id string, change func(*Record) error) error
	// List gives the selected records, by descending id.
	List(ctx context.Context, f Filter) ([]Record, error)
	// Prune forgets the records that ended before t and tells how many.
	Prune(ctx context.Context, t time.Time) (int, error)
	// Close ends the use of the store; twice is a no-op. Every other method is ErrClosed then.
	Close() error
}
