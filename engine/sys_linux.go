package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errRefused is what connecting to a socket says that nobody listens on.
const errRefused = unix.ECONNREFUSED

// flock takes a shared or the exclusive lock on an open directory, see flock(2), and waits for it.
func flock(d *os.File, exclusive bool) error { return flockHow(d, exclusive, 0) }

// tryFlock is flock, but doesn't wait; it is false if another has the lock.
func tryFlock(d *os.File, exclusive bool) (bool, error) {
	err := flockHow(d, exclusive, unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func flockHow(d *os.File, exclusive bool, how int) error {
	if how |= unix.LOCK_SH; exclusive {
		how = how&^unix.LOCK_SH | unix.LOCK_EX
	}
	for {
		err := unix.Flock(int(d.Fd()), how)
		if err != unix.EINTR {
			if err != nil {
				return &fs.PathError{Op: "flock", Path: d.Name(), Err: err}
			}
			return nil
		}
	}
}

// ownerOf gives the user that a file belongs to.
func ownerOf(fi fs.FileInfo) (uid int, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// memfd makes a file in memory with content that nobody can change any more, and gives it for reading.
func memfd(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there is no MFD_EXEC, and none needed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o555); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd))
}

// startTime tells when a process started, in ticks since the host did, and whether it has ended and nobody has
// waited for it yet, or the kernel is ending it. That takes a moment for an agent, with whose mounts its disk goes.
func startTime(pid int) (start uint64, ended bool, err error) {
	stat, err := openStat(pid)
	if err != nil {
		return 0, false, err
	}
	defer stat.Close()
	return readStat(stat)
}

// openStat opens what the kernel tells of a process, for readStat. It never tells of another.
func openStat(pid int) (*os.File, error) { return os.Open("/proc/" + strconv.Itoa(pid) + "/stat") }

// readStat is startTime of the process that stat tells of. One that is no more is an error.
func readStat(stat *os.File) (start uint64, ended bool, err error) {
	data := make([]byte, 1024) // 52 numbers, and a name of 64 bytes at most
	n, err := stat.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return 0, false, err
	}
	data = data[:n]
	// The second field is a name in parentheses that may hold anything, see proc_pid_stat(5).
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("%s: too few fields", stat.Name())
	}
	const exiting = 0x4 // PF_EXITING of the kernel's sched.h
	state := fields[0][0]
	flags, ferr := strconv.ParseUint(string(fields[6]), 10, 64)
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, state == 'Z' || state == 'X' || flags&exiting != 0, errors.Join(ferr, err)
}

// reapChild forgets an agent that has ended, or is about to, if it is this process's child. Its number may have become
// another's, for which this process may wait itself.
func reapChild(f facts) {
	if start, ended, err := startTime(f.PID); err == nil && ended && start == f.Start {
		within(holderTimeout, func() bool {
			pid, err := unix.Wait4(f.PID, nil, unix.WNOHANG, nil)
			return pid != 0 || err != nil // else the kernel is still ending it
		})
	}
}

// pipe makes a pipe for a command: its end, and the host's, which is good for deadlines and Close.
func pipe(toCommand bool) (command, host *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if !toCommand {
		p[0], p[1] = p[1], p[0]
	}
	// The sandbox's users are others than the host's. This lets them open /dev/stdout and its like; only
	// who has the descriptor already can.
	err = unix.Fchmod(p[0], 0o666)
	if err == nil {
		err = unix.SetNonblock(p[1], true)
	}
	if err != nil {
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return nil, nil, os.NewSyscallError("pipe", err)
	}
	return os.NewFile(uintptr(p[0]), "|0"), os.NewFile(uintptr(p[1]), "|1"), nil
}

// watch tells when a file in a directory is written or renamed, see inotify(7).
type watch struct{ f *os.File }

func watchDir(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_FROM|unix.IN_CREATE); err != nil {
		return nil, errors.Join(os.NewSyscallError("inotify_add_watch", err), f.Close())
	}
	return &watch{f}, nil
}

// wait waits until something has happened since the last time. What it was doesn't matter.
func (w *watch) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := w.f.Read(make([]byte, 4096))
	return err
}

func (w *watch) close() { _ = w.f.Close() }

// networkBytes adds up what a file as proc_pid_net(5) has in dev says of all interfaces.
func networkBytes(path string) (received, sent int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		_, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !ok || len(f) < 9 {
			continue
		}
		r, rerr := strconv.ParseInt(f[0], 10, 64)
		s, serr := strconv.ParseInt(f[8], 10, 64)
		if rerr != nil || serr != nil {
			return 0, 0, fmt.Errorf("%s: a line is malformed", path)
		}
		received, sent = received+r, sent+s
	}
	return received, sent, nil
}
