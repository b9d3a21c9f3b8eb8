// Package storetest runs any store.Store through the same tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/store"
)

// Run tests a Store. Every call of open gives a new and empty one, which Run closes.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, s store.Store)
	}{
		{"Records", testRecords},
		{"Missing", testMissing},
		{"Add", testAdd},
		{"Update", testUpdate},
		{"UpdateFails", testUpdateFails},
		{"UpdateCancelled", testUpdateCancelled},
		{"Concurrent", testConcurrent},
		{"Filters", testFilters},
		{"FiltersCombined", testFiltersCombined},
		{"Pages", testPages},
		{"Prune", testPrune},
		{"Shares", testShares},
		{"Cancelled", testCancelled},
		{"Close", testClose},
		{"CloseInUse", testCloseInUse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			tt.test(t, s)
		})
	}
}

// day is a time in the tests' year.
func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 123456789, time.UTC) }

func add(t *testing.T, s store.Store, records ...store.Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Add(t.Context(), r); err != nil {
			t.Fatalf("Add(%q): %v", r.ID, err)
		}
	}
}

func get(t *testing.T, s store.Store, id string) store.Record {
	t.Helper()
	r, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get(%q): %v", id, err)
	}
	return r
}

func update(t *testing.T, s store.Store, id string, change func(*store.Record)) {
	t.Helper()
	err := s.Update(t.Context(), id, func(r *store.Record) error {
		change(r)
		return nil
	})
	if err != nil {
		t.Fatalf("Update(%q): %v", id, err)
	}
}

// list gives the ids of what a filter selects, with spaces between.
func list(t *testing.T, s store.Store, f store.Filter) string {
	t.Helper()
	records, err := s.List(t.Context(), f)
	if err != nil {
		t.Fatalf("List(%+v): %v", f, err)
	}
	return ids(records)
}

func ids(records []store.Record) string {
	var list []string
	for _, r := range records {
		list = append(list, r.ID)
	}
	return strings.Join(list, " ")
}

func testRecords(t *testing.T, s store.Store) {
	zone := time.FixedZone("east", 5*3600+1800)
	for _, tt := range []struct {
		name      string
		add, want store.Record
	}{
		{name: "zero"},
		{
			name: "full",
			add: store.Record{
				Template:  "base",
				Metadata:  map[string]string{"user": "42", "": "empty key", "empty value": ""},
				State:     "ended",
				CreatedAt: day(1),
				ExpiresAt: day(2),
				Grace:     90*time.Second + 1,
				EndedAt:   day(3),
				EndReason: "closed",
			},
			want: store.Record{
				Template:  "base",
				Metadata:  map[string]string{"user": "42", "": "empty key", "empty value": ""},
				State:     "ended",
				CreatedAt: day(1),
				ExpiresAt: day(2),
				Grace:     90*time.Second + 1,
				EndedAt:   day(3),
				EndReason: "closed",
			},
		},
		{
			name: "text",
			add: store.Record{
				Template:  "Ubuntu – größer/'\"`%_?",
				Metadata:  map[string]string{"名前": "Ünïcødé 🐣", `"quoted"`: "<a href='x'>&\\</a>", "line\n": "\x00\t\u2028"},
				EndReason: "größe",
			},
			want: store.Record{
				Template:  "Ubuntu – größer/'\"`%_?",
				Metadata:  map[string]string{"名前": "Ünïcødé 🐣", `"quoted"`: "<a href='x'>&\\</a>", "line\n": "\x00\t\u2028"},
				EndReason: "größe",
			},
		},
		{name: "empty metadata", add: store.Record{Metadata: map[string]string{}}},
		{
			name: "zones",
			add:  store.Record{CreatedAt: day(1).In(zone), ExpiresAt: time.Time{}.In(zone), EndedAt: day(2).In(time.Local)},
			want: store.Record{CreatedAt: day(1), EndedAt: day(2)},
		},
		{
			name: "around 1970",
			add:  store.Record{CreatedAt: time.Unix(0, -1), ExpiresAt: time.Unix(0, 0), EndedAt: time.Unix(0, 1)},
			want: store.Record{CreatedAt: time.Unix(0, -1).UTC(), ExpiresAt: time.Unix(0, 0).UTC(), EndedAt: time.Unix(0, 1).UTC()},
		},
		{
			name: "bounds",
			add:  store.Record{Grace: math.MaxInt64, CreatedAt: time.Unix(0, math.MinInt64), ExpiresAt: time.Unix(0, math.MaxInt64)},
			want: store.Record{Grace: math.MaxInt64, CreatedAt: time.Unix(0, math.MinInt64).UTC(), ExpiresAt: time.Unix(0, math.MaxInt64).UTC()},
		},
		{name: "negative", add: store.Record{Grace: -1}, want: store.Record{Grace: -1}},
	} {
		tt.add.ID, tt.want.ID = tt.name, tt.name
		add(t, s, tt.add)
		if got := get(t, s, tt.name); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got\n%#v, want\n%#v", tt.name, got, tt.want)
		}
		update(t, s, tt.name, func(r *store.Record) { *r = tt.add })
		if got := get(t, s, tt.name); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s, updated: got\n%#v, want\n%#v", tt.name, got, tt.want)
		}
	}
	now := time.Now() // has a monotonic reading, which is to go
	add(t, s, store.Record{ID: "now", CreatedAt: now})
	if got, want := get(t, s, "now").CreatedAt, time.Unix(0, now.UnixNano()).UTC(); got != want {
		t.Errorf("now: got %#v, want %#v", got, want)
	}
	ages := store.Record{ID: "ages", CreatedAt: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), ExpiresAt: now.Add(math.MaxInt64)}
	add(t, s, ages)
	got := get(t, s, "ages")
	if limit := time.Unix(0, math.MaxInt64); got.ExpiresAt.Before(limit) {
		t.Errorf("ages hence: got %v, want %v or later", got.ExpiresAt, limit)
	}
	if limit := time.Unix(0, math.MinInt64); got.CreatedAt.After(limit) {
		t.Errorf("ages ago: got %v, want %v or sooner", got.CreatedAt, limit)
	}
}

