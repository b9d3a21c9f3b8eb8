package lease_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/store"
)

// day is a time in the tests' year.
func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 123456789, time.UTC) }

// table gives a table with some leases in it.
func table(t *testing.T, leases ...lease.Lease) (*lease.Table, *store.Memory) {
	t.Helper()
	s := new(store.Memory)
	tbl := lease.NewTable(s)
	for _, l := range leases {
		if err := tbl.Add(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	return tbl, s
}

// get gives what is remembered of a sandbox.
func get(t *testing.T, tbl *lease.Table, id string) lease.Lease {
	t.Helper()
	l, err := tbl.Lease(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ids gives the ids of a list, with spaces between.
func ids(t *testing.T, list iter.Seq2[lease.Lease, error]) string {
	t.Helper()
	var ids []string
	for l, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.ID)
	}
	return strings.Join(ids, " ")
}

func TestAdd(t *testing.T) {
	want := lease.Lease{
		ID: "a", Template: "base", Metadata: map[string]string{"user": "42"}, State: lease.Ended, CreatedAt: day(1),
		ExpiresAt: day(2), Grace: time.Minute, EndedAt: day(3), EndReason: lease.OOM,
	}
	tbl, _ := table(t, want)
	if got := get(t, tbl, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := tbl.Add(t.Context(), lease.Lease{ID: "a"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("second Add = %v, want ErrExists", err)
	}
	held := want
	held.ID, held.Holders = "b", 3
	if err := tbl.Add(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if got := get(t, tbl, "b").Holders; got != 0 {
		t.Errorf("%d holders are remembered", got)
	}
}

// change is a method of Table that changes a lease.
type change func(ctx context.Context, tbl *lease.Table, id string) error

func setMetadata(md map[string]string) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error { return tbl.SetMetadata(ctx, id, md) }
}

func setExpiry(at time.Time) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error { return tbl.SetExpiry(ctx, id, at) }
}

func extendTo(at time.Time) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error { return tbl.Extend(ctx, id, at) }
}

func setState(state lease.State) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error { return tbl.SetState(ctx, id, state) }
}

func setReason(r lease.EndReason) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error { return tbl.SetReason(ctx, id, r) }
}

func end(at time.Time, r lease.EndReason) change {
	return func(ctx context.Context, tbl *lease.Table, id string) error {
		l, _, err := tbl.End(ctx, id, at, r)
		if err != nil {
			return err
		}
		if now, err := tbl.Lease(ctx, id); err != nil || !reflect.DeepEqual(l, now) {
			return fmt.Errorf("End gives %+v, but it is %+v, %v", l, now, err)
		}
		return nil
	}
}

