//go:build linux

package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// openFlags are the flags that a handle may open a file with.
const openFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC | unix.O_APPEND |
	unix.O_SYNC | unix.O_DIRECTORY | unix.O_NOFOLLOW

// file answers a request about files, with the rights of the sandbox's user. What may take long is
// answered aside.
func (q *request) file() error {
	switch q.op {
	case wire.OpOpen:
		return q.open()
	case wire.OpReadDir:
		return q.readDir()
	case wire.OpFstat:
		return q.fstat()
	case wire.OpStat:
		return q.stat()
	case wire.OpReadlink:
		return q.readlink()
	case wire.OpSetAttr:
		return q.setAttr()
	case wire.OpPlace:
		return q.place()
	case wire.OpWatchAdd:
		return q.watchAdd()
	case wire.OpWatchRemove:
		return q.watchRemove()
	}
	call, heavy, err := q.call()
	if err != nil {
		return err
	}
	return q.freeing(func(_ *request, light bool) error {
		if light && heavy() {
			return errHeavy
		}
		return call()
	}, (*request).done)
}

var (
	errHeavy = errors.New("takes long")
	errStale = errors.New("a pause has begun") // of which the handle has been told
)

// freeing makes a call with the rights of the sandbox's user, and answers with what it gives. While that is light the call is
// errHeavy instead where it would free much: then it is made aside. What waits for its turn when a pause begins isn't made.
func (q *request) freeing(call func(q *request, light bool) error, answer func(*request, error) error) error {
	cred := q.settings.cred
	err := q.do(func() error { return call(q, true) })
	switch err {
	case errStale:
		return nil
	case errHeavy:
	default:
		return answer(q, err)
	}
	return q.slow(func(q *request) error {
		err := cred.slowly(func() error {
			if q.stale() {
				return errStale
			}
			return call(q, false)
		})
		if err == errStale {
			return nil
		}
		return answer(q, err)
	})
}

// do is do of the user's credential. A request that waits for its turn when a pause begins is errStale.
func (q *request) do(f func() error) error {
	return q.settings.cred.do(func() error {
		if q.overtaken() && q.stale() {
			return errStale
		}
		return f()
	})
}

// stale tells whether a pause has begun since the request was made.
func (q *request) stale() bool {
	q.gate.RLock()
	defer q.gate.RUnlock()
	return q.epoch != q.server.epoch
}

// isHeavy tells whether to free what a file in dir has may take long. A guest can have it in many pieces, each of which is given
// back to the host, as a transfer of the disk. One that exchanges files all the time gets the better of this, and holds up a
// slot of busy with each request.
func isHeavy(dir int, name string, flags int) bool {
	const heavy = 1 << 20 >> 9 // 1 MiB in the units of st_blocks
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, flags)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks > heavy
}

// call reads the fields of a request that answers with nothing but its error. heavy tells whether f may take long.
func (q *request) call() (f func() error, heavy func() bool, err error) {
	name := q.name()
	frees := func(name string, flags int) func() bool {
		return func() bool { return isHeavy(unix.AT_FDCWD, name, flags) }
	}
	heavy = func() bool { return false }
	switch q.op {
	case wire.OpMkdir:
		perm := uint32(q.r.Uint())
		f = func() error { return unix.Mkdir(name, perm) }
	case wire.OpMkdirAll:
		perm := fileMode(uint32(q.r.Uint()))
		f = func() error { return os.MkdirAll(name, perm) }
	case wire.OpRemove:
		f, heavy = func() error { return os.Remove(name) }, frees(name, unix.AT_SYMLINK_NOFOLLOW)
	case wire.OpRemoveAll:
		f, heavy = func() error { return os.RemoveAll(name) }, func() bool { return true }
	case wire.OpRename:
		to := q.name()
		f, heavy = func() error { return os.Rename(name, to) }, frees(to, unix.AT_SYMLINK_NOFOLLOW)
	case wire.OpSymlink:
		target := q.r.Text()
		f = func() error { return unix.Symlink(target, name) }
	case wire.OpChmod:
		mode := uint32(q.r.Uint())
		f = func() error { return unix.Chmod(name, mode) }
	case wire.OpChown:
		uid, gid := int(q.r.Int()), int(q.r.Int())
		f = func() error { return unix.Chown(name, uid, gid) }
	case wire.OpLink:
		to := q.name()
		f = func() error { return unix.Link(name, to) }
	case wire.OpTruncate:
		size := q.r.Int()
		f, heavy = func() error { return truncate(name, size) }, frees(name, 0)
	case wire.OpChtimes:
		attr := wire.ReadAttr(q.r)
		f = func() error { return chtimes(name, attr) }
	default:
		return nil, nil, wire.ErrMessage
	}
	return f, heavy, q.r.Done()
}

