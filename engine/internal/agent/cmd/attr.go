//go:build linux

package main

import (
	"unsafe"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// setAttr sets what is asked for of a file that the handle has open.
func (q *request) setAttr() error {
	attr := wire.ReadAttr(q.r)
	if err := q.r.Done(); err != nil {
		return err
	}
	if len(q.fds) != 1 {
		return wire.ErrMessage
	}
	fd := q.fds[0]
	err := q.do(func() error {
		if attr.UID >= 0 || attr.GID >= 0 {
			if err := unix.Fchown(fd, int(attr.UID), int(attr.GID)); err != nil {
				return err
			}
		}
		if attr.Mode >= 0 { // after the owner, whose change takes setuid and setgid away
			if err := unix.Fchmod(fd, uint32(attr.Mode)&0o7777); err != nil {
				return err
			}
		}
		if attr.Atime == wire.LeaveTime && attr.Mtime == wire.LeaveTime {
			return nil
		}
		return futimens(fd, times(attr))
	})
	return q.done(err)
}

// done answers a request with nothing but its error. One that isn't made any more has no answer.
func (q *request) done(err error) error {
	switch err {
	case nil:
	case errStale:
		return nil
	default:
		return q.fail(errnoOf(err), "")
	}
	return q.send(q.ok())
}

// times are the times of attr for utimensat(2).
func times(attr wire.Attr) *[2]unix.Timespec {
	ts := &[2]unix.Timespec{}
	for i, ns := range [2]int64{attr.Atime, attr.Mtime} {
		ts[i] = unix.NsecToTimespec(ns)
		if ns == wire.LeaveTime {
			ts[i] = unix.Timespec{Nsec: unix.UTIME_OMIT}
		}
	}
	return ts
}

// chtimes sets the times of the file that name leads to.
func chtimes(name string, attr wire.Attr) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, times(attr)[:], 0)
}

// futimens sets the times of an open file, as futimens(3): utimensat(2) without a name, which x/sys has no
// call for.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// truncate sets a file's size, and never waits for a guest that has a lease on it, as truncate(2) does.
func truncate(name string, size int64) error {
	if size < 0 {
		return unix.EINVAL
	}
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err == unix.ENXIO { // a named pipe
		return unix.EINVAL
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, size)
}
