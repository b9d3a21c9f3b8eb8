//go:build linux

package main

import (
	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// startPTY starts a command on a terminal of its own and sends the terminal's master.
func (q *request) startPTY(l launch) error {
	master, slave, err := openPTY(&l)
	if err != nil {
		return q.fail(errnoOf(err), wire.StagePTY)
	}
	defer unix.Close(master)
	defer unix.Close(slave)
	l.stdio = [3]int{slave, slave, slave}
	pid, serr := q.procs.start(l)
	if serr != nil {
		return q.failStart(l, serr)
	}
	return q.answerStart(q.ok().Uint(uint64(pid)), master)
}

// openPTY makes a terminal, which is the command's user's then, see pty(7). Both descriptors are the caller's.
// Whatever a guest put in the place of /dev/ptmx is an error, and never waited for.
func openPTY(l *launch) (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(master)
		}
	}()
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, err
	}
	size := &unix.Winsize{Row: l.Rows, Col: l.Cols}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, size); err != nil {
		return -1, -1, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, -1, errno
	}
	slave = int(peer)
	if err := unix.Fchown(slave, int(l.cred.uid), -1); err != nil {
		_ = unix.Close(slave)
		return -1, -1, err
	}
	return master, slave, nil
}
