package fsapi

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// MaxWatch is how many directories a recursive Watch takes in. One more is an error (syscall.ENOSPC).
const MaxWatch = 1 << 17

// WatchOp is what has happened to a file.
type WatchOp uint8

const (
	Create   WatchOp = iota + 1 // the name is new, made or renamed to
	Write                       // the content, or its size, was changed
	Remove                      // the name was removed
	Rename                      // the name is gone, as it was renamed: if to one that is watched, that is a Create
	Chmod                       // permission, owner, times or extended attributes were changed
	Overflow                    // events were lost: look at all that is watched
)

func (op WatchOp) String() string {
	names := [...]string{"0", "create", "write", "remove", "rename", "chmod", "overflow"}
	if int(op) < len(names) {
		return names[op]
	}
	return strconv.Itoa(int(op))
}

// WatchEvent tells of a change.
type WatchEvent struct {
	Op WatchOp
	// Name is what was changed: the name that Watch was given, or that with a slash and the rest. With
	// Overflow it is what Watch was given.
	Name string
}

// Watcher is a watch that the agent keeps.
type Watcher interface {
	// Add adds a directory, and gives a number for it, which is the one it had if it is there already.
	Add(name string, nofollow bool) (int32, error)
	Remove(wd int32) error
	// Next waits for events. Their names are single elements, or empty.
	Next() ([]RawEvent, error)
	// Close ends the watch, also a Next that waits.
	Close() error
}

// RawEvent is an event of inotify(7).
type RawEvent struct {
	WD   int32
	Mask uint32
	Name string // of an entry of the directory WD; empty: itself
}

// The bits of a mask, see inotify(7).
const (
	inModify     = 0x2
	inAttrib     = 0x4
	inMovedFrom  = 0x40
	inMovedTo    = 0x80
	inCreate     = 0x100
	inDelete     = 0x200
	inDeleteSelf = 0x400
	inMoveSelf   = 0x800
	inUnmount    = 0x2000
	inQOverflow  = 0x4000
	inIgnored    = 0x8000
	inIsDir      = 0x40000000
)

// Watch tells of changes of the directory name and its entries, with recursive also of all that is below it;
// or of the file that name leads to, and whatever takes its place in its directory. What changes after Watch has
// returned is told, in order, whoever changes it.
//
// The sequence, which is for one loop, ends by break, or with an error as its last element: the context's
// cause when that is done, why the handle is of no use when it is closed or the sandbox has ended. It ends
// also, after its Remove or Rename, when the watched directory itself is removed or renamed. Who doesn't use
// the sequence ends the watch by the context.
//
// Nothing waits for a slow loop: the kernel keeps some 16000 events, see inotify(7). What doesn't fit is lost,
// and an Overflow says so in its place. A recursive Watch goes on with what is there then.
//
// A new directory is watched as soon as the loop comes to its Create, and what is in it by then is told as
// created; some of that may be told twice. Links are not followed, and a directory that the user may not read
// is not looked into.
func (f *FS) Watch(ctx context.Context, name string, recursive bool) iter.Seq2[WatchEvent, error] {
	w, err := f.watch(ctx, name, recursive)
	if err != nil {
		return func(yield func(WatchEvent, error) bool) { yield(WatchEvent{}, err) }
	}
	return w.run
}

// watching is a Watch under way.
type watching struct {
	fs        *FS
	ctx       context.Context
	name      string // what Watch was given
	dir       string // the watched directory
	only      string // the one entry of dir that counts; empty: all do
	recursive bool

	raw   Watcher
	root  *watchedDir
	dirs  map[int32]*watchedDir
	stop  chan struct{} // closed by the loop when it ends
	once  sync.Once
	ended chan struct{} // closed when raw is
}

func (f *FS) watch(ctx context.Context, name string, recursive bool) (_ *watching, err error) {
	dir, only, err := f.watchable(name)
	if err != nil {
		return nil, pathError("watch", name, unwrapPath(err))
	}
	raw, err := f.agent.Watch()
	if err != nil {
		return nil, pathError("watch", name, err)
	}
	w := &watching{
		fs: f, ctx: ctx, name: name, dir: dir, only: only, recursive: recursive && only == "",
		raw: raw, dirs: map[int32]*watchedDir{}, stop: make(chan struct{}), ended: make(chan struct{}),
	}
	go w.closeLater()
	if err := w.addRoot(); err != nil {
		w.close()
		return nil, pathError("watch", name, w.why(err))
	}
	return w, nil
}

