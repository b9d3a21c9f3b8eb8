package fsapi

import (
	"io"
	"io/fs"
	"slices"
	"strings"
)

// MaxReadDir is how many entries ReadDir lists at once. Larger directories are to be opened and listed piece by
// piece.
const MaxReadDir = 1 << 21

// Entry is a directory's entry as the agent lists it.
type Entry struct {
	Name string
	Type uint8 // d_type of readdir(3)
}

// ReadDir lists a directory, sorted by name. After an error it gives what was listed until then.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	list, err := dir.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// ReadDir lists the next n entries, in the directory's order, and at the end none with io.EOF. With n <= 0
// it lists all that are left, up to MaxReadDir, and the end is no error. Of a large directory it holds no more
// than it returns, and some kilobytes.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []fs.DirEntry{} // as os has it, never nil without an error
	for n <= 0 || len(list) < n {
		entry, err := f.nextLocked()
		if err == io.EOF {
			if n > 0 && len(list) == 0 {
				return list, io.EOF
			}
			break
		}
		if err == nil && n <= 0 && len(list) == MaxReadDir {
			err = pathError("readdirent", f.name, errTooLarge)
		}
		if err != nil {
			return list, err
		}
		if entry != nil {
			list = append(list, entry)
		}
	}
	return list, nil
}

// nextLocked gives the next entry, or nil for one that has gone again, and at the end io.EOF.
func (f *File) nextLocked() (*dirEntry, error) {
	for len(f.pending) == 0 {
		entries, err := f.agent.ReadDir(f.f)
		if err == io.EOF {
			return nil, io.EOF
		}
		if err != nil {
			return nil, pathError("readdirent", f.name, err)
		}
		f.pending = entries
	}
	e := f.pending[0]
	f.pending = f.pending[1:]
	typ, known := fileType(e.Type)
	entry := &dirEntry{fs: f.fs, dir: f.name, name: e.Name, typ: typ}
	if known {
		return entry, nil
	}
	fi, err := entry.Info()
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entry.typ = fi.Mode().Type()
	return entry, nil
}

// Readdirnames is ReadDir, but gives the names alone.
func (f *File) Readdirnames(n int) ([]string, error) {
	list, err := f.ReadDir(n)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

// Readdir is ReadDir, but describes each entry, which takes a request for each. ReadDir is to be preferred.
func (f *File) Readdir(n int) ([]fs.FileInfo, error) {
	list, err := f.ReadDir(n)
	infos := make([]fs.FileInfo, 0, len(list))
	for _, e := range list {
		fi, ierr := e.Info()
		if isNotExist(ierr) { // gone again
			continue
		}
		if ierr != nil {
			return infos, ierr
		}
		infos = append(infos, fi)
	}
	return infos, err
}

type dirEntry struct {
	fs        *FS
	dir, name string
	typ       fs.FileMode
}

func (d *dirEntry) Name() string               { return d.name }
func (d *dirEntry) IsDir() bool                { return d.typ.IsDir() }
func (d *dirEntry) Type() fs.FileMode          { return d.typ }
func (d *dirEntry) Info() (fs.FileInfo, error) { return d.fs.Lstat(d.dir + "/" + d.name) }
func (d *dirEntry) String() string             { return fs.FormatDirEntry(d) }

// fileType is the type that d_type says; it is unknown on some file systems.
func fileType(t uint8) (typ fs.FileMode, known bool) {
	switch t {
	case 1:
		return fs.ModeNamedPipe, true
	case 2:
		return fs.ModeDevice | fs.ModeCharDevice, true
	case 4:
		return fs.ModeDir, true
	case 6:
		return fs.ModeDevice, true
	case 8:
		return 0, true
	case 10:
		return fs.ModeSymlink, true
	case 12:
		return fs.ModeSocket, true
	default:
		return fs.ModeIrregular, false
	}
}
