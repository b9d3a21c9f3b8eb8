package fsapi

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
)

// watchedDir is a directory that is watched.
type watchedDir struct {
	wd       int32
	name     string // as parent's entry; of the root, what its entries' names begin with
	parent   *watchedDir
	children map[string]*watchedDir
}

func (d *watchedDir) entry(name string) string {
	if d == nil {
		return name
	}
	return join(d.parent.entry(d.name), name)
}

// forget takes a directory, and all below it, from the watch. What is still told of them finds nothing.
func (w *watching) forget(d *watchedDir) {
	for _, child := range d.children {
		w.forget(child)
	}
	if d.parent != nil && d.parent.children[d.name] == d {
		delete(d.parent.children, d.name)
	}
	if w.dirs[d.wd] == d {
		delete(w.dirs, d.wd)
		_ = w.raw.Remove(d.wd) // which fails for one that is removed
	}
}

func (w *watching) addRoot() error {
	wd, err := w.raw.Add(w.dir, false)
	if err != nil {
		return err
	}
	w.root = &watchedDir{wd: wd, name: w.dir}
	w.dirs[wd] = w.root
	if !w.recursive {
		return nil
	}
	more, err := w.list(w.root, nil)
	if err != nil {
		return err
	}
	return w.addAll(more, nil)
}

// again adds all that is there. A directory that is watched keeps its number.
func (w *watching) again() error {
	old := w.dirs
	w.dirs = map[int32]*watchedDir{}
	if err := w.addRoot(); err != nil {
		return err
	}
	for wd := range old {
		if w.dirs[wd] == nil {
			_ = w.raw.Remove(wd)
		}
	}
	return nil
}

// pathMax is the length from which on the kernel takes no name.
const pathMax = 4096

// newDir is a directory to be added.
type newDir struct {
	parent *watchedDir
	name   string
}

// addTree adds a directory and those below it, and tells what is in them.
func (w *watching) addTree(parent *watchedDir, name string, tell func(WatchOp, string) error) error {
	return w.addAll([]newDir{{parent, name}}, tell)
}

func (w *watching) addAll(dirs []newDir, tell func(WatchOp, string) error) error {
	for len(dirs) > 0 {
		last := len(dirs) - 1
		n := dirs[last]
		dirs = dirs[:last]
		d, err := w.add(n)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		more, err := w.list(d, tell)
		if err != nil {
			return err
		}
		if dirs = append(dirs, more...); len(dirs)+len(w.dirs) > MaxWatch {
			return syscall.ENOSPC
		}
	}
	return nil
}

// add adds one directory; it is nil if that is gone, or may not be read.
func (w *watching) add(n newDir) (*watchedDir, error) {
	name := n.parent.entry(n.name)
	if len(name) >= pathMax {
		return nil, nil
	}
	wd, err := w.raw.Add(name, true)
	if skipped(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if was := w.dirs[wd]; was == w.root {
		return nil, nil
	} else if was != nil { // under another name, or this one
		delete(w.dirs, wd) // so that it stays watched
		w.forget(was)
	}
	d := &watchedDir{wd: wd, name: n.name, parent: n.parent}
	if n.parent.children == nil {
		n.parent.children = map[string]*watchedDir{}
	}
	if was := n.parent.children[n.name]; was != nil {
		w.forget(was)
	}
	n.parent.children[n.name] = d
	w.dirs[wd] = d
	return d, nil
}

// list tells, unless tell is nil, what is in a directory that is watched now, and gives the directories in it.
func (w *watching) list(d *watchedDir, tell func(WatchOp, string) error) (dirs []newDir, err error) {
	file, err := w.fs.OpenFile(d.parent.entry(d.name), os.O_RDONLY|openDirectory, 0)
	if skipped(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for {
		entries, err := file.ReadDir(512)
		for _, e := range entries {
			if tell != nil {
				if err := tell(Create, d.entry(e.Name())); err != nil {
					return nil, err
				}
			}
			if e.IsDir() {
				dirs = append(dirs, newDir{d, e.Name()})
			}
		}
		switch {
		case err == io.EOF || skipped(err):
			return dirs, nil
		case err != nil:
			return nil, err
		case len(dirs)+len(w.dirs) > MaxWatch:
			return nil, syscall.ENOSPC
		case w.ctx.Err() != nil:
			return nil, context.Cause(w.ctx)
		}
	}
}

// skipped tells whether a directory is gone again, is none any more, or is not the user's to look into.
func skipped(err error) bool {
	for _, e := range [...]error{syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
