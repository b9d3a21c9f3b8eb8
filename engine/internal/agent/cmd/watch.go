//go:build linux

package main

import (
	"os"
	"unsafe"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

const (
	// maxWatches is how many OpWatch a connection has at a time. Each is an inotify instance, of which the kernel
	// allows a sandbox 128 unless fs.inotify.max_user_instances says more.
	maxWatches = 64

	watchMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

// watch passes on what inotify(7) tells, over a socket of its own. While the host doesn't read, the kernel's
// bounded queue fills, and ends with an overflow. It ends with the socket or the connection.
type watch struct {
	events *os.File
	w      *wire.Conn
}

// watch begins a watch of nothing yet.
func (q *request) watch() error {
	if err := q.r.Done(); err != nil {
		return err
	}
	if len(q.fds) != 1 {
		return wire.ErrMessage
	}
	w, err := newWatch(q.fds[0])
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	c, id := q.conn, q.id
	if !c.addWatch(id, w) {
		w.close()
		return q.fail(unix.EMFILE, "")
	}
	go func() {
		w.pump()
		w.close()
		c.mu.Lock()
		delete(c.watches, id)
		c.mu.Unlock()
	}()
	go w.untilClosed()
	return q.send(q.ok())
}

// newWatch borrows the socket fd.
func newWatch(fd int) (*watch, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn, err := wire.NewConn(fd)
	if err != nil {
		return nil, err
	}
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &watch{os.NewFile(uintptr(in), "inotify"), conn}, nil
}

func (c *conn) addWatch(id uint32, w *watch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.watches) >= maxWatches || c.watches[id] != nil {
		return false
	}
	if c.watches == nil {
		c.watches = map[uint32]*watch{}
	}
	c.watches[id] = w
	return true
}

// closeWatches ends what the connection watches.
func (c *conn) closeWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		w.close()
	}
}

func (w *watch) close() {
	_ = w.events.Close()
	_ = w.w.Close()
}

// untilClosed ends the watch when the host closes its end, or sends what it may not.
func (w *watch) untilClosed() {
	_, fds, _ := w.w.Recv(make([]byte, 1))
	wire.CloseAll(fds)
	w.close()
}

// pump passes events on until there are no more.
func (w *watch) pump() {
	// What becomes of an event is never longer than what inotify(7) says of it.
	buf, out := make([]byte, 16<<10), make([]byte, 0, 20<<10)
	for {
		n, err := w.events.Read(buf)
		if err != nil {
			return
		}
		m := wire.New(out, wire.OpWatch, 0)
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&rest[0]))
			end := unix.SizeofInotifyEvent + int(e.Len)
			name := unix.ByteSliceToString(rest[unix.SizeofInotifyEvent:end])
			wire.WatchEvent{WD: e.Wd, Mask: e.Mask, Name: name}.Put(m)
			rest = rest[end:]
		}
		if w.w.Send(m.Bytes()) != nil {
			return
		}
	}
}

// watchAdd adds a directory to a watch.
func (q *request) watchAdd() error {
	w, name, nofollow := q.watchOf(uint32(q.r.Uint())), q.name(), q.r.Bool()
	if err := q.r.Done(); err != nil {
		return err
	}
	mask := uint32(watchMask)
	if nofollow {
		mask |= unix.IN_DONT_FOLLOW
	}
	var wd int
	err := q.do(func() error {
		return w.control(func(fd int) (err error) {
			wd, err = unix.InotifyAddWatch(fd, name, mask)
			return err
		})
	})
	if err != nil {
		return q.done(err)
	}
	return q.send(q.ok().Uint(uint64(wd)))
}

// watchRemove takes a directory from a watch.
func (q *request) watchRemove() error {
	w, wd := q.watchOf(uint32(q.r.Uint())), uint32(q.r.Uint())
	if err := q.r.Done(); err != nil {
		return err
	}
	return q.done(busy.do(func() error {
		return w.control(func(fd int) error {
			_, err := unix.InotifyRmWatch(fd, wd)
			return err
		})
	}))
}

func (q *request) watchOf(id uint32) *watch {
	q.conn.mu.Lock()
	defer q.conn.mu.Unlock()
	return q.watches[id]
}

// control calls f with the descriptor of inotify(7), or fails with EBADF if the watch has ended.
func (w *watch) control(f func(fd int) error) error {
	if w == nil {
		return unix.EBADF
	}
	rc, err := w.events.SyscallConn()
	if err != nil {
		return unix.EBADF
	}
	if cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return unix.EBADF
	}
	return err
}
