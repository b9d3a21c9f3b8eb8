package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nestbox/nestbox/lease"
)

// maxEvents is how large the file of events grows, in bytes, before another is begun.
const maxEvents = 4 << 20

// eventLog is the state directory's file of events, to which every engine appends. One write is one line, which
// O_APPEND keeps whole, see open(2).
type eventLog struct {
	mu     sync.Mutex
	f      *os.File // nil: not open
	closed bool
}

// emit tells all who listen what happened. That an event can't be written is no reason for what happened to fail.
func (e *Engine) emit(ev lease.Event) {
	ev.At = time.Now().UTC()
	line, err := json.Marshal(ev)
	if err == nil {
		err = e.events.append(e.state, append(line, '\n'))
	}
	if err != nil {
		e.log.Warn("write event", "sandbox", ev.ID, "event", ev.Kind, "error", err)
	}
}

func (l *eventLog) append(s stateDir, line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := l.openLocked(s); err != nil {
		return err
	}
	_, err := l.f.Write(line)
	return err
}

// openLocked opens the file that is the log now: another engine may have begun another.
func (l *eventLog) openLocked(s stateDir) error {
	path := s.path(eventsFile)
	if l.f != nil {
		fi, err := l.f.Stat()
		now, nerr := os.Stat(path)
		if err == nil && nerr == nil && os.SameFile(fi, now) {
			if fi.Size() < maxEvents {
				return nil
			}
			if err := s.rotateEvents(fi); err != nil {
				return err
			}
		}
		_ = l.f.Close()
		l.f = nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l.f = f
	return nil
}

// rotateEvents puts a full file aside, unless another engine has.
func (s stateDir) rotateEvents(full fs.FileInfo) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	path := s.path(eventsFile)
	if fi, err := os.Stat(path); err != nil || !os.SameFile(fi, full) {
		return nil
	}
	return os.Rename(path, path+".old")
}

func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = closeFile(l.f)
	l.f, l.closed = nil, true
}

// Events gives what happens to the sandboxes of the state directory, in whichever process, from when it is
// called until ctx is done or the engine is closed. Who reads slowly misses nothing but what is two files of 4 MiB
// back. The end of a sandbox is told when it is noticed, which takes up to a second.
//
// The events are for one loop: what it was given isn't given again. If the state directory can't be watched, there
// are none, and Options.Logger is told why.
func (e *Engine) Events(ctx context.Context) iter.Seq[lease.Event] {
	r := &eventReader{dir: e.state}
	err := r.open()
	if err == nil {
		_, err = r.f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		e.log.Error("watch events: does fs.inotify.max_user_instances leave room?", "error", err)
		r.close()
		return func(func(lease.Event) bool) {}
	}
	return func(yield func(lease.Event) bool) {
		defer r.close()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.background, cancel)()
		for ctx.Err() == nil {
			for ev, ok := r.next(); ok; ev, ok = r.next() {
				if !yield(ev) {
					return
				}
			}
			if err := r.wait(ctx); err != nil {
				if ctx.Err() == nil && !errors.Is(err, os.ErrClosed) { // closed: a second loop
					e.log.Error("wait for events", "error", err)
				}
				return
			}
		}
	}
}

// eventReader reads the file of events as it grows.
type eventReader struct {
	dir   stateDir
	f     *os.File
	watch *watch
	buf   []byte // read, and not yet a whole line
}

func (r *eventReader) open() error {
	w, err := watchDir(filepath.Dir(r.dir.path(eventsFile))) // before the file is looked at, so that nothing is missed
	if err != nil {
		return err
	}
	r.watch = w
	return r.reopen()
}

func (r *eventReader) reopen() error {
	f, err := os.OpenFile(r.dir.path(eventsFile), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_ = closeFile(r.f)
	r.f, r.buf = f, nil
	return nil
}

func (r *eventReader) close() {
	_ = closeFile(r.f)
	if r.watch != nil {
		r.watch.close()
	}
}

// next gives the next event that has been written.
func (r *eventReader) next() (ev lease.Event, ok bool) {
	for {
		line, rest, found := bytes.Cut(r.buf, []byte{'\n'})
		if found {
			r.buf = rest
			if json.Unmarshal(line, &ev) == nil {
				return ev, true
			}
			continue
		}
		if !r.read() {
			return lease.Event{}, false
		}
	}
}

// read reads on, in the next file if one was begun and this is read to its end.
func (r *eventReader) read() bool {
	chunk := make([]byte, 16<<10)
	n, _ := r.f.Read(chunk)
	if n > 0 {
		r.buf = append(r.buf, chunk[:n]...)
		return true
	}
	fi, err := r.f.Stat()
	now, nerr := os.Stat(r.dir.path(eventsFile))
	if err != nil || nerr != nil || os.SameFile(fi, now) {
		return false
	}
	if n, _ := r.f.Read(chunk); n > 0 { // written before the other file was begun
		r.buf = append(r.buf, chunk[:n]...)
		return true
	}
	return r.reopen() == nil
}

// wait waits until something was written.
func (r *eventReader) wait(ctx context.Context) error {
	return r.watch.wait(ctx)
}
