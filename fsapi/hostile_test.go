package fsapi_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/fsapi"
)

// hostile is an agent that was taken over: it answers the same over and over.
type hostile struct {
	fsapi.Agent // what isn't set panics

	stat    fsapi.Stat
	path    string // what Open opens
	entries []fsapi.Entry
	wd      func() int32
	events  []fsapi.RawEvent
}

func (h *hostile) Open(string, int, uint32) (*os.File, error) { return os.Open(h.path) }
func (h *hostile) Stat(string) (fsapi.Stat, error)            { return h.stat, nil }
func (h *hostile) Lstat(string) (fsapi.Stat, error)           { return h.stat, nil }
func (h *hostile) Fstat(*os.File) (fsapi.Stat, error)         { return h.stat, nil }
func (h *hostile) ReadDir(*os.File) ([]fsapi.Entry, error)    { return h.entries, nil }
func (h *hostile) Readlink(string) (string, error)            { return "loop", nil }
func (h *hostile) Watch() (fsapi.Watcher, error)              { return hostileWatch{h}, nil }
func (h *hostile) Gone() <-chan struct{}                      { return nil }
func (h *hostile) Err() error                                 { return nil }

type hostileWatch struct{ *hostile }

func (w hostileWatch) Add(string, bool) (int32, error) { return w.wd(), nil }
func (w hostileWatch) Remove(int32) error              { return nil }
func (w hostileWatch) Next() ([]fsapi.RawEvent, error) { return w.events, nil }
func (w hostileWatch) Close() error                    { return nil }

const (
	regular   = 0o100644
	directory = 0o040755
	symlink   = 0o120777

	dirEntry  = 4
	fileEntry = 8
)

func counter() func() int32 {
	n := int32(0)
	return func() int32 { n++; return n }
}

// within runs f, and fails if it doesn't end.
func within(t *testing.T, d time.Duration, f func() error) (err error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err = <-done:
	case <-time.After(d):
		t.Fatal("does not end")
	}
	return err
}

func watchError(ctx context.Context, h *hostile, events int) (err error) {
	for _, err = range fsapi.New(h).Watch(ctx, "d", true) {
		if events--; events < 0 {
			break
		}
	}
	return err
}

// TestHostileAgent checks that nothing goes on for ever, or takes memory without bound, whatever is answered.
func TestHostileAgent(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("short"), 0o644); err != nil {
		t.Fatal(err)
	}
	many := func(typ uint8) (list []fsapi.Entry) {
		for range 1000 {
			list = append(list, fsapi.Entry{Name: "again", Type: typ})
		}
		return list
	}
	one := []fsapi.Entry{{Name: "d", Type: dirEntry}}
	isDir := fsapi.Stat{Mode: directory}
	tests := []struct {
		name string
		do   func() error
		want error
	}{
		{"directory without an end", func() error {
			_, err := fsapi.New(&hostile{path: dir, entries: many(fileEntry)}).ReadDir("d")
			return err
		}, syscall.EFBIG},
		{"watched tree that is endlessly deep", func() error {
			return watchError(t.Context(), &hostile{stat: isDir, path: dir, entries: one, wd: counter(), events: []fsapi.RawEvent{{WD: 1, Mask: 0x8000}}}, 10)
		}, syscall.ENOSPC},
		{"watched tree in itself", func() error {
			return watchError(t.Context(), &hostile{stat: isDir, path: dir, entries: many(dirEntry), wd: func() int32 { return 1 }}, 10)
		}, syscall.ENOSPC},
		{"watched directories without an end", func() error {
			return watchError(t.Context(), &hostile{stat: isDir, path: dir, entries: many(dirEntry), wd: counter()}, 10)
		}, syscall.ENOSPC},
		{"watched directory without an end", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			return watchError(ctx, &hostile{stat: isDir, path: dir, entries: many(fileEntry), wd: counter()}, 10)
		}, context.DeadlineExceeded},
		{"watched links in a circle", func() error {
			h := &hostile{stat: fsapi.Stat{Mode: symlink}, path: dir, wd: counter()}
			return watchError(t.Context(), h, 10)
		}, syscall.ELOOP},
		{"archive that is endlessly deep", func() error {
			return fsapi.New(&hostile{stat: isDir, path: dir, entries: one}).WriteTar("d", io.Discard)
		}, syscall.ENAMETOOLONG},
		{"archived file shorter than said", func() error {
			h := &hostile{stat: fsapi.Stat{Mode: regular, Size: 1 << 40}, path: file, entries: []fsapi.Entry{{Name: "f", Type: fileEntry}}}
			return fsapi.New(h).WriteTar("d", io.Discard)
		}, io.ErrUnexpectedEOF},
		{"archived file of less than nothing", func() error {
			h := &hostile{stat: fsapi.Stat{Mode: regular, Size: -1}, path: file, entries: []fsapi.Entry{{Name: "f", Type: fileEntry}}}
			return fsapi.New(h).WriteTar("d", io.Discard)
		}, fs.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := within(t, 20*time.Second, tt.do); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Events of what isn't watched, and with bits that mean nothing, do no harm.
func TestHostileEvents(t *testing.T) {
	h := &hostile{stat: fsapi.Stat{Mode: directory}, path: t.TempDir(), wd: func() int32 { return 7 }}
	for mask := uint32(1); mask != 0; mask <<= 1 {
		for _, wd := range []int32{-1, 0, 7, 8} {
			h.events = append(h.events, fsapi.RawEvent{WD: wd, Mask: mask, Name: "x"}, fsapi.RawEvent{WD: wd, Mask: mask | 0x40000000, Name: "x"})
		}
	}
	h.events = append(h.events, fsapi.RawEvent{WD: 7, Mask: 0x8000}) // the end
	n := 0
	err := within(t, 20*time.Second, func() error {
		for e, err := range fsapi.New(h).Watch(t.Context(), "d", false) {
			if n++; err != nil {
				return err
			}
			if e.Op < fsapi.Create || e.Op > fsapi.Overflow || e.Name != "d/x" && e.Name != "d" {
				t.Errorf("told %v", e)
			}
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d events, %v", n, err)
	}
}
