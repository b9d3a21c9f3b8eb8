package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
)

// A state directory holds
//
//	nestbox.json        says that it is one
//	store.db            the store, unless the program has its own
//	templates/          the catalog
//	base/               the skeleton of the built-in template
//	pool/<id>/          a sandbox that is nobody's yet: it is being made, waits to be claimed, or has left this
//	sandboxes/<id>/     a sandbox that lives, or has left this
//	trash/              trees that are being removed
//	events/             what happened, a line of JSON each; log.old has what was before log
//
// A sandbox is made in pool and moved to sandboxes when it is claimed, with an ID of its own if it waited there. Each
// handle, and who makes one, has a shared lock on the sandbox's directory, see flock(2); the kernel
// gives it back however the process dies. Who holds the exclusive lock knows that there is no handle. Between
// making a sandbox's directory and locking it, its maker has a shared lock on the state directory.
type stateDir struct {
	dir string // absolute, without links
}

const (
	markerFile = "nestbox.json"
	markerText = "{\"nestbox\": 1}\n"
	factsFile  = "sandbox.json"
	lockFile   = "lock"
	eventsFile = "events/log"
)

// path joins the state directory with a name of the package's own.
func (s stateDir) path(name string) string { return filepath.Join(s.dir, name) }

// sandbox is the directory of the sandbox id, which is a valid one.
func (s stateDir) sandbox(id string) string { return filepath.Join(s.dir, "sandboxes", id) }

// unclaimed is the directory of a sandbox that is nobody's yet.
func (s stateDir) unclaimed(name string) string { return filepath.Join(s.dir, "pool", name) }

// openStateDir makes or checks a state directory.
func openStateDir(dir string) (stateDir, error) {
	dir, err := defaultDir(dir)
	if err != nil {
		return stateDir{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return stateDir{}, fmt.Errorf("%w: %w", ErrStateDir, err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return stateDir{}, fmt.Errorf("%w: %w", ErrStateDir, err)
	}
	s := stateDir{dir}
	unlock, err := s.lock()
	if err != nil {
		return stateDir{}, fmt.Errorf("%w: %w", ErrStateDir, err)
	}
	defer unlock()
	if err := s.check(); err != nil {
		return stateDir{}, err
	}
	for _, name := range []string{"templates", "base", "pool", "sandboxes", "trash", "events"} {
		if err := os.Mkdir(s.path(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return stateDir{}, fmt.Errorf("%w: %w", ErrStateDir, err)
		}
	}
	return s, nil
}

func defaultDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/nestbox", nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "nestbox"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", invalid("Options.Dir", "there is no default without a home directory: %v", err)
	}
	return filepath.Join(home, ".local", "state", "nestbox"), nil
}

// check refuses a directory that is another's, and marks an empty one as a state directory.
func (s stateDir) check() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s %s", ErrStateDir, s.dir, fmt.Sprintf(format, args...))
	}
	fi, err := os.Stat(s.dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStateDir, err)
	}
	if uid, ok := ownerOf(fi); ok && uid != os.Geteuid() {
		return refuse("belongs to user %d, not to %d: choose another directory", uid, os.Geteuid())
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return refuse("can be written by others (mode %v): chmod 0700 it if you trust what is in it", fi.Mode().Perm())
	}
	marker, err := os.ReadFile(s.path(markerFile))
	if err == nil && string(marker) != markerText {
		return refuse("is one of another version of this package, or damaged: %s says %.40q", markerFile, marker)
	}
	if errors.Is(err, fs.ErrNotExist) {
		entries, rerr := os.ReadDir(s.dir)
		if rerr != nil {
			return fmt.Errorf("%w: %w", ErrStateDir, rerr)
		}
		// Who begins with a template makes its directory first.
		if entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == "templates" }); len(entries) > 0 {
			return refuse("holds other files, such as %q: choose an empty or new directory", entries[0].Name())
		}
		err = os.WriteFile(s.path(markerFile), []byte(markerText), 0o600)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStateDir, err)
	}
	if fi.Mode().Perm() != 0o700 {
		if err := os.Chmod(s.dir, 0o700); err != nil {
			return fmt.Errorf("%w: %w", ErrStateDir, err)
		}
	}
	return nil
}

