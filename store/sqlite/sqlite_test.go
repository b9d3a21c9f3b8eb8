package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/sqlite"
	"github.com/nestbox/nestbox/store/storetest"
)

// open opens a store, and closes it when the test ends.
func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func tempFile(t testing.TB) string { return filepath.Join(t.TempDir(), "store.db") }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, tempFile(t)) })
}

func TestReopen(t *testing.T) {
	path := tempFile(t)
	want := store.Record{
		ID: "a", Template: "base", State: "ended", Metadata: map[string]string{"user": "42"},
		CreatedAt: time.Unix(1, 1).UTC(), ExpiresAt: time.Unix(2, 2).UTC(), Grace: 3, EndedAt: time.Unix(4, 4).UTC(), EndReason: "closed",
	}
	s := open(t, path)
	if err := s.Add(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s := open(t, path)
		got, err := s.List(t.Context(), store.Filter{Metadata: want.Metadata})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		want.Grace++
		err = s.Update(t.Context(), "a", func(r *store.Record) error {
			r.Grace++
			return nil
		})
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("a closed store is %v, %v; want one file", left, err)
	}
}

// count adds 1 to a record's Grace, n times.
func count(ctx context.Context, s *sqlite.Store, n int) error {
	for range n {
		err := s.Update(ctx, "counter", func(r *store.Record) error {
			r.Grace++
			r.Metadata = map[string]string{"n": strconv.Itoa(int(r.Grace))}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func init() {
	helpers["count"] = func(args []string) error { // <path> <n>
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		s, err := sqlite.Open(args[0])
		if err != nil {
			return err
		}
		return errors.Join(count(context.Background(), s, n), s.Close())
	}
	helpers["add"] = func(args []string) error { // <id>: adds it to the store at each path that it reads
		for paths := bufio.NewScanner(os.Stdin); paths.Scan(); {
			if err := addOne(paths.Text(), args[0]); err != nil {
				return err
			}
			fmt.Println("added")
		}
		return nil
	}
	helpers["fill"] = func(args []string) error { // <path>: adds records for ever, prints the id of each
		s, err := sqlite.Open(args[0])
		for i := 0; err == nil; i++ {
			id := fmt.Sprintf("%06d", i)
			if err = s.Add(context.Background(), store.Record{ID: id, Metadata: map[string]string{"id": id}}); err == nil {
				_, err = fmt.Println(id)
			}
		}
		return err
	}
}

// TestWriters has two processes and two Stores in this one write to one file at the same time.
func TestWriters(t *testing.T) {
	const each = 200
	path := tempFile(t)
	stores := []*sqlite.Store{open(t, path), open(t, path)}
	if err := stores[0].Add(t.Context(), store.Record{ID: "counter"}); err != nil {
		t.Fatal(err)
	}
	processes := []*process{
		helper(t, "count", path, strconv.Itoa(each)).start(t),
		helper(t, "count", path, strconv.Itoa(each)).start(t),
	}
	var wg sync.WaitGroup
	for _, s := range stores {
		wg.Go(func() {
			if err := count(t.Context(), s, each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, p := range processes {
		if err := p.Wait(); err != nil {
			t.Errorf("helper: %v", err)
		}
	}
	for _, s := range stores {
		got, err := s.Get(t.Context(), "counter")
		if err != nil || got.Grace != 4*each || got.Metadata["n"] != strconv.Itoa(4*each) {
			t.Errorf("counted to %d (%v), %v; want %d", got.Grace, got.Metadata, err, 4*each)
		}
	}
}

// addOne opens a store, adds a record, and closes it.
func addOne(path, id string) error {
	s, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(s.Add(context.Background(), store.Record{ID: id}), s.Close())
}

// TestOpenAtOnce opens files that aren't there yet from three processes and six goroutines of this one.
func TestOpenAtOnce(t *testing.T) {
	var processes []*process
	for i := range 3 {
		processes = append(processes, helper(t, "add", fmt.Sprint("process ", i)).start(t))
	}
	dir := t.TempDir()
	for round := range 30 {
		path := filepath.Join(dir, strconv.Itoa(round))
		for _, p := range processes {
			if _, err := fmt.Fprintln(p.stdin, path); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if err := addOne(path, fmt.Sprint("goroutine ", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, p := range processes {
			p.line(t)
		}
		s := open(t, path)
		list, err := s.List(t.Context(), store.Filter{})
		if err := errors.Join(err, s.Close()); err != nil || len(list) != 9 {
			t.Errorf("%d records, %v; want 9", len(list), err)
		}
	}
}

// TestKilled kills a process as it writes. What it was told is kept.
func TestKilled(t *testing.T) {
	path := tempFile(t)
	for round := range 5 {
		path := path + strconv.Itoa(round)
		p := helper(t, "fill", path).start(t)
		var last string
		for range 50 * (round + 1) {
			last = p.line(t)
		}
		p.kill()
		s := open(t, path)
		list, err := s.List(t.Context(), store.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range list {
			if want := fmt.Sprintf("%06d", len(list)-1-i); r.ID != want || r.Metadata["id"] != want {
				t.Fatalf("got %+v, want %s", r, want)
			}
		}
		if len(list) == 0 || list[0].ID < last {
			t.Errorf("got %d records, want all up to %s", len(list), last)
		}
		if _, err := s.Get(t.Context(), last); err != nil {
			t.Error(err)
		}
	}
}

// TestWait holds the file's lock in one Store: in another, all can read, and those who would write wait no
// longer than their contexts.
func TestWait(t *testing.T) {
	path := tempFile(t)
	s, other := open(t, path), open(t, path)
	if err := other.Add(t.Context(), store.Record{ID: "counter"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg, started sync.WaitGroup
	err := other.Update(t.Context(), "counter", func(*store.Record) error {
		for range 8 {
			started.Add(1)
			wg.Go(func() {
				started.Done()
				if err := count(ctx, s, 1); !errors.Is(err, context.Canceled) {
					t.Errorf("Update = %v, want Canceled", err)
				}
			})
		}
		started.Wait()
		for range 1000 {
			within, cancel := context.WithTimeout(t.Context(), 5*time.Second) // less than SQLite waits for a lock
			_, err := s.Get(within, "counter")
			cancel()
			if err != nil {
				t.Errorf("Get: %v", err)
				break
			}
		}
		cancel()
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := count(t.Context(), s, 1); err != nil {
		t.Error(err)
	}
	if r, err := s.Get(t.Context(), "counter"); err != nil || r.Grace != 1 {
		t.Errorf("counted to %d, %v; want 1", r.Grace, err)
	}
}

// content is a store's file with some records in it.
func content(t *testing.T) []byte {
	t.Helper()
	path := tempFile(t)
	s := open(t, path)
	for i := range 300 {
		if err := s.Add(t.Context(), store.Record{ID: strconv.Itoa(i), State: "running", Metadata: map[string]string{"user": strconv.Itoa(i % 7)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// use does with a store what shows damage.
func use(ctx context.Context, path string) error {
	s, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	_, lerr := s.List(ctx, store.Filter{})
	_, merr := s.List(ctx, store.Filter{States: []string{"running"}, Metadata: map[string]string{"user": "3"}})
	return errors.Join(lerr, merr, s.Close())
}

func TestCorrupt(t *testing.T) {
	data := content(t)
	const page = 4096
	changed := func(at int, with ...byte) []byte {
		b := bytes.Clone(data)
		copy(b[at:], with)
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		want error
	}{
		{"sound", data, nil},
		{"empty", nil, nil},
		{"garbage", bytes.Repeat([]byte("not a database\n"), 1000), store.ErrCorrupt},
		{"a little garbage", []byte("not a database, and short\n"), store.ErrCorrupt},
		{"zeros", make([]byte, len(data)), store.ErrCorrupt},
		{"magic flipped", changed(0, data[0]^1), store.ErrCorrupt},
		{"page size flipped", changed(16, data[16]^0xff), store.ErrCorrupt},
		{"file format flipped", changed(18, data[18]^0x80, data[19]^0x80), store.ErrCorrupt},
		{"application flipped", changed(68, data[68]^1), store.ErrCorrupt},
		{"schema gone", changed(100, make([]byte, page-100)...), store.ErrCorrupt},
		{"other pages gone", changed(page, make([]byte, len(data)-page)...), store.ErrCorrupt},
		{"cut in the header", data[:50], store.ErrCorrupt},
		{"cut after the header", data[:100], store.ErrCorrupt},
		{"cut in the first page", data[:page/2], store.ErrCorrupt},
		{"cut after the first page", data[:page], store.ErrCorrupt},
		{"cut in half", data[:len(data)/2], store.ErrCorrupt},
		{"the last page gone", data[:len(data)-page], store.ErrCorrupt},
	} {
		path := tempFile(t)
		if err := os.WriteFile(path, tt.data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := use(t.Context(), path); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestFlipped flips one byte at a time. Whatever that does, it is told, and nothing else happens.
func TestFlipped(t *testing.T) {
	data := content(t)
	path := tempFile(t)
	corrupt := 0
	for at := 0; at < len(data); at += 997 {
		b := bytes.Clone(data)
		b[at] ^= 0x55
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := use(t.Context(), path); errors.Is(err, store.ErrCorrupt) {
			corrupt++
		} else if err != nil {
			t.Logf("byte %d: %v", at, err)
		}
	}
	if corrupt == 0 {
		t.Errorf("no damage was found")
	}
}

// TestForeign opens what is sound, but not for us. It is left as it was.
func TestForeign(t *testing.T) {
	for _, tt := range []struct {
		name, sql string
		corrupt   bool
	}{
		{"another program's", "CREATE TABLE t (x)", true},
		{"another program's, with a version", "CREATE TABLE t (x); PRAGMA user_version = 1", true},
		{"another program's, with the same tables", "CREATE TABLE records (id); CREATE TABLE metadata (id)", true},
		{"a newer version's", "PRAGMA application_id = 0x6e657374; CREATE TABLE t (x); PRAGMA user_version = 2", false},
	} {
		path := tempFile(t)
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(tt.sql); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(path)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", tt.name)
		} else if errors.Is(err, store.ErrCorrupt) != tt.corrupt {
			t.Errorf("%s: %v; corrupt: want %v", tt.name, err, tt.corrupt)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: the file was changed (%v)", tt.name, err)
		}
	}
}

func TestPath(t *testing.T) {
	for _, name := range []string{
		"a?mode=memory", "a%3fb", "100%", "a#b", "with spaces ", "größe", "a;b&c=d", `back\slash`, "new\nline",
		":memory:", "file:a", "~",
	} {
		for _, relative := range []bool{false, true} {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			if relative {
				t.Chdir(dir)
				path = name
			}
			s := open(t, path)
			t.Chdir("/") // it goes on to be the file that it was
			err := s.Add(t.Context(), store.Record{ID: "a"})
			if err := errors.Join(err, s.Close()); err != nil {
				t.Errorf("%q: %v", path, err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != name {
				t.Errorf("%q: the directory has %v, %v", path, entries, err)
			}
			if _, err := open(t, filepath.Join(dir, name)).Get(t.Context(), "a"); err != nil {
				t.Errorf("%q: opened again: %v", path, err)
			}
		}
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, tt := range []struct {
		name, path string
		want       error // nil: any
	}{
		{"no directory", filepath.Join(dir, "none", "store.db"), fs.ErrNotExist},
		{"in a file", filepath.Join(dir, "file", "store.db"), nil},
		{"a directory", dir, nil},
		{"no name", "", nil},
	} {
		s, err := sqlite.Open(tt.path)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", tt.name)
		} else if errors.Is(err, store.ErrCorrupt) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v; want one file", entries, err)
	}
}

// TestMany compares what is found among many records with what a Memory finds. Some of the conditions hold
// for so many that another has to come first.
func TestMany(t *testing.T) {
	var memory store.Memory
	s := open(t, tempFile(t))
	for i := range 2200 {
		r := store.Record{ID: fmt.Sprintf("%06d", i), State: "ended", Metadata: map[string]string{"all": "yes", "user": strconv.Itoa(i % 100)}}
		if i%50 == 0 {
			r.State = "running"
		}
		if i < 100 {
			r.Metadata["old"] = "yes"
		}
		if err := errors.Join(memory.Add(t.Context(), r), s.Add(t.Context(), r)); err != nil {
			t.Fatal(err)
		}
	}
	for _, md := range []map[string]string{
		nil, {"all": "yes"}, {"user": "50"}, {"old": "yes"}, {"all": "yes", "user": "50"}, {"all": "yes", "old": "yes", "user": "7"}, {"all": "yes", "none": ""},
	} {
		for _, states := range [][]string{nil, {"running"}, {"ended"}, {"ended", "running"}, {"running", "paused"}, {"paused"}} {
			f := store.Filter{Metadata: md, States: states, Before: "002100", Limit: 70}
			want, err := memory.List(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.List(t.Context(), f); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("List(%+v): %d records, %v; want %d", f, len(got), err, len(want))
			}
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	s := open(b, tempFile(b))
	for i := 0; b.Loop(); i++ {
		if err := s.Add(b.Context(), store.Record{ID: strconv.Itoa(i), Metadata: map[string]string{"user": "42"}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList looks for records among 1 000 running and 100 000 ended ones.
func BenchmarkList(b *testing.B) {
	s := open(b, tempFile(b))
	for i := range 101_000 {
		r := store.Record{ID: fmt.Sprintf("%012d", i), State: "ended", EndedAt: time.Unix(int64(i), 0),
			Metadata: map[string]string{"env": "prod", "user": strconv.Itoa(i % 1000), "job": strconv.Itoa(i)}}
		if i%101 == 50 {
			r.State, r.EndedAt = "running", time.Time{}
		}
		if err := s.Add(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	for _, bb := range []struct {
		name   string
		md     map[string]string
		states []string
	}{
		{"running", nil, []string{"running"}},
		{"running/of one user", map[string]string{"user": "7"}, []string{"running"}},
		{"running/in all", map[string]string{"env": "prod"}, []string{"running"}},
		{"running/in none", map[string]string{"env": "test"}, []string{"running"}},
		{"running/two", map[string]string{"env": "prod", "user": "7"}, []string{"running"}},
		{"living/in all", map[string]string{"env": "prod"}, []string{"running", "paused"}},
		{"ended", nil, []string{"ended"}},
		{"ended/of one user", map[string]string{"user": "7"}, []string{"ended"}},
		{"ended/of one job", map[string]string{"job": "7"}, []string{"ended"}},
		{"ended/in all", map[string]string{"env": "prod"}, []string{"ended"}},
		{"ended/two", map[string]string{"env": "prod", "user": "7"}, []string{"ended"}},
		{"ended/one of two", map[string]string{"env": "prod", "user": "none"}, []string{"ended"}},
		{"any/two", map[string]string{"env": "prod", "user": "7"}, nil},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(b.Context(), store.Filter{Metadata: bb.md, States: bb.states, Limit: 100}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
