//go:build linux

package main

import (
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
	case wire.OpWatch:
		return q.watch()
	case wire.OpWatchAdd:
		return q.watchAdd()
	case wire.OpWatchRemove:
		return q.watchRemove()
	}
	call, long, err := q.call()
	if err != nil {
		return err
	}
	cred := q.settings.cred
	if !long {
		return q.answer(cred.do(call))
	}
	return q.slow(func(q *request) error { return q.answer(cred.slowly(call)) })
}

// isHeavy tells whether to free what a file has may take long. A guest can have it in many pieces, each of which is given back
// to the host, as a transfer of the disk.
func isHeavy(name string, nofollow bool) bool {
	const heavy = 1 << 20 >> 9 // 1 MiB in the units of st_blocks
	flags := 0
	if nofollow {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Stat_t
	return unix.Fstatat(unix.AT_FDCWD, name, &st, flags) == nil && st.Blocks > heavy
}

// call reads the fields of a request that answers with nothing but its error, and tells whether it may take long.
func (q *request) call() (f func() error, long bool, err error) {
	name := q.name()
	switch q.op {
	case wire.OpMkdir:
		perm := uint32(q.r.Uint())
		f = func() error { return unix.Mkdir(name, perm) }
	case wire.OpMkdirAll:
		perm := fileMode(uint32(q.r.Uint()))
		f = func() error { return os.MkdirAll(name, perm) }
	case wire.OpRemove:
		f, long = func() error { return os.Remove(name) }, isHeavy(name, true)
	case wire.OpRemoveAll:
		f, long = func() error { return os.RemoveAll(name) }, true
	case wire.OpRename:
		to := q.name()
		f, long = func() error { return os.Rename(name, to) }, isHeavy(to, true)
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
		f, long = func() error { return truncate(name, size) }, isHeavy(name, false)
	case wire.OpChtimes:
		attr := wire.ReadAttr(q.r)
		f = func() error { return chtimes(name, attr) }
	default:
		return nil, false, wire.ErrMessage
	}
	return f, long, q.r.Done()
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
	cred := q.settings.cred
	if flags&unix.O_TRUNC != 0 && isHeavy(name, false) {
		return q.slow(func(q *request) error { return q.openBy(cred.slowly, name, flags, perm) })
	}
	return q.openBy(cred.do, name, flags, perm)
}

// openBy opens a file with the rights that do gives.
func (q *request) openBy(do func(func() error) error, name string, flags int, perm uint32) error {
	var fd int
	err := do(func() (err error) {
		for {
			if fd, err = unix.Open(name, flags, perm); err != unix.EINTR {
				return err
			}
		}
	})
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
	n, err := unix.Getdents(q.fds[0], buf)
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
	st, err := fstat(q.fds[0])
	return q.sendStat(st, err)
}

func (q *request) stat() error {
	name, nofollow := q.name(), q.r.Bool()
	if err := q.r.Done(); err != nil {
		return err
	}
	var st unix.Stat_t
	err := q.settings.cred.do(func() error {
		if nofollow {
			return unix.Lstat(name, &st)
		}
		return unix.Stat(name, &st)
	})
	return q.sendStat(toStat(&st), err)
}

func (q *request) sendStat(st wire.Stat, err error) error {
	if err != nil {
		return q.fail(errnoOf(err), "")
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
	err := q.settings.cred.do(func() (err error) {
		target, err = os.Readlink(name)
		return err
	})
	if err != nil {
		return q.fail(errnoOf(err), "")
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
