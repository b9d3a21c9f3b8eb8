package engine

import (
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// lend gives a descriptor of a file for a command, which is the caller's; os.ErrClosed if the file is closed. A
// directory is syscall.EISDIR, and so is what O_PATH opened: from either a guest would reach all of the host's
// files. A command expects that it blocks, which belongs to what the file has open and not to the descriptor, see fcntl(2).
// So a pipe, which knows no position, is opened again; with anything else Fd does what it does for os/exec: what
// the runtime made non-blocking, such as a terminal, blocks from then on.
func lend(f *os.File) (fd int, err error) {
	if f == nil {
		return -1, os.ErrClosed
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, os.ErrClosed
	}
	block := false
	cerr := rc.Control(func(p uintptr) {
		if fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			fd, block, err = blocking(fd)
		}
	})
	if cerr != nil {
		return -1, os.ErrClosed
	}
	if err != nil {
		return -1, &fs.PathError{Op: "dup", Path: f.Name(), Err: err}
	}
	if block {
		f.Fd()
	}
	return fd, nil
}

// blocking gives a descriptor, which it takes, as one that blocks. If it can't be opened again it stays as it is,
// and block is true.
func blocking(fd int) (_ int, block bool, err error) {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		closeFD(fd)
		return -1, false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || flags&unix.O_PATH != 0 {
		closeFD(fd)
		return -1, false, unix.EISDIR
	}
	if flags&unix.O_NONBLOCK == 0 {
		return fd, false, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fd, true, nil
	}
	again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags&(unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_DIRECT)|unix.O_CLOEXEC, 0)
	if err != nil { // another's, or without a reader
		return fd, true, nil
	}
	closeFD(fd)
	if err := unix.SetNonblock(again, false); err != nil {
		closeFD(again)
		return -1, false, err
	}
	return again, false, nil
}

// closeFD closes a descriptor that is no file's.
func closeFD(fd int) { _ = unix.Close(fd) }
