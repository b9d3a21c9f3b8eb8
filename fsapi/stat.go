package fsapi

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"strings"
	"syscall"
	"time"
)

// Stat is what stat(2) tells, with the sandbox's own ids. It is also what the Sys method of an
// fs.FileInfo gives, as a *Stat.
type Stat struct {
	Dev, Ino, Nlink, Rdev uint64
	Mode, UID, GID        uint32 // Mode as in inode(7)
	Size, Blksize, Blocks int64
	Atime, Mtime, Ctime   int64 // ns since the epoch
}

// Attr is what is to be set of a file. A Mode, UID or GID of -1 and LeaveTime leave a thing as it is.
type Attr struct {
	Mode         int64 // permission, setuid, setgid and sticky of inode(7)
	UID, GID     int64
	Atime, Mtime int64 // ns since the epoch
}

// LeaveTime is, in an Attr, a time that stays as it is.
const LeaveTime = math.MinInt64

// leave is an Attr that leaves everything as it is.
var leave = Attr{-1, -1, -1, LeaveTime, LeaveTime}

// nanos is a time of an Attr.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return LeaveTime
	}
	return t.UnixNano()
}

type fileInfo struct {
	name string
	st   Stat
}

func (fi *fileInfo) Name() string       { return fi.name }
func (fi *fileInfo) Size() int64        { return fi.st.Size }
func (fi *fileInfo) Mode() fs.FileMode  { return goMode(fi.st.Mode) }
func (fi *fileInfo) ModTime() time.Time { return time.Unix(0, fi.st.Mtime) }
func (fi *fileInfo) IsDir() bool        { return fi.Mode().IsDir() }
func (fi *fileInfo) Sys() any           { return &fi.st }
func (fi *fileInfo) String() string     { return fs.FormatFileInfo(fi) }

// The bits of a mode, see inode(7).
const (
	typeMask = 0o170000
	setUID   = 0o4000
	setGID   = 0o2000
	sticky   = 0o1000
)

// goMode is a mode of inode(7) as an fs.FileMode.
func goMode(mode uint32) fs.FileMode {
	typ, _ := fileType(uint8(mode & typeMask >> 12)) // d_type has the same numbers
	m := fs.FileMode(mode&0o777) | typ
	if mode&setUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&setGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&sticky != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// unixMode is the permission of m, with setuid, setgid and sticky, as in inode(7).
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= setUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= setGID
	}
	if m&fs.ModeSticky != 0 {
		mode |= sticky
	}
	return mode
}

var errTooLarge error = syscall.EFBIG

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// linkError names both names. It is an *fs.PathError, as all errors here are, and holds the *os.LinkError
// that os has in its place.
func linkError(op, oldname, newname string, err error) error {
	if err == nil {
		return nil
	}
	return pathError(op, oldname, &os.LinkError{Op: op, Old: oldname, New: newname, Err: err})
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// base is the last element of name, as os.FileInfo has it.
func base(name string) string {
	name = strings.TrimRight(name, "/")
	if name == "" {
		return "/"
	}
	return name[strings.LastIndexByte(name, '/')+1:]
}
