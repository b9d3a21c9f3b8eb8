package fsapi

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// tries is how many names are tried for what is to be new.
const tries = 10000

// MkdirTemp makes a new directory in dir, and gives its name: pattern with a random string at its end, or in
// the place of its last "*". An empty dir is /tmp. It has the permission 0700, and nobody removes it.
func (f *FS) MkdirTemp(dir, pattern string) (string, error) {
	if dir == "" {
		dir = "/tmp"
	}
	if strings.Contains(pattern, "/") {
		return "", pathError("mkdirtemp", pattern, errors.New("pattern contains path separator"))
	}
	prefix, suffix := pattern, ""
	if i := strings.LastIndexByte(pattern, '*'); i >= 0 {
		prefix, suffix = pattern[:i], pattern[i+1:]
	}
	var name string
	err := unused(func(random string) error {
		name = join(dir, prefix+random+suffix)
		return f.Mkdir(name, 0o700)
	})
	if err != nil {
		if isNotExist(err) {
			if _, serr := f.Stat(dir); isNotExist(serr) {
				err = serr
			}
		}
		return "", err
	}
	return name, nil
}

// unused calls make with random strings until what it makes was not there before.
func unused(make func(random string) error) (err error) {
	for range tries {
		if err = make(strconv.FormatUint(uint64(rand.Uint32()), 10)); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return err
}

// ReplaceFile has the file name hold data and have the permission perm, before the umask, all or nothing: it
// writes a new file beside it, has that written to disk and renames it. Who reads name sees the old content
// or the new. A link of that name is replaced, not followed. If the sandbox ends in between, a file whose name
// begins with ".replace-" may be left.
func (f *FS) ReplaceFile(name string, data []byte, perm fs.FileMode) (err error) {
	dir := "."
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir = name[:i+1]
	}
	if name == "" || base(name) != name[len(name)-len(base(name)):] { // nothing, or a directory
		return f.WriteFile(name, data, perm) // which says what is wrong
	}
	var aside *File
	err = unused(func(random string) (err error) {
		aside, err = f.OpenFile(join(dir, ".replace-"+random), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if rerr := f.RemoveAll(aside.name); rerr != nil { // no error if it was renamed
			err = errors.Join(err, rerr)
		}
	}()
	_, err = aside.Write(data)
	if err == nil {
		err = aside.Sync()
	}
	if cerr := aside.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := f.Rename(aside.name, name); err != nil {
		return err
	}
	return f.syncDir(dir)
}

func (f *FS) syncDir(dir string) error {
	d, err := f.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// CopyFS copies the tree fsys of the host into the directory dir, which it makes if it isn't there, as
// os.CopyFS does: links are copied as links, files that are there already are not overwritten.
func (f *FS) CopyFS(dir string, fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !fs.ValidPath(path) {
			return pathError("CopyFS", path, fs.ErrInvalid)
		}
		name := join(dir, path)
		switch d.Type() {
		case fs.ModeDir:
			return f.MkdirAll(name, 0o777)
		case fs.ModeSymlink:
			target, err := fs.ReadLink(fsys, path)
			if err != nil {
				return err
			}
			return f.Symlink(target, name)
		case 0:
			return f.copyFile(name, fsys, path)
		default:
			return pathError("CopyFS", path, fs.ErrInvalid)
		}
	})
}

func (f *FS) copyFile(name string, fsys fs.FS, path string) error {
	r, err := fsys.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	fi, err := r.Stat()
	if err != nil {
		return err
	}
	w, err := f.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666|fi.Mode()&0o777)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		_ = w.Close()
		return pathError("Copy", name, err)
	}
	return w.Close()
}

// join is the name of an entry of a directory, without a change of either.
func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}
