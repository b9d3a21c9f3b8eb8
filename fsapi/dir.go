package fsapi

import (
	"io"
	"io/fs"
	"slices"
	"strings"
)

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
// it lists all that are left, and the end is no error. Of a large directory it holds no more than it returns,
// and some kilobytes. It is not safe for concurrent use.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	var list []fs.DirEntry
	for n <= 0 || len(list) < n {
		if len(f.pending) == 0 {
			entries, err := f.agent.ReadDir(f.f)
			if err == io.EOF {
				if n > 0 && len(list) == 0 {
					return nil, io.EOF
				}
				break
			}
			if err != nil {
				return list, pathError("readdirent", f.name, err)
			}
			f.pending = entries
			continue
		}
		e := f.pending[0]
		f.pending = f.pending[1:]
		typ, known := fileType(e.Type)
		entry := &dirEntry{fs: f.fs, dir: f.name, name: e.Name, typ: typ}
		if !known {
			fi, err := entry.Info()
			if isNotExist(err) {
				continue
			}
			if err != nil {
				return list, err
			}
			entry.typ = fi.Mode().Type()
		}
		list = append(list, entry)
	}
	return list, nil
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
