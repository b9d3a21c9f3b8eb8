package rootfs

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep RemoveTree descends before it brings what is below to the top. It holds a descriptor
// for each level.
const maxDepth = 64

// RemoveTree removes a directory and all in it, until ctx is done. A guest has made what is in there, and
// nothing may use it any more: links are not followed, any depth and any mode is fine. It is no error if there
// is nothing, or another removes it too.
func RemoveTree(ctx context.Context, dir string) error {
	dir = filepath.Clean(dir)
	parent, err := unix.Open(filepath.Dir(dir), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer unix.Close(parent)
	r := &remover{ctx: ctx, top: -1}
	if err := r.entry(parent, filepath.Base(dir), 0); err != nil {
		return &os.PathError{Op: "remove", Path: dir, Err: err}
	}
	return nil
}

type remover struct {
	ctx context.Context
	top int // the directory that is being removed
}

// entry removes name in the directory at.
func (r *remover) entry(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if depth > maxDepth {
		if err := unix.Renameat(at, name, r.top, rand.Text()); err != unix.ENOENT {
			return err
		}
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if r.top < 0 {
		r.top = fd
		err = r.empty(fd)
	}
	if err == nil {
		err = r.contents(fd, depth)
	}
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// piece is how much of a disk is freed at a time.
const piece = 4 << 20

// empty frees what the disk in the directory at has, in pieces: a guest may have written it in so many places that to remove it
// at once takes a minute, in which nothing could stop it. Not if it is in use, as it is by who has a file on it open: then it is
// freed when that is closed. Where it can't be done there is no error.
func (r *remover) empty(at int) error {
	fd, err := unix.Openat(at, diskFile, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || st.Blocks*512 <= piece {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil { // others have it open
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		return nil
	}
	for pos := int64(0); ; {
		if err := context.Cause(r.ctx); err != nil {
			return err
		}
		if pos, err = unix.Seek(fd, pos, unix.SEEK_DATA); err != nil { // there is none after pos
			return nil
		}
		switch err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, pos, piece); err {
		case nil:
			pos += piece
		case unix.EINTR:
		default:
			return nil
		}
	}
}

// contents removes what is in a directory, until a look finds nothing.
func (r *remover) contents(fd, depth int) error {
	buf := make([]byte, 8<<10)
	for {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
		found := false
		for {
			if err := context.Cause(r.ctx); err != nil {
				return err
			}
			n, err := unix.Getdents(fd, buf)
			if errors.Is(err, unix.ENOENT) || n == 0 && err == nil { // the directory is gone, or read
				break
			}
			if err != nil {
				return err
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			for _, name := range names {
				found = true
				if err := r.entry(fd, name, depth+1); err != nil {
					return err
				}
			}
		}
		if !found {
			return nil
		}
	}
}
