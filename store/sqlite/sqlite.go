// Package sqlite is a store in an SQLite file, which several processes can use at the same time. It needs
// no cgo of its own.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nestbox/nestbox/store"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// What SQLite's application_id and user_version say in a file of ours: whose it is, and the schema's version.
const (
	application = 0x6e657374 // "nest"
	version     = 1
)

// wait is how long is waited for another process's lock.
const wait = 10 * time.Second

// The records, and their metadata once more by key and value, to be found by. Times are ns since 1970, null none.
const schema = `
CREATE TABLE records (
	id       TEXT PRIMARY KEY,
	template TEXT NOT NULL,
	metadata TEXT NOT NULL,
	state    TEXT NOT NULL,
	created  INTEGER,
	expires  INTEGER,
	grace    INTEGER NOT NULL,
	ended    INTEGER,
	reason   TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX records_by_state ON records (state, id);
CREATE INDEX records_by_end ON records (ended) WHERE ended IS NOT NULL;
CREATE TABLE metadata (
	key   TEXT NOT NULL,
	value TEXT NOT NULL,
	id    TEXT NOT NULL,
	PRIMARY KEY (key, value, id)
) WITHOUT ROWID;
CREATE INDEX metadata_by_id ON metadata (id);
`

const columns = "id, template, metadata, state, created, expires, grace, ended, reason"

// Store is a store.Store in a file.
type Store struct {
	db      *sql.DB
	insert  *sql.Stmt     // of Add: to read the statement takes longer than to do it
	writing chan struct{} // full while there is a writer: the next one waits without a connection
}

var _ store.Store = (*Store)(nil)

// Open opens the file at path, and makes it if it isn't there. Its error is store.ErrCorrupt if the file is
// no store, or was damaged. What is written outlives a crash of the process, not always one of the machine.
func Open(path string) (*Store, error) {
	path, err := filepath.Abs(path) // else SQLite has its own idea of "", ":memory:" and "//"
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	options := url.Values{
		"_pragma": {fmt.Sprintf("busy_timeout(%d)", wait.Milliseconds()), "synchronous(NORMAL)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db.SetMaxOpenConns(2) // one can read while the other writes
	s := &Store{db: db, writing: make(chan struct{}, 1)}
	if err := s.migrate(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, reason(path, err)), db.Close())
	}
	s.insert, err = db.Prepare("INSERT INTO records (" + columns + ") VALUES (?,?,?,?,?,?,?,?,?)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, reason(path, err)), db.Close())
	}
	return s, nil
}

// reason is err, or why no file can be made next to path, if that is what SQLite's "unable to open" may mean.
func reason(path string, err error) error {
	if code(err) != sqlite3.SQLITE_CANTOPEN {
		return err
	}
	f, ferr := os.CreateTemp(filepath.Dir(path), ".store-*")
	if ferr == nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	var perr *fs.PathError
	if errors.As(ferr, &perr) {
		return perr.Err
	}
	return err
}

// useWAL has the file written by way of a log. That a file says for itself, so only the first to open it needs
// its lock, but SQLite doesn't wait for this one, and its lock can only be asked for again.
func (s *Store) useWAL(ctx context.Context) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		_, err := s.db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
		if code(err) != sqlite3.SQLITE_BUSY || time.Since(start) > wait {
			return err
		}
	}
}

// migrate makes the schema where there is none.
func (s *Store) migrate(ctx context.Context) error {
	empty, err := check(ctx, s.db)
	if err == nil {
		err = s.useWAL(ctx)
	}
	if err != nil || !empty {
		return known(err)
	}
	return s.change(ctx, func(tx *sql.Tx) error {
		if empty, err := check(ctx, tx); err != nil || !empty { // another process was faster
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("%s PRAGMA application_id = %d; PRAGMA user_version = %d", schema, application, version))
		return err
	})
}

// check tells whether a database is empty. It fails if it is neither that nor a store that we know.
func check(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (empty bool, err error) {
	var app, have, tables int
	row := db.QueryRowContext(ctx, "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id, pragma_user_version")
	if err := row.Scan(&app, &have, &tables); err != nil {
		return false, err
	}
	switch {
	case app == 0 && have == 0 && tables == 0:
		return true, nil
	case app != application:
		return false, fmt.Errorf("%w: the database is another program's", store.ErrCorrupt)
	case have > version:
		return false, fmt.Errorf("its version is %d, and this program knows up to %d: use a newer one", have, version)
	}
	return false, nil
}

// known is err with package store's errors for those of SQLite.
func known(err error) error {
	if err != nil && err.Error() == "sql: database is closed" { // database/sql has no name for it
		return store.ErrClosed
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %v", store.ErrCorrupt, err)
	case sqlite3.SQLITE_CONSTRAINT:
		return store.ErrExists
	}
	return err
}

// code is SQLite's code for an error, or SQLITE_OK for those that aren't SQLite's.
func code(err error) int {
	var serr *sqlite.Error
	if !errors.As(err, &serr) {
		return sqlite3.SQLITE_OK
	}
	return serr.Code() & 0xff
}

// Close implements store.Store.
func (s *Store) Close() error { return s.db.Close() }

// write runs f while no other writer of this Store does.
func (s *Store) write(ctx context.Context, f func() error) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
		return known(f())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// change runs f in a transaction.
func (s *Store) change(ctx context.Context, f func(*sql.Tx) error) error {
	return s.write(ctx, func() error {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // of no effect after Commit
		if err = f(tx); err == nil {
			err = tx.Commit()
		}
		if errors.Is(err, sql.ErrTxDone) { // ctx was, and has rolled it back
			return ctx.Err()
		}
		return err
	})
}

// Add implements store.Store.
func (s *Store) Add(ctx context.Context, r store.Record) error {
	values, err := encode(r)
	if err != nil {
		return err
	}
	// One statement is a transaction by itself, which takes half as long. Whether it was done one can't tell when ctx is.
	if len(r.Metadata) == 0 && ctx.Done() == nil {
		return s.write(ctx, func() error {
			_, err := s.insert.ExecContext(ctx, values...)
			return err
		})
	}
	return s.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.StmtContext(ctx, s.insert).ExecContext(ctx, values...); err != nil {
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

// Prune implements store.Store.
func (s *Store) Prune(ctx context.Context, t time.Time) (n int, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		const old = "ended < ?"
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
	var created, expires, ended sql.Null[int64]
	err = row.Scan(&r.ID, &r.Template, &md, &r.State, &created, &expires, &r.Grace, &ended, &r.EndReason)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, err
	}
	if md != "{}" {
		if err := json.Unmarshal([]byte(md), &r.Metadata); err != nil {
			return store.Record{}, fmt.Errorf("%w: metadata of %s: %v", store.ErrCorrupt, r.ID, err)
		}
	}
	r.CreatedAt, r.ExpiresAt, r.EndedAt = fromNanos(created), fromNanos(expires), fromNanos(ended)
	return r, nil
}

// The times that an int64 of nanoseconds can be, in 1677 and 2262.
var (
	first = time.Unix(0, math.MinInt64)
	last  = time.Unix(0, math.MaxInt64)
)

func nanos(t time.Time) sql.Null[int64] {
	switch {
	case t.IsZero():
		return sql.Null[int64]{}
	case t.Before(first):
		t = first
	case t.After(last):
		t = last
	}
	return sql.Null[int64]{V: t.UnixNano(), Valid: true}
}

func fromNanos(n sql.Null[int64]) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.V).UTC()
}
