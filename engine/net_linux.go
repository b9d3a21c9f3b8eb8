package engine

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// shutdown has a listener accept nothing any more, see shutdown(2).
func shutdown(l net.Listener) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := sc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}