func testMissing(t *testing.T, s store.Store) {
	add(t, s, store.Record{ID: "a"})
	for _, id := range []string{"", "A", "a ", "b"} {
		if r, err := s.Get(t.Context(), id); !errors.Is(err, store.ErrNotFound) || !reflect.DeepEqual(r, store.Record{}) {
			t.Errorf("Get(%q) = %+v, %v; want nothing, ErrNotFound", id, r, err)
		}
		err := s.Update(t.Context(), id, func(*store.Record) error {
			t.Errorf("Update(%q) calls change", id)
			return nil
		})
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Update(%q) = %v, want ErrNotFound", id, err)
		}
	}
	if got := list(t, s, store.Filter{}); got != "a" {
		t.Errorf("left: %q, want a", got)
	}
}

func testAdd(t *testing.T, s store.Store) {
	first := store.Record{ID: "a", Template: "first", Metadata: map[string]string{"k": "first"}}
	add(t, s, first)
	err := s.Add(t.Context(), store.Record{ID: "a", Template: "second", Metadata: map[string]string{"k": "second", "l": "second"}})
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("second Add = %v, want ErrExists", err)
	}
	if got := get(t, s, "a"); !reflect.DeepEqual(got, first) {
		t.Errorf("after second Add: got %+v, want %+v", got, first)
	}
	if got := list(t, s, store.Filter{Metadata: map[string]string{"l": "second"}}); got != "" {
		t.Errorf("found by what was not added: %q", got)
	}
}

