// Package sqlite is a store in an SQLite file, which several processes can use at the same time. It needs
// no cgo of its own.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nestbox/nestbox/store"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// version is the schema's, in SQLite's user_version.
const version = 1

// The records, and their metadata once more by key and value, to be found by. Times are ns since 1970, 0 none.
const schema = `
CREATE TABLE IF NOT EXISTS records (
	id       TEXT PRIMARY KEY,
	template TEXT NOT NULL,
	metadata TEXT NOT NULL,
	state    TEXT NOT NULL,
	created  INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	grace    INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	reason   TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_state ON records (state, id);
CREATE INDEX IF NOT EXISTS records_by_end ON records (ended) WHERE ended > 0;
CREATE TABLE IF NOT EXISTS metadata (
	key   TEXT NOT NULL,
	value TEXT NOT NULL,
	id    TEXT NOT NULL,
	PRIMARY KEY (key, value, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metadata_by_id ON metadata (id);
`

const columns = "id, template, metadata, state, created, expires, grace, ended, reason"

// Store is a store.Store in a file.
type Store struct{ db *sql.DB }

var _ store.Store = (*Store)(nil)

// Open opens the file at path, and makes it if it isn't there. Its error is store.ErrCorrupt if the file is
// no store, or was damaged. What is written outlives a crash of the process, not always one of the machine.
func Open(path string) (*Store, error) {
	options := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db.SetMaxOpenConns(2) // one can read while the other writes
	if err := migrate(db); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
	}
	return &Store{db}, nil
}

func migrate(db *sql.DB) error {
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return known(err)
	}
	switch {
	case have == version:
		return nil
	case have > version:
		return fmt.Errorf("its version is %d, and this program knows up to %d: use a newer one", have, version)
	}
	_, err := db.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT", schema, version))
	return known(err)
}

// known is err with package store's errors for those of SQLite.
func known(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	if err != nil && err.Error() == "sql: database is closed" { // database/sql has no name for it
		return store.ErrClosed
	}
	var serr *sqlite.Error
	if errors.As(err, &serr) {
		switch serr.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: %v", store.ErrCorrupt, err)
		case sqlite3.SQLITE_CONSTRAINT:
			return store.ErrExists
		}
	}
	return err
}

// Close implements store.Store.
func (s *Store) Close() error { return s.db.Close() }

// change runs f in a transaction.
func (s *Store) change(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return known(err)
	}
	defer tx.Rollback() // of no effect after Commit
	if err := f(tx); err != nil {
		return known(err)
	}
	return known(tx.Commit())
}

// Add implements store.Store.
func (s *Store) Add(ctx context.Context, r store.Record) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		values, err := encode(r)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO records ("+columns+") VALUES (?,?,?,?,?,?,?,?,?)", values...); err != nil {
			return err
		}
		return addMetadata(ctx, tx, r)
	})
}

func addMetadata(ctx context.Context, tx *sql.Tx, r store.Record) error {
	for k, v := range r.Metadata {
		if _, err := tx.ExecContext(ctx, "INSERT INTO metadata (key, value, id) VALUES (?,?,?)", k, v, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (store.Record, error) {
	r, err := decode(s.db.QueryRowContext(ctx, "SELECT "+columns+" FROM records WHERE id = ?", id))
	return r, known(err)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, id string, change func(*store.Record) error) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		r, err := decode(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM records WHERE id = ?", id))
		if err != nil {
			return err
		}
		before := maps.Clone(r.Metadata)
		if err := change(&r); err != nil {
			return err
		}
		values, err := encode(r)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "REPLACE INTO records ("+columns+") VALUES (?,?,?,?,?,?,?,?,?)", values...); err != nil {
			return err
		}
		if maps.Equal(before, r.Metadata) {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM metadata WHERE id = ?", id); err != nil {
			return err
		}
		return addMetadata(ctx, tx, r)
	})
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, f store.Filter) ([]store.Record, error) {
	query, args := "SELECT "+columns+" FROM records WHERE 1", []any{}
	and := func(clause string, values ...any) {
		query += " AND " + clause
		args = append(args, values...)
	}
	if len(f.States) > 0 {
		and("state IN (?" + strings.Repeat(",?", len(f.States)-1) + ")")
		for _, state := range f.States {
			args = append(args, state)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(f.Metadata)) {
		and("id IN (SELECT id FROM metadata WHERE key = ? AND value = ?)", k, f.Metadata[k])
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

// Prune implements store.Store.
func (s *Store) Prune(ctx context.Context, t time.Time) (n int, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		const old = "ended > 0 AND ended < ?"
		if _, err := tx.ExecContext(ctx, "DELETE FROM metadata WHERE id IN (SELECT id FROM records WHERE "+old+")", nanos(t)); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "DELETE FROM records WHERE "+old, nanos(t))
		if err != nil {
			return err
		}
		deleted, err := res.RowsAffected()
		n = int(deleted)
		return err
	})
	return n, err
}

// encode gives a record's columns.
func encode(r store.Record) ([]any, error) {
	md := []byte("{}")
	if len(r.Metadata) > 0 {
		var err error
		if md, err = json.Marshal(r.Metadata); err != nil {
			return nil, err
		}
	}
	return []any{r.ID, r.Template, string(md), r.State, nanos(r.CreatedAt), nanos(r.ExpiresAt), int64(r.Grace),
		nanos(r.EndedAt), r.EndReason}, nil
}

// decode reads a record from a row.
func decode(row interface{ Scan(...any) error }) (r store.Record, err error) {
	var md string
	var created, expires, grace, ended int64
	if err := row.Scan(&r.ID, &r.Template, &md, &r.State, &created, &expires, &grace, &ended, &r.EndReason); err != nil {
		return store.Record{}, err
	}
	if md != "{}" {
		if err := json.Unmarshal([]byte(md), &r.Metadata); err != nil {
			return store.Record{}, fmt.Errorf("%w: metadata of %s: %v", store.ErrCorrupt, r.ID, err)
		}
	}
	r.CreatedAt, r.ExpiresAt, r.EndedAt = fromNanos(created), fromNanos(expires), fromNanos(ended)
	r.Grace = time.Duration(grace)
	return r, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
