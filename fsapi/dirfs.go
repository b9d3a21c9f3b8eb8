package fsapi

import (
	"errors"
	"io/fs"
	"strings"
)

// DirFS gives the tree below dir as os.DirFS does: an fs.StatFS, fs.ReadDirFS, fs.ReadFileFS, fs.ReadLinkFS and
// fs.SubFS. Links that lead out of dir, into the rest of the sandbox, are followed.
func (f *FS) DirFS(dir string) fs.FS { return dirFS{f, dir} }

type dirFS struct {
	fs  *FS
	dir string
}

var _ interface {
	fs.StatFS
	fs.ReadDirFS
	fs.ReadFileFS
	fs.ReadLinkFS
	fs.SubFS
} = dirFS{}

// in does f with the whole name; the error has the one that was asked for.
func in[T any](d dirFS, op, name string, f func(string) (T, error)) (v T, err error) {
	if d.dir == "" {
		return v, pathError(op, name, errors.New("DirFS with empty root"))
	}
	if !fs.ValidPath(name) || strings.ContainsRune(d.dir+name, 0) {
		return v, pathError(op, name, fs.ErrInvalid)
	}
	v, err = f(join(d.dir, name))
	if e, ok := err.(*fs.PathError); ok {
		e.Path = name
	}
	return v, err
}

func (d dirFS) Open(name string) (fs.File, error) {
	f, err := in(d, "open", name, d.fs.Open)
	if err != nil {
		return nil, err // no *File that is nil
	}
	return f, nil
}

func (d dirFS) Stat(name string) (fs.FileInfo, error)  { return in(d, "stat", name, d.fs.Stat) }
func (d dirFS) Lstat(name string) (fs.FileInfo, error) { return in(d, "lstat", name, d.fs.Lstat) }
func (d dirFS) ReadFile(name string) ([]byte, error)   { return in(d, "readfile", name, d.fs.ReadFile) }
func (d dirFS) ReadLink(name string) (string, error)   { return in(d, "readlink", name, d.fs.Readlink) }

func (d dirFS) ReadDir(name string) ([]fs.DirEntry, error) {
	return in(d, "readdir", name, d.fs.ReadDir)
}

func (d dirFS) Sub(name string) (fs.FS, error) {
	switch {
	case !fs.ValidPath(name):
		return nil, pathError("sub", name, fs.ErrInvalid)
	case name == ".":
		return d, nil
	default:
		return dirFS{d.fs, join(d.dir, name)}, nil
	}
}
