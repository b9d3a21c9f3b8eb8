package sqlite

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nestbox/nestbox/store"
)

// List implements store.Store.
func (s *Store) List(ctx context.Context, f store.Filter) ([]store.Record, error) {
	conds := conditions(f)
	from, err := s.rarest(ctx, conds)
	if err != nil {
		return nil, known(err)
	}
	query, args := plan(f, conds, from)
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, known(err)
	}
	defer rows.Close()
	var list []store.Record
	for rows.Next() {
		r, err := decode(rows)
		if err != nil {
			return nil, known(err)
		}
		list = append(list, r)
	}
	return list, known(rows.Err())
}

// condition is a part of a filter that there is an index for.
type condition struct {
	rows   string // where the ids are of all that it holds for
	sorted bool   // whether the index gives them in their order
	holds  string // whether it holds for one of records
	args   []any  // of rows, and of holds
}

func conditions(f store.Filter) (list []condition) {
	for _, k := range slices.Sorted(maps.Keys(f.Metadata)) {
		list = append(list, condition{
			rows:   "metadata WHERE key = ? AND value = ?",
			sorted: true,
			holds:  "EXISTS (SELECT 1 FROM metadata WHERE key = ? AND value = ? AND id = records.id)",
			args:   []any{k, f.Metadata[k]},
		})
	}
	if len(f.States) > 0 {
		in := "state IN (?" + strings.Repeat(",?", len(f.States)-1) + ")"
		c := condition{rows: "records WHERE " + in, sorted: len(f.States) == 1, holds: "+" + in} // +: without the index
		for _, state := range f.States {
			c.args = append(c.args, state)
		}
		list = append(list, c)
	}
	return list
}

// many is how far rarest counts.
const many = 2048

// rarest gives the index of the condition to begin with, or -1 to go through all records. SQLite can't know
// it: a host has few running sandboxes and remembers many that ended, and what is in the metadata of one may be
// in that of all.
func (s *Store) rarest(ctx context.Context, conds []condition) (int, error) {
	best, least := -1, many
	for i, c := range conds {
		var n int
		query := fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM %s LIMIT %d)", c.rows, many)
		if err := s.db.QueryRowContext(ctx, query, c.args...).Scan(&n); err != nil {
			return 0, err
		}
		if n < least || best < 0 && c.sorted {
			best, least = i, n
		}
	}
	return best, nil
}

// plan gives the query for a filter that begins with one of its conditions, or with none if from is -1.
func plan(f store.Filter, conds []condition, from int) (query string, args []any) {
	query = "SELECT " + columns + " FROM "
	if from >= 0 {
		query += "(SELECT id FROM " + conds[from].rows + ") CROSS JOIN records USING (id) WHERE 1"
		args = append(args, conds[from].args...)
	} else {
		query += "records WHERE 1"
	}
	and := func(clause string, values ...any) {
		query += " AND " + clause
		args = append(args, values...)
	}
	for i, c := range conds {
		if i != from {
			and(c.holds, c.args...)
		}
	}
	if f.Template != "" {
		and("template = ?", f.Template)
	}
	if !f.CreatedAfter.IsZero() {
		and("created > ?", nanos(f.CreatedAfter))
	}
	if f.Before != "" {
		and("id < ?", f.Before)
	}
	query += " ORDER BY id DESC"
	if f.Limit > 0 {
		query += " LIMIT ?"
		args = append(args, f.Limit)
	}
	return query, args
}
