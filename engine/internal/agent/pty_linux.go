package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// masterDev is the device of a terminal's master, see pty(7).
var masterDev = unix.Mkdev(5, 2)

// master makes a file of what an agent sent as a terminal's master. What is none is an error.
func master(fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != masterDev {
		return nil, errReply
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for deadlines, and so that Close ends a Read
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "pty"), nil
}

// Resize tells a terminal, by its master, its size.
func Resize(master *os.File, rows, cols uint16) error {
	rc, err := master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if cerr != nil {
		return os.ErrClosed
	}
	return os.NewSyscallError("ioctl", err)
}
