package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nestbox/nestbox/store"
)

func testFilters(t *testing.T, s store.Store) {
	if r, err := s.List(t.Context(), store.Filter{}); len(r) != 0 || err != nil {
		t.Errorf("in an empty store: %v, %v", r, err)
	}
	add(t, s,
		store.Record{ID: "c", Template: "base", State: "running", CreatedAt: day(3), Metadata: map[string]string{"user": "1", "env": "größe"}},
		store.Record{ID: "a", Template: "base", State: "ended", CreatedAt: day(1), EndedAt: day(4), Metadata: map[string]string{"user": "1"}},
		store.Record{ID: "e", Template: "node", State: "running", CreatedAt: day(5), Metadata: map[string]string{"user": "2", "env": ""}},
		store.Record{ID: "b", Template: "node", State: "paused", CreatedAt: day(2), Metadata: map[string]string{"user": "1", "env": ""}},
		store.Record{ID: "d", Template: "base", State: "", CreatedAt: time.Time{}},
		store.Record{ID: "B", Template: "Base", State: "Running", Metadata: map[string]string{"User": "1"}})
	for _, tt := range []struct {
		name string
		f    store.Filter
		want string
	}{
		{"all", store.Filter{}, "e d c b a B"},
		{"metadata", store.Filter{Metadata: map[string]string{"user": "1"}}, "c b a"},
		{"metadata, empty", store.Filter{Metadata: map[string]string{}}, "e d c b a B"},
		{"metadata, empty value", store.Filter{Metadata: map[string]string{"env": ""}}, "e b"},
		{"metadata, not ASCII", store.Filter{Metadata: map[string]string{"env": "größe"}}, "c"},
		{"metadata, two", store.Filter{Metadata: map[string]string{"user": "1", "env": ""}}, "b"},
		{"metadata, no such value", store.Filter{Metadata: map[string]string{"user": "3"}}, ""},
		{"metadata, a prefix", store.Filter{Metadata: map[string]string{"use": "1"}}, ""},
		{"metadata, a pattern", store.Filter{Metadata: map[string]string{"user": "%"}}, ""},
		{"metadata, one of two", store.Filter{Metadata: map[string]string{"user": "1", "none": ""}}, ""},
		{"states", store.Filter{States: []string{"running"}}, "e c"},
		{"states, empty", store.Filter{States: []string{}}, "e d c b a B"},
		{"states, two", store.Filter{States: []string{"running", "ended"}}, "e c a"},
		{"states, twice", store.Filter{States: []string{"paused", "paused"}}, "b"},
		{"states, the empty one", store.Filter{States: []string{""}}, "d"},
		{"states, none such", store.Filter{States: []string{"none"}}, ""},
		{"template", store.Filter{Template: "base"}, "d c a"},
		{"created after", store.Filter{CreatedAfter: day(2)}, "e c"},
		{"created after, a moment sooner", store.Filter{CreatedAfter: day(2).Add(-1)}, "e c b"},
		{"created after, in another zone", store.Filter{CreatedAfter: day(2).In(time.FixedZone("west", -3600))}, "e c"},
		{"created after, long ago", store.Filter{CreatedAfter: time.Date(1066, 1, 1, 0, 0, 0, 0, time.UTC)}, "e c b a"},
		{"created after, in ages", store.Filter{CreatedAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, ""},
		{"before", store.Filter{Before: "c"}, "b a B"},
		{"before, not there", store.Filter{Before: "bb"}, "b a B"},
		{"before the first", store.Filter{Before: "B"}, ""},
		{"limit", store.Filter{Limit: 2}, "e d"},
		{"limit, more than there are", store.Filter{Limit: 100}, "e d c b a B"},
		{"limit, negative", store.Filter{Limit: -1}, "e d c b a B"},
		{"combined", store.Filter{Metadata: map[string]string{"user": "1"}, States: []string{"running", "paused"}, Limit: 1}, "c"},
		{"combined, next", store.Filter{Metadata: map[string]string{"user": "1"}, States: []string{"running", "paused"}, Before: "c", Limit: 1}, "b"},
	} {
		if got := list(t, s, tt.f); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// testFiltersCombined compares all combinations of filters with what they should select.
func testFiltersCombined(t *testing.T, s store.Store) {
	states, templates := []string{"ended", "running", "paused"}, []string{"base", "node"}
	var all []store.Record // by descending id
	for i := range 60 {
		r := store.Record{ID: fmt.Sprintf("%02d", i), State: states[i%7%3], Template: templates[i%2], CreatedAt: day(1 + i/10),
			Metadata: map[string]string{"all": "yes", "fifth": strconv.Itoa(i % 5)}}
		if i%3 == 0 {
			r.Metadata["third"] = "yes"
		}
		add(t, s, r)
		all = slices.Insert(all, 0, r)
	}
	for _, md := range []map[string]string{nil, {"all": "yes"}, {"fifth": "2"}, {"third": "yes", "fifth": "1"}, {"all": "yes", "none": ""}} {
		for _, states := range [][]string{nil, {"running"}, {"running", "ended"}, {"none"}} {
			for _, template := range []string{"", "node"} {
				for _, after := range []time.Time{{}, day(3)} {
					for _, before := range []string{"", "41"} {
						for _, limit := range []int{0, 1, 5} {
							f := store.Filter{Metadata: md, States: states, Template: template, CreatedAfter: after, Before: before, Limit: limit}
							if got, want := list(t, s, f), ids(selected(all, f)); got != want {
								t.Errorf("List(%+v) = %q, want %q", f, got, want)
							}
						}
					}
				}
			}
		}
	}
}

// selected gives the records that f selects.
func selected(all []store.Record, f store.Filter) (list []store.Record) {
	for _, r := range all {
		both := maps.Clone(r.Metadata)
		maps.Copy(both, f.Metadata)
		if maps.Equal(both, r.Metadata) &&
			(len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
			(f.Template == "" || r.Template == f.Template) &&
			(f.CreatedAfter.IsZero() || r.CreatedAt.After(f.CreatedAfter)) &&
			(f.Before == "" || r.ID < f.Before) &&
			(f.Limit == 0 || len(list) < f.Limit) {
			list = append(list, r)
		}
	}
	return list
}

// testPages goes through a list while records come, go and change: those that stay come once each.
func testPages(t *testing.T, s store.Store) {
	const last = 59
	for i := range last + 1 {
		add(t, s, store.Record{ID: fmt.Sprintf("%03d", i), State: "running"})
	}
	seen := map[string]int{}
	f := store.Filter{Limit: 4}
	for page := 0; ; page++ {
		records, err := s.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			seen[r.ID]++
		}
		first, end := records[0].ID, records[len(records)-1].ID
		add(t, s, store.Record{ID: fmt.Sprintf("9-%03d", page), State: "running"}) // newer than all
		for _, gone := range []string{first, end, before(end, 3)} {                // on this page, and ahead
			if _, err := s.Get(t.Context(), gone); err == nil {
				update(t, s, gone, func(r *store.Record) { r.State, r.EndedAt = "ended", day(1) })
			}
		}
		if _, err := s.Prune(t.Context(), day(2)); err != nil {
			t.Fatal(err)
		}
		f.Before = end
	}
	for i := range last + 1 {
		id := fmt.Sprintf("%03d", i)
		_, err := s.Get(t.Context(), id)
		if n := seen[id]; n > 1 || n == 0 && err == nil {
			t.Errorf("%s came %d times (%v)", id, n, err)
		}
	}
	if len(seen) > last+1 {
		t.Errorf("%d records came: newer ones as well", len(seen))
	}
}

// before is the id of testPages that comes n after id.
func before(id string, n int) string {
	i, _ := strconv.Atoi(id)
	return fmt.Sprintf("%03d", i-n)
}
