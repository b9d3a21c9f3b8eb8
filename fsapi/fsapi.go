// Package fsapi gives access to the files of a sandbox in the terms of package os: each method of FS
// does what the function of that name in os does, with its zero values, flags and errors, which are
// *fs.PathError (and hold an *os.LinkError where there are two names).
//
// Names are the sandbox's. One that doesn't begin with a slash starts at the sandbox's working
// directory. They are resolved inside the sandbox with the rights of its user, and no link in it leads
// out. Owners are the sandbox's user and group ids.
//
// The guest is not trusted. Regular files and directories can be opened; a named pipe, a device or a
// socket is an error (syscall.EINVAL), never a wait. A file's content can change at any moment. The kernel's own
// files, of proc and sysfs, can be read but not written (syscall.EPERM), since that would be with the host's rights:
// a command can.
package fsapi

import (
	"io"
	"io/fs"
	"os"
	"time"
)

// MaxReadFile is the size of the largest file that ReadFile reads, in bytes. Larger ones are to be
// opened and read piece by piece: a guest can make a file of any size at no cost.
const MaxReadFile = 1 << 30

// Agent does what FS asks, inside one sandbox. Its errors are syscall.Errno or say why the sandbox
// can't be reached; FS adds operation and name.
type Agent interface {
	// Open opens a regular file or a directory. The file is the caller's.
	Open(name string, flags int, perm uint32) (*os.File, error)
	// ReadDir lists entries of an open directory from where the last call ended, at the end none and
	// io.EOF.
	ReadDir(dir *os.File) ([]Entry, error)
	Fstat(f *os.File) (Stat, error)
	Stat(name string) (Stat, error)
	Lstat(name string) (Stat, error)
	Readlink(name string) (string, error)
	Mkdir(name string, perm uint32) error
	MkdirAll(name string, perm uint32) error
	Remove(name string) error
	RemoveAll(name string) error
	Rename(oldname, newname string) error
	Symlink(target, name string) error
	Chmod(name string, mode uint32) error
	Chown(name string, uid, gid int) error
	Link(oldname, newname string) error
	Truncate(name string, size int64) error
	// Chtimes sets the times of attr.
	Chtimes(name string, attr Attr) error
	SetAttr(f *os.File, attr Attr) error
	// Place puts something below an open directory. Of a regular file, which is empty and to be written, and
	// of a directory it gives a file that is the caller's. ErrInsecurePath means that a link leads out.
	Place(dir *os.File, p Place) (*os.File, error)
	// Watch begins a watch of nothing yet.
	Watch() (Watcher, error)
	// Gone is closed when the sandbox can't be reached any more; then Err says why.
	Gone() <-chan struct{}
	Err() error
}

// FS is the file system of a sandbox, with the rights of the sandbox's user. It is safe for concurrent
// use, and good for as long as the handle that it comes from.
type FS struct {
	agent Agent
}

// New makes the FS whose operations agent does.
func New(agent Agent) *FS { return &FS{agent} }

// Open opens a file or directory for reading.
func (f *FS) Open(name string) (*File, error) { return f.OpenFile(name, os.O_RDONLY, 0) }

// Create makes a file, or empties the one that is there, for reading and writing.
func (f *FS) Create(name string) (*File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// OpenFile opens a file with the flags of package os. A file that it makes has the permission perm,
// before the sandbox's umask, which is 022.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	file, err := f.agent.Open(name, flag, unixMode(perm))
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &File{f: file, agent: f.agent, fs: f, name: name}, nil
}

// ReadFile reads a whole file of up to MaxReadFile bytes.
func (f *FS) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.f.Stat() // the host's own view: this is a size to allocate
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	if size > MaxReadFile {
		return nil, pathError("read", name, errTooLarge)
	}
	data := make([]byte, 0, size+512)
	for {
		n, err := file.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		if len(data) > MaxReadFile {
			return data, pathError("read", name, errTooLarge)
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// WriteFile writes data to a file, which it makes with the permission perm if it isn't there and
// empties if it is. Like os.WriteFile it is no transaction: what reads at the same time can see a part.
func (f *FS) WriteFile(name string, data []byte, perm fs.FileMode) error {
	file, err := f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return err
}

// Stat describes the file that name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	st, err := f.agent.Stat(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return &fileInfo{base(name), st}, nil
}

// Lstat is Stat, but describes a link itself.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	st, err := f.agent.Lstat(name)
	if err != nil {
		return nil, pathError("lstat", name, err)
	}
	return &fileInfo{base(name), st}, nil
}

// Exists tells whether name leads to something. It is false with no error for a link to nothing.
func (f *FS) Exists(name string) (bool, error) {
	_, err := f.Stat(name)
	switch {
	case err == nil:
		return true, nil
	case isNotExist(err):
		return false, nil
	default:
		return false, err
	}
}

// Readlink gives a symbolic link's target.
func (f *FS) Readlink(name string) (string, error) {
	target, err := f.agent.Readlink(name)
	return target, pathError("readlink", name, err)
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	return pathError("mkdir", name, f.agent.Mkdir(name, unixMode(perm)))
}

// MkdirAll makes a directory with those above it, and is content with what is there.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	return pathError("mkdir", name, f.agent.MkdirAll(name, unixMode(perm)))
}

// Remove removes a file, a link or an empty directory.
func (f *FS) Remove(name string) error { return pathError("remove", name, f.agent.Remove(name)) }

// RemoveAll removes name and all below it. It is no error if there is nothing.
func (f *FS) RemoveAll(name string) error {
	if name == "" { // as os.RemoveAll has it
		return nil
	}
	return pathError("unlinkat", name, f.agent.RemoveAll(name))
}

// Rename moves a file or directory, in the place of what is there if that can be.
func (f *FS) Rename(oldname, newname string) error {
	return linkError("rename", oldname, newname, f.agent.Rename(oldname, newname))
}

// Symlink makes newname a symbolic link to oldname, which is not resolved.
func (f *FS) Symlink(oldname, newname string) error {
	return linkError("symlink", oldname, newname, f.agent.Symlink(oldname, newname))
}

// Chmod sets the permission bits of the file that name leads to, with setuid, setgid and sticky.
func (f *FS) Chmod(name string, mode fs.FileMode) error {
	return pathError("chmod", name, f.agent.Chmod(name, unixMode(mode)))
}

// Chtimes sets the times of access and modification of the file that name leads to. A zero time leaves one
// as it is.
func (f *FS) Chtimes(name string, atime, mtime time.Time) error {
	attr := leave
	attr.Atime, attr.Mtime = nanos(atime), nanos(mtime)
	return pathError("chtimes", name, f.agent.Chtimes(name, attr))
}

// Truncate sets the size, in bytes, of the file that name leads to.
func (f *FS) Truncate(name string, size int64) error {
	return pathError("truncate", name, f.agent.Truncate(name, size))
}

// Link makes newname a hard link to oldname, which is not followed if it is a symbolic link.
func (f *FS) Link(oldname, newname string) error {
	return linkError("link", oldname, newname, f.agent.Link(oldname, newname))
}

// Chown sets the owner, by the sandbox's ids, of the file that name leads to. -1 leaves one as it is.
func (f *FS) Chown(name string, uid, gid int) error {
	return pathError("chown", name, f.agent.Chown(name, uid, gid))
}
