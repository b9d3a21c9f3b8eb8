package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nestbox/nestbox/engine/internal/container"
)

// Each sandbox has a range of user and group ids of its own on this host, whatever its state directory. The
// ranges are taken from those that systemd's documents (UIDS-GIDS) leave unused below 2^31.
const (
	firstUID = 0x7000_0000
	slots    = (0x8000_0000 - firstUID) / container.IDs
)

// idRegistry keeps who has which range: a symbolic link for each, named by its number and leading to the directory that
// the sandbox was made in, whose name is that of its cgroup. A range of which neither is there any more is free. The place
// is emptied when the host starts.
type idRegistry struct{ dir string }

var ids = idRegistry{"/run/nestbox/ids"}

// locked calls f under the registry's lock.
func (r idRegistry) locked(f func() error) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	d, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := flock(d, true); err != nil {
		return err
	}
	return f()
}

func (r idRegistry) link(slot int) string { return filepath.Join(r.dir, strconv.Itoa(slot)) }

// take takes a range for the sandbox that is being made in dir, which is there, and gives its first id.
func (r idRegistry) take(dir string) (uid uint32, err error) {
	err = r.locked(func() error {
		start := rand.IntN(slots)
		for i := range slots {
			slot := (start + i) % slots
			err := os.Symlink(dir, r.link(slot))
			if errors.Is(err, fs.ErrExist) {
				if !r.stale(slot) {
					continue
				}
				err = errors.Join(os.Remove(r.link(slot)), os.Symlink(dir, r.link(slot)))
			}
			uid = firstUID + uint32(slot)*container.IDs
			return err
		}
		return fmt.Errorf("all %d ranges of user ids are taken; end sandboxes first", slots)
	})
	return uid, err
}

// release gives back the range of the sandbox that was made in dir.
func (r idRegistry) release(dir string, uid uint32) error {
	return r.locked(func() error {
		slot := int(uid-firstUID) / container.IDs
		if owner, err := os.Readlink(r.link(slot)); err != nil || owner != dir {
			return nil // given back already
		}
		return remove(r.link(slot))
	})
}

// sweep gives back the ranges of sandboxes that are no more.
func (r idRegistry) sweep() error {
	return r.locked(func() error {
		entries, err := os.ReadDir(r.dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if slot, aerr := strconv.Atoi(e.Name()); aerr == nil && r.stale(slot) {
				err = errors.Join(err, remove(r.link(slot)))
			}
		}
		return err
	})
}

func (r idRegistry) stale(slot int) bool {
	dir, err := os.Readlink(r.link(slot))
	if err != nil {
		return false
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	left, err := container.HasCgroup(filepath.Base(dir)) // it was claimed, and has moved
	return err == nil && !left
}