func testUpdate(t *testing.T, s store.Store) {
	add(t, s,
		store.Record{ID: "a", State: "running", Metadata: map[string]string{"k": "a", "only": "a"}},
		store.Record{ID: "b", State: "running", Metadata: map[string]string{"k": "b"}})
	want := store.Record{ID: "a", Template: "other", State: "ended", CreatedAt: day(1), ExpiresAt: day(2), Grace: 1, EndedAt: day(3),
		EndReason: "killed", Metadata: map[string]string{"k": "b", "new": "n"}}
	update(t, s, "a", func(r *store.Record) {
		if r.ID != "a" || r.State != "running" || r.Metadata["only"] != "a" {
			t.Errorf("change gets %+v", *r)
		}
		*r = want
	})
	if got := get(t, s, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, tt := range []struct {
		f    store.Filter
		want string
	}{
		{store.Filter{}, "b a"},
		{store.Filter{Metadata: map[string]string{"k": "a"}}, ""},
		{store.Filter{Metadata: map[string]string{"only": "a"}}, ""},
		{store.Filter{Metadata: map[string]string{"k": "b"}}, "b a"},
		{store.Filter{Metadata: map[string]string{"new": "n"}}, "a"},
		{store.Filter{States: []string{"running"}}, "b"},
		{store.Filter{States: []string{"ended"}}, "a"},
	} {
		if got := list(t, s, tt.f); got != tt.want {
			t.Errorf("List(%+v) = %q, want %q", tt.f, got, tt.want)
		}
	}
	update(t, s, "a", func(r *store.Record) { r.Metadata["new"] = "m" })
	if got := list(t, s, store.Filter{Metadata: map[string]string{"new": "m"}}); got != "a" {
		t.Errorf("metadata changed in place: found %q, want a", got)
	}
	update(t, s, "a", func(r *store.Record) { r.Metadata = nil })
	if got := list(t, s, store.Filter{Metadata: map[string]string{"k": "b"}}); got != "b" {
		t.Errorf("metadata removed: found %q, want b", got)
	}
}

func testUpdateFails(t *testing.T, s store.Store) {
	want := store.Record{ID: "a", State: "running", CreatedAt: day(1), Metadata: map[string]string{"k": "v"}}
	add(t, s, want)
	refused := errors.New("refused")
	err := s.Update(t.Context(), "a", func(r *store.Record) error {
		r.State, r.Metadata["k"], r.Metadata["l"] = "ended", "w", "x"
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("Update = %v, want change's error", err)
	}
	if got := get(t, s, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := list(t, s, store.Filter{Metadata: map[string]string{"k": "v"}, States: []string{"running"}}); got != "a" {
		t.Errorf("found %q, want a", got)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Errorf("a panic in change is lost")
			}
		}()
		_ = s.Update(t.Context(), "a", func(r *store.Record) error { panic("in change") })
	}()
	update(t, s, "a", func(r *store.Record) { r.State = "ended" }) // the store is still of use
}

// testUpdateCancelled lets a context end in mid-update: that may be too late, but has to be whole.
func testUpdateCancelled(t *testing.T, s store.Store) {
	add(t, s, store.Record{ID: "a"})
	for n := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Update(ctx, "a", func(r *store.Record) error {
			if n%2 == 0 {
				cancel()
			} else {
				go cancel()
			}
			r.State, r.Metadata = strconv.Itoa(n), map[string]string{"n": strconv.Itoa(n)}
			return nil
		})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("Update = %v, want nil or Canceled", err)
		}
		r := get(t, s, "a")
		if done := r.State == strconv.Itoa(n); done != (err == nil) || r.State != r.Metadata["n"] {
			t.Fatalf("update %d = %v, but the record is %+v", n, err, r)
		}
	}
}

func testConcurrent(t *testing.T, s store.Store) {
	const workers, rounds = 16, 25
	add(t, s, store.Record{ID: "counter", Metadata: map[string]string{"n": "0"}})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				err := errors.Join(
					s.Update(t.Context(), "counter", func(r *store.Record) error {
						n, err := strconv.Atoi(r.Metadata["n"])
						r.Metadata["n"] = strconv.Itoa(n + 1)
						r.Grace++
						return err
					}),
					s.Add(t.Context(), store.Record{ID: fmt.Sprint(w, "-", i), Metadata: map[string]string{"by": strconv.Itoa(w)}}))
				if err != nil {
					t.Error(err)
					return
				}
				mine, err := s.List(t.Context(), store.Filter{Metadata: map[string]string{"by": strconv.Itoa(w)}})
				if err != nil || len(mine) != i+1 {
					t.Errorf("List gives %d records, %v; want %d", len(mine), err, i+1)
				}
				if r, err := s.Get(t.Context(), "counter"); err != nil || r.Metadata["n"] != strconv.Itoa(int(r.Grace)) {
					t.Errorf("half a record: %+v, %v", r, err)
				}
			}
		})
	}
	once := make(chan error, workers)
	for range workers {
		wg.Go(func() { once <- s.Add(t.Context(), store.Record{ID: "once"}) })
	}
	wg.Wait()
	if got := get(t, s, "counter").Metadata["n"]; got != strconv.Itoa(workers*rounds) {
		t.Errorf("counted to %s, want %d", got, workers*rounds)
	}
	added := 0
	for range workers {
		if err := <-once; err == nil {
			added++
		} else if !errors.Is(err, store.ErrExists) {
			t.Errorf("Add = %v, want ErrExists", err)
		}
	}
	if added != 1 {
		t.Errorf("the same id was added %d times", added)
	}
}