// lock takes the exclusive lock on the state directory, which is held for moments.
func (s stateDir) lock() (unlock func(), err error) {
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	if err := flock(d, true); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// makeDir makes the directory of a new sandbox and gives it with a shared lock.
func (s stateDir) makeDir(path string) (dir *os.File, err error) {
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := flock(d, false); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	if dir, err = os.Open(path); err == nil {
		err = flock(dir, false)
	}
	if err != nil {
		return nil, errors.Join(err, closeFile(dir), os.Remove(path))
	}
	return dir, nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// unheld tells whether nobody holds, makes or keeps the sandbox whose directory is dir. Then it has the exclusive lock
// until dir is closed.
func (s stateDir) unheld(dir *os.File) (bool, error) {
	unlock, err := s.lock() // no maker is between making and locking
	if err != nil {
		return false, err
	}
	defer unlock()
	return tryFlock(dir, true)
}

// facts is what a sandbox's directory says of it. It is there before the directory is in sandboxes.
type facts struct {
	Cgroup     string            `json:"cgroup"`      // its name
	UID        uint32            `json:"uid"`         // the host's id of its root
	PID        int               `json:"pid"`         // the host's number of its agent
	Start      uint64            `json:"start"`       // when the agent started, see proc_pid_stat(5)
	Protocol   int               `json:"protocol"`    // that its agent speaks
	OwnNetwork bool              `json:"own_network"` // it isn't the host's
	Disk       uint64            `json:"disk"`        // the number of its disk's device; 0: it has none
	Template   string            `json:"template"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Grace      time.Duration     `json:"grace,omitempty"`
	Limits     Limits            `json:"limits"` // what they are now
	// Paused is set before the sandbox is frozen, and cleared after it was thawed: without it it isn't frozen,
	// with it the freezer tells.
	Paused    bool      `json:"paused,omitempty"`
	ExpiresAt time.Time `json:"expires,omitzero"` // while it is paused: the deadline
}

// readFacts reads a sandbox's facts. fs.ErrNotExist means that it is gone.
func (s stateDir) readFacts(id string) (facts, error) { return readFacts(s.sandbox(id)) }

// readFacts reads the facts in a sandbox's directory.
func readFacts(dir string) (f facts, err error) {
	data, err := os.ReadFile(filepath.Join(dir, factsFile))
	if err != nil {
		return facts{}, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return facts{}, fmt.Errorf("%s of %s: %w", factsFile, filepath.Base(dir), err)
	}
	return f, nil
}

// writeFacts writes a sandbox's facts, all or nothing. It isn't synced: no sandbox outlives a crash of the
// host.
func (s stateDir) writeFacts(id string, f facts) (err error) {
	path := filepath.Join(s.sandbox(id), factsFile)
	tmp := path + "." + rand.Text()
	if err := f.write(tmp); err != nil {
		return errors.Join(err, remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, remove(tmp))
	}
	return nil
}

// write writes facts to a file that is new, or has others. It isn't cut off first: ext4 would then start to write the new
// content to the disk when the file is closed, see auto_da_alloc in ext4(5).
func (f facts) write(path string) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	fi, serr := file.Stat()
	if err = errors.Join(err, serr); err == nil && fi.Size() > int64(len(data)) {
		err = file.Truncate(int64(len(data)))
	}
	return errors.Join(err, file.Close())
}

// describe has facts say what was asked for. It is false if they did already.
func (f *facts) describe(o order) (changed bool) {
	was := *f
	f.Protocol = wire.Protocol
	f.Template, f.Metadata, f.Grace, f.Limits = o.opts.Template, o.opts.Metadata, o.opts.Grace, o.limits
	return f.Protocol != was.Protocol || f.Template != was.Template || !maps.Equal(f.Metadata, was.Metadata) ||
		f.Grace != was.Grace || f.Limits != was.Limits
}

// lease is what facts know of a lease. When it began the sandbox's ID tells, to the millisecond.
func (f facts) lease(id string) lease.Lease {
	return lease.Lease{
		ID:        id,
		Template:  f.Template,
		Metadata:  f.Metadata,
		State:     lease.Running,
		CreatedAt: createdAt(id),
		Grace:     f.Grace,
	}
}

// lockFacts takes the lock that is held to change a sandbox's facts, or to pause or resume it. fs.ErrNotExist
// means that the sandbox is gone.
func (s stateDir) lockFacts(ctx context.Context, id string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.sandbox(id), lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := awaitFlock(ctx, f, true); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// awaitFlock is flock, but waits until ctx is done at most. A lock can't be awaited with a bound but by asking again.
func awaitFlock(ctx context.Context, f *os.File, exclusive bool) error {
	for {
		ok, err := tryFlock(f, exclusive)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// changeFacts changes a sandbox's facts. The caller has the lock.
func (s stateDir) changeFacts(id string, change func(*facts)) error {
	f, err := s.readFacts(id)
	if err != nil {
		return err
	}
	change(&f)
	return s.writeFacts(id, f)
}

// remove is os.Remove, and content if there is nothing.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// list lists the IDs of the sandboxes that have a directory in the one given.
func (s stateDir) list(in string) ([]string, error) {
	entries, err := os.ReadDir(s.path(in))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