// watchable gives the directory to watch for name, and which of its entries if name is no directory. A watch
// on a file of an overlay would miss its copy-up; one on its directory does not.
func (f *FS) watchable(name string) (dir, only string, err error) {
	fi, err := f.Stat(name)
	if err != nil {
		return "", "", err
	}
	if fi.IsDir() {
		return name, "", nil
	}
	for range 40 { // as path_resolution(7) has it
		if fi, err = f.Lstat(name); err != nil {
			return "", "", err
		}
		dir, only = ".", name
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			dir, only = name[:i+1], name[i+1:]
		}
		if fi.Mode().Type() != fs.ModeSymlink {
			return dir, only, nil
		}
		target, err := f.Readlink(name)
		if err != nil {
			return "", "", err
		}
		if name = target; !strings.HasPrefix(target, "/") {
			name = join(dir, target)
		}
	}
	return "", "", syscall.ELOOP
}

// closeLater closes the watch with the loop, the context or the connection.
func (w *watching) closeLater() {
	defer close(w.ended)
	select {
	case <-w.stop:
	case <-w.ctx.Done():
	case <-w.fs.agent.Gone():
	}
	_ = w.raw.Close()
}

func (w *watching) close() {
	w.once.Do(func() { close(w.stop) })
	<-w.ended
}

// why is err, or the cause of it.
func (w *watching) why(err error) error {
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	if gone := w.fs.agent.Err(); gone != nil {
		return gone
	}
	return unwrapPath(err)
}

func unwrapPath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// errStopped means that the loop is left.
var errStopped = errors.New("stopped")

// run is the sequence.
func (w *watching) run(yield func(WatchEvent, error) bool) {
	defer w.close()
	tell := func(op WatchOp, name string) error {
		if !yield(WatchEvent{op, name}, nil) {
			return errStopped
		}
		return nil
	}
	for {
		events, err := w.raw.Next()
		for _, e := range events {
			if err == nil {
				err = w.handle(e, tell)
			}
		}
		if err == errStopped {
			return
		}
		if err != nil {
			yield(WatchEvent{}, pathError("watch", w.name, w.why(err)))
			return
		}
	}
}

// handle tells what an event means.
func (w *watching) handle(e RawEvent, tell func(WatchOp, string) error) error {
	if e.Mask&inQOverflow != 0 {
		return w.handleOverflow(tell)
	}
	d := w.dirs[e.WD]
	switch {
	case d == nil: // not watched any more, see forget
		return nil
	case e.Mask&inIgnored != 0:
		if d == w.root {
			return errStopped
		}
		w.forget(d)
		return nil
	case e.Name == "":
		if d == w.root {
			return w.handleRoot(e.Mask, tell)
		}
		return nil // its parent tells, too
	case w.only != "":
		if e.Name != w.only {
			return nil
		}
		return tell(opOf(e.Mask), w.name)
	}
	if child := d.children[e.Name]; child != nil && e.Mask&(inMovedFrom|inDelete) != 0 {
		w.forget(child)
	}
	if err := tell(opOf(e.Mask), d.entry(e.Name)); err != nil {
		return err
	}
	if w.recursive && e.Mask&inIsDir != 0 && e.Mask&(inCreate|inMovedTo) != 0 {
		return w.addTree(d, e.Name, tell)
	}
	return nil
}

// handleOverflow takes in what is there after events were lost, and then tells: who looks now misses nothing.
func (w *watching) handleOverflow(tell func(WatchOp, string) error) error {
	gone := false
	if w.recursive {
		err := w.again()
		if gone = isNotExist(err); err != nil && !gone {
			return err
		}
	}
	if err := tell(Overflow, w.name); err != nil || !gone {
		return err
	}
	if err := tell(Remove, w.name); err != nil {
		return err
	}
	return errStopped
}

// handleRoot tells of the watched directory itself.
func (w *watching) handleRoot(mask uint32, tell func(WatchOp, string) error) error {
	op := opOf(mask)
	if op == Chmod && w.only != "" {
		return nil
	}
	err := tell(op, w.name)
	if op != Chmod && err == nil {
		err = errStopped
	}
	return err
}

func opOf(mask uint32) WatchOp {
	switch {
	case mask&(inCreate|inMovedTo) != 0:
		return Create
	case mask&(inDelete|inDeleteSelf|inUnmount) != 0:
		return Remove
	case mask&(inMovedFrom|inMoveSelf) != 0:
		return Rename
	case mask&inModify != 0:
		return Write
	default:
		return Chmod
	}
}