func TestChanges(t *testing.T) {
	start := lease.Lease{ID: "a", Template: "base", Metadata: map[string]string{"k": "v"}, State: lease.Running, CreatedAt: day(1), ExpiresAt: day(5)}
	east := time.FixedZone("east", 7200)
	for _, tt := range []struct {
		name    string
		changes []change
		want    func(l *lease.Lease)
	}{
		{"nothing", nil, func(l *lease.Lease) {}},
		{"metadata", []change{setMetadata(map[string]string{"l": "w"})}, func(l *lease.Lease) { l.Metadata = map[string]string{"l": "w"} }},
		{"metadata, none", []change{setMetadata(nil)}, func(l *lease.Lease) { l.Metadata = nil }},
		{"expiry", []change{setExpiry(day(9))}, func(l *lease.Lease) { l.ExpiresAt = day(9) }},
		{"expiry, sooner", []change{setExpiry(day(4))}, func(l *lease.Lease) { l.ExpiresAt = day(4) }},
		{"expiry, none", []change{setExpiry(time.Time{})}, func(l *lease.Lease) { l.ExpiresAt = time.Time{} }},
		{"extended", []change{extendTo(day(9))}, func(l *lease.Lease) { l.ExpiresAt = day(9) }},
		{"extended, sooner", []change{extendTo(day(4))}, func(l *lease.Lease) {}},
		{"extended from none", []change{setExpiry(time.Time{}), extendTo(day(4))}, func(l *lease.Lease) { l.ExpiresAt = day(4) }},
		{"paused", []change{setState(lease.Paused)}, func(l *lease.Lease) { l.State = lease.Paused }},
		{"paused and resumed", []change{setState(lease.Paused), setState(lease.Running)}, func(l *lease.Lease) {}},
		{"end, then paused", []change{end(day(6), lease.Closed), setState(lease.Paused)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Closed
		}},
		{"reason", []change{setReason(lease.Killed)}, func(l *lease.Lease) { l.EndReason = lease.Killed }},
		{"reason, the first stays", []change{setReason(lease.Killed), setReason(lease.Expired)}, func(l *lease.Lease) { l.EndReason = lease.Killed }},
		{"end", []change{end(day(6), lease.Closed)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Closed
		}},
		{"end, in a zone", []change{end(day(6).In(east), lease.Closed)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Closed
		}},
		{"end, with a reason set before", []change{setReason(lease.Killed), end(day(6), lease.Crashed)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Killed
		}},
		{"end, twice", []change{end(day(6), lease.Closed), end(day(7), lease.Crashed)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Closed
		}},
		{"end, then a reason", []change{end(day(6), lease.Closed), setReason(lease.Killed)}, func(l *lease.Lease) {
			l.State, l.EndedAt, l.EndReason = lease.Ended, day(6), lease.Closed
		}},
	} {
		tbl, _ := table(t, start, lease.Lease{ID: "other"})
		for i, c := range tt.changes {
			if err := c(t.Context(), tbl, "a"); err != nil {
				t.Errorf("%s: change %d: %v", tt.name, i, err)
			}
			if err := c(t.Context(), tbl, "none"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: change %d of none: %v, want ErrNotFound", tt.name, i, err)
			}
		}
		want := start
		tt.want(&want)
		if got := get(t, tbl, "a"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
		if got := get(t, tbl, "other"); !reflect.DeepEqual(got, lease.Lease{ID: "other"}) {
			t.Errorf("%s: another has changed: %+v", tt.name, got)
		}
	}
}

func TestForget(t *testing.T) {
	tbl, _ := table(t,
		lease.Lease{ID: "a", State: lease.Ended, EndedAt: day(1)},
		lease.Lease{ID: "b", State: lease.Ended, EndedAt: day(2)},
		lease.Lease{ID: "c", State: lease.Running, CreatedAt: day(1), ExpiresAt: day(1)})
	if err := tbl.Forget(t.Context(), day(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := tbl.Lease(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Lease = %v, want ErrNotFound", err)
	}
	if got := ids(t, tbl.List(t.Context(), lease.Query{})); got != "c b" {
		t.Errorf("left: %q, want %q", got, "c b")
	}
}

func TestList(t *testing.T) {
	tbl, _ := table(t,
		lease.Lease{ID: "a", Template: "base", State: lease.Ended, CreatedAt: day(1), EndedAt: day(4), Metadata: map[string]string{"user": "1"}},
		lease.Lease{ID: "b", Template: "node", State: lease.Paused, CreatedAt: day(2), Metadata: map[string]string{"user": "1", "env": "test"}},
		lease.Lease{ID: "c", Template: "base", State: lease.Running, CreatedAt: day(3), Metadata: map[string]string{"user": "1", "env": "prod"}},
		lease.Lease{ID: "d", Template: "node", State: lease.Running, CreatedAt: day(4), Metadata: map[string]string{"user": "2", "env": "prod"}})
	for _, tt := range []struct {
		name string
		q    lease.Query
		want string
	}{
		{"all", lease.Query{}, "d c b a"},
		{"metadata", lease.Query{Metadata: map[string]string{"user": "1"}}, "c b a"},
		{"metadata, two", lease.Query{Metadata: map[string]string{"user": "1", "env": "prod"}}, "c"},
		{"states", lease.Query{States: []lease.State{lease.Ended}}, "a"},
		{"states, two", lease.Query{States: []lease.State{lease.Running, lease.Paused}}, "d c b"},
		{"template", lease.Query{Template: "base"}, "c a"},
		{"created after", lease.Query{CreatedAfter: day(2)}, "d c"},
		{"limit", lease.Query{Limit: 3}, "d c b"},
		{"limit, negative", lease.Query{Limit: -1}, "d c b a"},
		{"cursor", lease.Query{Cursor: "c"}, "b a"},
		{"cursor of one that is gone", lease.Query{Cursor: "bb"}, "b a"},
		{"cursor at the end", lease.Query{Cursor: "a"}, ""},
		{"combined", lease.Query{Metadata: map[string]string{"user": "1"}, States: []lease.State{lease.Running, lease.Paused},
			Template: "node", CreatedAfter: day(1), Limit: 1, Cursor: "c"}, "b"},
	} {
		list := tbl.List(t.Context(), tt.q)
		if got := ids(t, list); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if got := ids(t, list); got != tt.want {
			t.Errorf("%s, once more: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// many gives n running leases, and their ids from the newest on.
func many(n int) (leases []lease.Lease, ids []string) {
	for i := range n {
		leases = append(leases, lease.Lease{ID: fmt.Sprintf("%06d", i), State: lease.Running})
		ids = append(ids, leases[i].ID)
	}
	slices.Reverse(ids)
	return leases, ids
}

// TestListPages lists more than what is taken from the store at a time.
func TestListPages(t *testing.T) {
	const page = 512
	for _, n := range []int{page - 1, page, page + 1, 2 * page, 2*page + 7} {
		leases, all := many(n)
		tbl, _ := table(t, leases...)
		for _, limit := range []int{0, 1, page - 1, page, page + 1, 2 * page, 2*page + 1, 10 * page} {
			want := all
			if limit > 0 {
				want = all[:min(limit, n)]
			}
			if got := ids(t, tbl.List(t.Context(), lease.Query{Limit: limit})); got != strings.Join(want, " ") {
				t.Errorf("of %d, limit %d: got %d, want %d", n, limit, len(strings.Fields(got)), len(want))
			}
		}
		var got []string // with a cursor
		for q := (lease.Query{Limit: 100}); ; q.Cursor = got[len(got)-1] {
			some := strings.Fields(ids(t, tbl.List(t.Context(), q)))
			if got = append(got, some...); len(some) == 0 {
				break
			}
		}
		if !slices.Equal(got, all) {
			t.Errorf("of %d, by 100: got %d", n, len(got))
		}
	}
}

// TestListMeanwhile lets sandboxes come and go during a list. The others come once each.
func TestListMeanwhile(t *testing.T) {
	leases, _ := many(1600)
	tbl, _ := table(t, leases...)
	seen := map[string]int{}
	n := 0
	for l, err := range tbl.List(t.Context(), lease.Query{States: []lease.State{lease.Running}}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[l.ID]++
		if n++; n%100 == 1 {
			newer := lease.Lease{ID: fmt.Sprint("9-", n), State: lease.Running}
			_, _, err := tbl.End(t.Context(), l.ID, day(1), lease.Closed)
			if err := errors.Join(err, tbl.Add(t.Context(), newer), tbl.Forget(t.Context(), day(2))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, l := range leases {
		if seen[l.ID] != 1 {
			t.Errorf("%s came %d times", l.ID, seen[l.ID])
		}
	}
	if len(seen) != len(leases) {
		t.Errorf("%d came, want %d", len(seen), len(leases))
	}
}

func TestListStops(t *testing.T) {
	leases, _ := many(1600)
	tbl, s := table(t, leases...)
	n := 0
	for range tbl.List(t.Context(), lease.Query{}) {
		if n++; n == 600 {
			break
		}
	}
	if n != 600 {
		t.Errorf("%d came, want 600", n)
	}
	got, failed := 0, 0
	for l, err := range tbl.List(t.Context(), lease.Query{}) {
		if err != nil {
			failed++
			if !errors.Is(err, store.ErrClosed) || !reflect.DeepEqual(l, lease.Lease{}) {
				t.Errorf("got %+v, %v; want nothing, ErrClosed", l, err)
			}
			continue
		}
		got++
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got != 512 || failed != 1 {
		t.Errorf("%d leases and %d errors; want 512 and 1", got, failed)
	}
}
