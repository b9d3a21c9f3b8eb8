package store

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Memory is a Store that is gone with its process. The zero Memory is empty and ready.
type Memory struct {
	mu      sync.Mutex
	records map[string]Record
	closed  bool
}

var _ Store = (*Memory)(nil)

// open locks the store for an operation, if it may be done.
func (m *Memory) open(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// Add implements Store.
func (m *Memory) Add(ctx context.Context, r Record) error {
	if err := m.open(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if _, ok := m.records[r.ID]; ok {
		return ErrExists
	}
	if m.records == nil {
		m.records = map[string]Record{}
	}
	m.records[r.ID] = clone(r)
	return nil
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, id string) (Record, error) {
	if err := m.open(ctx); err != nil {
		return Record{}, err
	}
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return Record{}, ErrNotFound
	}
	return clone(r), nil
}

// Update implements Store.
func (m *Memory) Update(ctx context.Context, id string, change func(*Record) error) error {
	if err := m.open(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	r, ok := m.records[id]
	if !ok {
		return ErrNotFound
	}
	r = clone(r)
	if err := change(&r); err != nil {
		return err
	}
	m.records[id] = clone(r)
	return nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, f Filter) ([]Record, error) {
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var list []Record
	for _, r := range m.records {
		if f.matches(r) {
			list = append(list, clone(r))
		}
	}
	sort.Slice(list, func(i, j int) bool { return strings.Compare(list[i].ID, list[j].ID) > 0 })
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
	}
	return list, nil
}

func (f Filter) matches(r Record) bool {
	for k, v := range f.Metadata {
		if have, ok := r.Metadata[k]; !ok || have != v {
			return false
		}
	}
	return (len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
		(f.Template == "" || f.Template == r.Template) &&
		(f.CreatedAfter.IsZero() || r.CreatedAt.After(f.CreatedAfter)) &&
		(f.Before == "" || r.ID < f.Before)
}

// Prune implements Store.
func (m *Memory) Prune(ctx context.Context, t time.Time) (int, error) {
	if err := m.open(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	n := 0
	maps.DeleteFunc(m.records, func(_ string, r Record) bool {
		old := !r.EndedAt.IsZero() && r.EndedAt.Before(t)
		if old {
			n++
		}
		return old
	})
	return n, nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// clone is a copy of r as it comes out of any store.
func clone(r Record) Record {
	r.Metadata = maps.Clone(r.Metadata)
	if len(r.Metadata) == 0 {
		r.Metadata = nil
	}
	r.CreatedAt, r.ExpiresAt, r.EndedAt = plain(r.CreatedAt), plain(r.ExpiresAt), plain(r.EndedAt)
	return r
}

// plain is t without its zone and its monotonic reading.
func plain(t time.Time) time.Time {
	return t.UTC() // which strips the reading as well
}
