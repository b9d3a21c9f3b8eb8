package fsapi

import (
	"io"
	"io/fs"
	"os"
	"sync"
)

// File is an open file or directory of a sandbox. What it reads and writes goes straight to the file,
// at the host's own speed. It stays good after the sandbox has ended, for what is left to read. Its
// methods do what those of os.File do.
type File struct {
	f     *os.File
	agent Agent
	fs    *FS
	name  string

	mu      sync.Mutex
	pending []Entry // listed, and not yet returned by ReadDir
}

// Name is the name that the file was opened by.
func (f *File) Name() string { return f.name }

// Read reads up to len(b) bytes; at the end it is io.EOF.
func (f *File) Read(b []byte) (int, error) { return f.f.Read(b) }

// ReadAt reads len(b) bytes from the offset off.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// Write writes b.
func (f *File) Write(b []byte) (int, error) { return f.f.Write(b) }

// WriteString writes s.
func (f *File) WriteString(s string) (int, error) { return f.f.WriteString(s) }

// WriteAt writes b at the offset off.
func (f *File) WriteAt(b []byte, off int64) (int, error) { return f.f.WriteAt(b, off) }

// ReadFrom writes all that r has.
func (f *File) ReadFrom(r io.Reader) (int64, error) {
	if n, ok, err := send(f, r); ok {
		return n, pathError("write", f.name, err)
	}
	return f.f.ReadFrom(r)
}

// WriteTo writes all that is left of the file to w.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	if n, ok, err := send(w, f); ok {
		return n, pathError("write", f.name, err)
	}
	return f.f.WriteTo(w)
}

// Seek sets where the next Read or Write begins. On a directory, Seek(0, io.SeekStart) begins the
// listing anew.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = nil
	return f.f.Seek(offset, whence)
}

// Sync has the file's content written to disk, where the file is of a mount. For the sandbox's own, which don't outlive
// the host, it only tells of errors.
func (f *File) Sync() error { return f.f.Sync() }

// Chmod sets the permission bits, with setuid, setgid and sticky.
func (f *File) Chmod(mode fs.FileMode) error {
	attr := leave
	attr.Mode = int64(unixMode(mode))
	return pathError("chmod", f.name, f.agent.SetAttr(f.f, attr))
}

// Chown sets the owner, by the sandbox's ids. -1 leaves one as it is.
func (f *File) Chown(uid, gid int) error {
	attr := leave
	attr.UID, attr.GID = int64(uid), int64(gid)
	return pathError("chown", f.name, f.agent.SetAttr(f.f, attr))
}

// Truncate sets the file's size, in bytes.
func (f *File) Truncate(size int64) error { return f.f.Truncate(size) }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) {
	st, err := f.agent.Fstat(f.f)
	if err != nil {
		return nil, pathError("stat", f.name, err)
	}
	return &fileInfo{base(f.name), st}, nil
}
