package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Conn is one end of a connection. Send may be called from any goroutine; TryRecv by one at a time, which counts the calls
// that Recv makes, and those in Await.
type Conn struct {
	f    *os.File
	rc   syscall.RawConn
	turn chan struct{} // has an element while somebody waits for the queue

	in      incoming
	recvmsg func(fd uintptr) // in.recvmsg
}

// incoming is what is received, and where to. It is kept, and the system call made without unix.Recvmsg, for TryRecv to make
// no garbage: who looks for a message does so thousands of times.
type incoming struct {
	buf, oob []byte
	iov      unix.Iovec
	hdr      unix.Msghdr
	n        int
	errno    syscall.Errno
}

func (in *incoming) recvmsg(fd uintptr) {
	for {
		in.iov.Base = unsafe.SliceData(in.buf)
		in.iov.SetLen(len(in.buf))
		in.hdr = unix.Msghdr{Iov: &in.iov, Control: unsafe.SliceData(in.oob)}
		in.hdr.SetIovlen(1)
		in.hdr.SetControllen(len(in.oob))
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&in.hdr)), unix.MSG_CMSG_CLOEXEC)
		if in.n, in.errno = int(n), errno; errno != unix.EINTR {
			return
		}
	}
}

// NewConn makes a Conn of a connected socket, which it takes.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "agent.sock")
	rc, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	c := &Conn{f: f, rc: rc, turn: make(chan struct{}, 1)}
	c.in.oob = make([]byte, unix.CmsgSpace(4*maxRights))
	c.recvmsg = c.in.recvmsg
	return c, nil
}

// Dial connects to the socket name in the directory dir, whatever the length of dir's path.
func Dial(dir *os.File, name string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: through(dir, name)}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return NewConn(fd)
}

// Listen binds the socket name in the directory dir. The file is the caller's.
func Listen(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: through(dir, name)}); err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Pair makes a connection to nobody yet: its own end, and the one to send to whom it is for. Both are the
// caller's. As the other end is another's alone, nothing done to it can make this end wait.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	c, err := NewConn(fds[0])
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "pair"), nil
}

// through names a file of dir in the 108 bytes that a socket's address has, see unix(7).
func through(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

// Close ends the connection; a Recv that waits returns.
func (c *Conn) Close() error { return c.f.Close() }

// Send sends one message with descriptors, which stay the caller's. It waits while the other end's
// queue is full.
func (c *Conn) Send(b []byte, fds ...int) error {
	return c.SendContext(context.Background(), b, fds...)
}

// SendContext is Send, but waits until ctx is done at most, also for others that wait.
func (c *Conn) SendContext(ctx context.Context, b []byte, fds ...int) error {
	if err := c.send(false, b, fds); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	select { // the deadline is for one at a time, and who is in rc.Write keeps others out
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = c.f.SetWriteDeadline(time.Unix(1, 0))
	})
	err := c.send(true, b, fds)
	if !stop() {
		<-over
		_ = c.f.SetWriteDeadline(time.Time{})
		if err != nil {
			return context.Cause(ctx)
		}
	}
	return err
}

// TrySend is Send, but fails if it would have to wait.
func (c *Conn) TrySend(b []byte, fds ...int) error { return c.send(false, b, fds) }

func (c *Conn) send(wait bool, b []byte, fds []int) error {
	if len(b) > MaxMessage || len(fds) > MaxFiles {
		return ErrMessage
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var err error
	send := func(fd uintptr) (done bool) {
		err = ignoringEINTR(func() error { return unix.Sendmsg(int(fd), b, oob, nil, unix.MSG_NOSIGNAL) })
		return err != unix.EAGAIN
	}
	var werr error
	if wait {
		werr = c.rc.Write(send)
	} else { // not by Write, which waits for another Write
		werr = c.rc.Control(func(fd uintptr) { send(fd) })
	}
	if werr != nil {
		return werr
	}
	return os.NewSyscallError("sendmsg", err)
}

// Recv receives one message into buf, with descriptors that are the caller's then. It is io.EOF when
// the other end is gone.
func (c *Conn) Recv(buf []byte) (msg []byte, fds []int, err error) {
	err = c.Await(func() (err error) {
		msg, fds, err = c.TryRecv(buf)
		return err
	})
	if err != nil {
		CloseAll(fds)
		fds = nil
	}
	return msg, fds, err
}

// Await calls try, which calls TryRecv, again each time that something has come, until it is not ErrNoMessage.
func (c *Conn) Await(try func() error) (err error) {
	rerr := c.rc.Read(func(uintptr) bool {
		err = try()
		return err != ErrNoMessage
	})
	if rerr != nil {
		return rerr
	}
	return err
}

// maxRights is how many descriptors the kernel passes with a message, SCM_MAX_FD of unix(7). What a buffer has no room for it
// closes before it returns, however long that takes.
const maxRights = 253

// TryRecv is Recv, but is ErrNoMessage if it would have to wait. The descriptors are the caller's with ErrMessage, too.
func (c *Conn) TryRecv(buf []byte) (msg []byte, fds []int, err error) {
	in := &c.in
	in.buf = buf
	cerr := c.rc.Control(c.recvmsg)
	if cerr == nil && in.errno == unix.ECONNRESET { // told once; what was sent before comes after that
		cerr = c.rc.Control(c.recvmsg)
	}
	switch {
	case cerr != nil:
		return nil, nil, cerr
	case in.errno == unix.EAGAIN:
		return nil, nil, ErrNoMessage
	case in.errno == unix.ECONNRESET:
		return nil, nil, io.EOF
	case in.errno != 0:
		return nil, nil, os.NewSyscallError("recvmsg", in.errno)
	}
	if n := in.hdr.Controllen; n > 0 {
		fds = parseRights(in.oob[:n])
	}
	switch {
	case in.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0, len(fds) > MaxFiles, in.n == 0 && len(fds) > 0:
		return nil, fds, ErrMessage
	case in.n == 0:
		return nil, nil, io.EOF
	}
	return buf[:in.n], fds, nil
}

func parseRights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if f, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, f...)
		}
	}
	return fds
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Spill puts a message that is larger than MaxMessage into a file, to be sent with OpSpilled.
func Spill(b []byte) (*os.File, error) {
	if len(b) > MaxSpill {
		return nil, unix.E2BIG
	}
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "message")
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Unspill reads what Spill wrote.
func Unspill(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > MaxSpill {
		return nil, ErrMessage
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil || m == 0 {
			return nil, ErrMessage
		}
		n += m
	}
	return b, nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