func testPrune(t *testing.T, s store.Store) {
	md := map[string]string{"k": "v"}
	add(t, s,
		store.Record{ID: "a", State: "ended", EndedAt: time.Unix(0, -1), Metadata: md},
		store.Record{ID: "b", State: "ended", EndedAt: day(1), Metadata: md},
		store.Record{ID: "c", State: "ended", EndedAt: day(2), Metadata: md},
		store.Record{ID: "d", State: "ended", EndedAt: day(2).Add(1), Metadata: md},
		store.Record{ID: "e", State: "running", CreatedAt: day(1), ExpiresAt: day(1), Metadata: md})
	for _, tt := range []struct {
		at   time.Time
		n    int
		left string
	}{
		{time.Time{}, 0, "e d c b a"},
		{time.Unix(0, -1), 0, "e d c b a"},
		{time.Unix(0, 0), 1, "e d c b"},
		{day(2), 1, "e d c"},
		{day(2), 0, "e d c"},
		{day(2).Add(1).In(time.FixedZone("east", 7200)), 1, "e d"},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1, "e"},
	} {
		if n, err := s.Prune(t.Context(), tt.at); n != tt.n || err != nil {
			t.Errorf("Prune(%v) = %d, %v; want %d", tt.at, n, err, tt.n)
		}
		if left := list(t, s, store.Filter{Metadata: md}); left != tt.left {
			t.Errorf("left by Prune(%v): %q, want %q", tt.at, left, tt.left)
		}
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what is forgotten = %v, want ErrNotFound", err)
	}
	add(t, s, store.Record{ID: "b", Metadata: md})
	if got := list(t, s, store.Filter{Metadata: md}); got != "e b" {
		t.Errorf("after adding one again: %q, want %q", got, "e b")
	}
}

// testShares spoils every map that goes in or out.
func testShares(t *testing.T, s store.Store) {
	spoil := func(md map[string]string) { md["k"], md["spoilt"] = "spoilt", "yes" }
	check := func(after string) {
		t.Helper()
		if got, want := get(t, s, "a").Metadata, map[string]string{"k": "v"}; !maps.Equal(got, want) {
			t.Errorf("after %s: got %v, want %v", after, got, want)
		}
	}
	md := map[string]string{"k": "v"}
	add(t, s, store.Record{ID: "a", Metadata: md})
	spoil(md)
	check("Add")
	spoil(get(t, s, "a").Metadata)
	check("Get")
	records, err := s.List(t.Context(), store.Filter{})
	if err != nil || len(records) != 1 {
		t.Fatalf("List = %v, %v", records, err)
	}
	spoil(records[0].Metadata)
	check("List")
	var kept *store.Record
	update(t, s, "a", func(r *store.Record) { kept = r })
	kept.State = "spoilt"
	spoil(kept.Metadata)
	check("Update that kept its record")
	md = map[string]string{"k": "v"}
	update(t, s, "a", func(r *store.Record) { r.Metadata = md })
	spoil(md)
	check("Update with a map")
	if got := get(t, s, "a").State; got != "" {
		t.Errorf("state: %q, want none", got)
	}
}

// calls are all methods but Close.
func calls(s store.Store) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"Add": func(ctx context.Context) error { return s.Add(ctx, store.Record{ID: "new"}) },
		"Get": func(ctx context.Context) error {
			_, err := s.Get(ctx, "a")
			return err
		},
		"Update": func(ctx context.Context) error {
			return s.Update(ctx, "a", func(r *store.Record) error {
				r.State = "changed"
				return nil
			})
		},
		"List": func(ctx context.Context) error {
			_, err := s.List(ctx, store.Filter{Metadata: map[string]string{"k": "v"}, States: []string{"ended"}})
			return err
		},
		"Prune": func(ctx context.Context) error {
			_, err := s.Prune(ctx, day(2))
			return err
		},
	}
}

func testCancelled(t *testing.T, s store.Store) {
	want := store.Record{ID: "a", State: "ended", EndedAt: day(1), Metadata: map[string]string{"k": "v"}}
	add(t, s, want)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), day(1))
	defer cancel()
	for name, call := range calls(s) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want Canceled", name, err)
		}
		if err := call(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s = %v, want DeadlineExceeded", name, err)
		}
	}
	if got := get(t, s, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := list(t, s, store.Filter{}); got != "a" {
		t.Errorf("left: %q, want a", got)
	}
}

func testClose(t *testing.T, s store.Store) {
	add(t, s, store.Record{ID: "a"})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for name, call := range calls(s) {
			if err := call(t.Context()); !errors.Is(err, store.ErrClosed) {
				t.Errorf("%s = %v, want ErrClosed", name, err)
			}
		}
	}
}

// testCloseInUse closes a store under everyone's hands.
func testCloseInUse(t *testing.T, s store.Store) {
	add(t, s, store.Record{ID: "a"})
	var wg, started sync.WaitGroup
	for name, call := range calls(s) {
		for range 2 {
			started.Add(1)
			wg.Go(func() {
				started.Done()
				for {
					err := call(t.Context())
					if errors.Is(err, store.ErrClosed) {
						return
					}
					if err != nil && !errors.Is(err, store.ErrExists) {
						t.Errorf("%s = %v, want nil or ErrClosed", name, err)
						return
					}
				}
			})
		}
	}
	started.Wait()
	for range 20 { // calls go on meanwhile
		if _, err := s.Get(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
}
