package agent

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// takeSocket makes a file of the descriptor unsafeFD if it is the socket that was asked for.
func takeSocket(unsafeFD int, so wire.Socket, listening bool) (*os.File, error) {
	err := checkSocket(unsafeFD, so, listening)
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(unsafeFD, true))
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(unsafeFD), so.Net), nil
}

// checkSocket looks at what a descriptor is, see socket(7).
func checkSocket(unsafeFD int, so wire.Socket, listening bool) error {
	kind, ok := so.Kind()
	if !ok {
		return errReply
	}
	accepts := 0
	if listening {
		accepts = 1
	}
	for _, opt := range []struct{ name, want int }{
		{unix.SO_DOMAIN, kind.Domain},
		{unix.SO_TYPE, kind.Type},
		{unix.SO_PROTOCOL, kind.Protocol},
		{unix.SO_ACCEPTCONN, accepts},
	} {
		if got, err := unix.GetsockoptInt(unsafeFD, unix.SOL_SOCKET, opt.name); err != nil || got != opt.want {
			return errReply
		}
	}
	if !listening && kind.Protocol != unix.IPPROTO_TCP { // the others connect at once
		if _, err := unix.Getpeername(unsafeFD); err != nil {
			return errReply
		}
	}
	return nil
}

// awaitConnect waits until a socket has connected, or can't.
func awaitConnect(ctx context.Context, f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var cerr error
	err = rc.Write(func(fd uintptr) bool {
		var done bool
		done, cerr = connected(int(fd))
		return done
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	default:
		return cerr
	}
}

// connected tells what became of a connect that didn't wait, see EINPROGRESS in connect(2).
func connected(fd int) (done bool, err error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, os.NewSyscallError("getsockopt", err)
	}
	switch errno := syscall.Errno(errno); errno {
	case 0:
		_, err := unix.Getpeername(fd) // an error: woken too early
		return err == nil, nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return false, nil
	default:
		return true, os.NewSyscallError("connect", errno)
	}
}