// fileMode is a permission of inode(7) as package os has it. Of the bits above, mkdir(2) minds the sticky one.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	if mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

// name reads a name. An empty one stays so, for the kernel to refuse.
func (q *request) name() string {
	name := q.r.Text()
	if name == "" {
		return ""
	}
	return q.abs(name)
}

// open opens a regular file or a directory and passes it to the host. Opening never waits, and of what
// else is opened, such as a named pipe, the host sees nothing.
func (q *request) open() error {
	name, flags, perm := q.name(), int(q.r.Uint()), uint32(q.r.Uint())
	if err := q.r.Done(); err != nil {
		return err
	}
	flags = flags&openFlags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_LARGEFILE
	fd := -1
	return q.freeing(func(_ *request, light bool) (err error) {
		if light && flags&unix.O_TRUNC != 0 && isHeavy(unix.AT_FDCWD, name, 0) {
			return errHeavy
		}
		for {
			if fd, err = unix.Open(name, flags, perm); err != unix.EINTR {
				return err
			}
		}
	}, func(q *request, err error) error { return q.opened(fd, flags, err) })
}

// opened answers with a file that was opened with flags, or with the error.
func (q *request) opened(fd, flags int, err error) error {
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	defer unix.Close(fd)
	st, err := fstat(fd)
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return q.fail(unix.EINVAL, "")
	}
	if errno := checkProc(fd); errno != 0 {
		return q.fail(errno, "")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK); err != nil {
		return q.fail(errnoOf(err), "")
	}
	m := q.ok()
	st.Put(m)
	return q.send(m, fd)
}

// checkProc refuses what of proc(5) is the agent's own, which a link of the guest's may lead to. That nothing of
// proc is written the host sees to.
func checkProc(fd int) syscall.Errno {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return errnoOf(err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return 0
	}
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return errnoOf(err)
	}
	own, ok := strings.CutPrefix(target+"/", "/proc/1/")
	if !ok {
		return 0
	}
	switch entry, _, _ := strings.Cut(own, "/"); entry {
	case "cgroup", "mountinfo", "mounts", "net": // the sandbox's as well
		return 0
	}
	return unix.EACCES
}

// readDir lists as much of the directory that is sent along as fits into a message. Where it goes on is
// kept by the descriptor.
func (q *request) readDir() error {
	if len(q.fds) != 1 {
		return wire.ErrMessage
	}
	// A record of getdents64(2) is never shorter than what becomes of it here.
	buf := make([]byte, wire.MaxMessage/2)
	n := 0
	err := busy.do(func() (err error) {
		n, err = unix.Getdents(q.fds[0], buf)
		return err
	})
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	m := q.ok().Uint(uint64(n)) // 0: the end
	for rest := buf[:n]; len(rest) > 0; {
		d := (*unix.Dirent)(unsafe.Pointer(&rest[0]))
		name := unix.ByteSliceToString(rest[unsafe.Offsetof(d.Name):d.Reclen])
		if name != "." && name != ".." {
			m.Text(name).Uint(uint64(d.Type))
		}
		rest = rest[d.Reclen:]
	}
	return q.send(m)
}

func (q *request) fstat() error {
	if len(q.fds) != 1 {
		return wire.ErrMessage
	}
	var st wire.Stat
	err := busy.do(func() (err error) {
		st, err = fstat(q.fds[0])
		return err
	})
	return q.sendStat(st, err)
}

func (q *request) stat() error {
	name, nofollow := q.name(), q.r.Bool()
	if err := q.r.Done(); err != nil {
		return err
	}
	var st unix.Stat_t
	err := q.do(func() error {
		if nofollow {
			return unix.Lstat(name, &st)
		}
		return unix.Stat(name, &st)
	})
	return q.sendStat(toStat(&st), err)
}

func (q *request) sendStat(st wire.Stat, err error) error {
	if err != nil {
		return q.done(err)
	}
	m := q.ok()
	st.Put(m)
	return q.send(m)
}

func (q *request) readlink() error {
	name := q.name()
	if err := q.r.Done(); err != nil {
		return err
	}
	var target string
	err := q.do(func() (err error) {
		target, err = os.Readlink(name)
		return err
	})
	if err != nil {
		return q.done(err)
	}
	return q.send(q.ok().Text(target))
}

func fstat(fd int) (wire.Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wire.Stat{}, err
	}
	return toStat(&st), nil
}

func toStat(st *unix.Stat_t) wire.Stat {
	return wire.Stat{
		Dev: st.Dev, Ino: st.Ino, Nlink: uint64(st.Nlink), Rdev: st.Rdev,
		Mode: st.Mode, UID: st.Uid, GID: st.Gid,
		Size: st.Size, Blksize: int64(st.Blksize), Blocks: st.Blocks,
		Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}
}
