//go:build linux

package main

import (
	"runtime"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const backlog = 1<<16 - 1

// socket makes a socket as the sandbox's user and passes it to the host. A connect doesn't wait: the host
// does, on the socket.
func (q *request) socket() error {
	so := wire.ReadSocket(q.r)
	if err := q.r.Done(); err != nil {
		return err
	}
	kind, ok := so.Kind()
	if !ok {
		return wire.ErrMessage
	}
	if so.Path != "" && so.Path[0] != '@' {
		so.Path = q.abs(so.Path)
	}
	fd, stage := -1, ""
	err := q.settings.cred.be(func() (err error) {
		fd, stage, err = openSocket(so, kind, q.op == wire.OpListen)
		return err
	})
	if err != nil {
		return q.fail(errnoOf(err), stage)
	}
	defer unix.Close(fd)
	return q.send(q.ok(), fd)
}

// openSocket makes a socket that connects or listens. Its error comes with the system call that failed.
func openSocket(so wire.Socket, kind wire.SocketKind, listening bool) (fd int, stage string, err error) {
	fd, err = unix.Socket(kind.Domain, kind.Type|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, kind.Protocol)
	if err != nil {
		return -1, wire.StageSocket, err
	}
	if stage, err = setOptions(fd, so, kind, listening); err == nil {
		if listening {
			stage, err = listenOn(fd, sockaddr(so, kind))
		} else {
			stage, err = connect(fd, sockaddr(so, kind))
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, stage, err
	}
	return fd, "", nil
}

// setOptions sets the options that package net sets.
func setOptions(fd int, so wire.Socket, kind wire.SocketKind, listening bool) (stage string, err error) {
	set := func(level, name, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, name, value)
		}
	}
	if kind.Domain == unix.AF_INET6 {
		only := 1
		if so.Dual {
			only = 0
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if kind.Protocol == unix.IPPROTO_UDP {
		set(unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}
	if listening {
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	return wire.StageSetsockopt, err
}

func connect(fd int, sa unix.Sockaddr) (stage string, err error) {
	err = unix.Connect(fd, sa)
	if err == unix.EINPROGRESS || err == unix.EINTR {
		err = nil
	}
	return wire.StageConnect, err
}

func listenOn(fd int, sa unix.Sockaddr) (stage string, err error) {
	if err := unix.Bind(fd, sa); err != nil {
		return wire.StageBind, err
	}
	return wire.StageListen, unix.Listen(fd, backlog)
}

func sockaddr(so wire.Socket, kind wire.SocketKind) unix.Sockaddr {
	switch kind.Domain {
	case unix.AF_INET:
		sa := &unix.SockaddrInet4{Port: int(so.Port)}
		copy(sa.Addr[:], so.IP)
		return sa
	case unix.AF_INET6:
		sa := &unix.SockaddrInet6{Port: int(so.Port), ZoneId: so.Zone}
		copy(sa.Addr[:], so.IP)
		return sa
	default:
		return &unix.SockaddrUnix{Name: so.Path}
	}
}

// be calls f as the user: with the user's rights on files, without the agent's capability for low ports,
// and with the user as SO_PEERCRED of unix(7). As with do, that belongs to the thread.
func (c *credential) be(f func() error) error {
	if c.root() {
		return busy.do(f)
	}
	return busy.do(func() error { return c.beOnThread(f) })
}

func (c *credential) beOnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := c.become()
		if err == nil {
			err = f()
		}
		if unbecome() == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// become makes the user the effective one, which takes the effective capabilities, see capabilities(7). Those
// permitted stay, for the real user does.
func (c *credential) become() error {
	if err := setThreadGroups(c.groups); err != nil {
		return err
	}
	return setThreadIDs(c.uid, c.gid)
}

func unbecome() error {
	if err := setThreadID(unix.SYS_SETRESUID, 0); err != nil { // first: the rest takes its capabilities
		return err
	}
	if err := setThreadID(unix.SYS_SETRESGID, 0); err != nil {
		return err
	}
	if err := setThreadGroups(nil); err != nil {
		return err
	}
	return undumpable() // as in resume
}

func setThreadIDs(uid, gid uint32) error {
	if err := setThreadID(unix.SYS_SETRESGID, gid); err != nil {
		return err
	}
	return setThreadID(unix.SYS_SETRESUID, uid)
}

// setThreadID sets the effective id of the calling thread alone; setresuid(2) of the C library, and of Go,
// sets it for all.
func setThreadID(call uintptr, id uint32) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(call, unchanged, uintptr(id), unchanged); errno != 0 {
		return errno
	}
	return nil
}
