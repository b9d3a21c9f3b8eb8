//go:build linux

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// limits are what the agent, and so every process of the sandbox, may take of the kernel's memory beside its
// cgroup; see getrlimit(2). The host can't set them: its root isn't the owner of the sandbox's user namespace.
var limits = []struct{ resource, most uint64 }{
	{unix.RLIMIT_CORE, 0},
	{unix.RLIMIT_MEMLOCK, 8 << 20},
	{unix.RLIMIT_NICE, 0},
	{unix.RLIMIT_RTPRIO, 0},
	{unix.RLIMIT_MSGQUEUE, 819200}, // the kernel's default
	{unix.RLIMIT_SIGPENDING, 4096},
}

func limitAll() error {
	for _, l := range limits {
		if err := limit(int(l.resource), l.most); err != nil {
			return err
		}
	}
	return nil
}

// limitOpenFiles limits the descriptors of each process; 0 leaves them as they are.
func limitOpenFiles(most uint64) error {
	if most == 0 {
		return nil
	}
	return limit(unix.RLIMIT_NOFILE, most)
}

// limit lowers a limit. One that is lower already stays, as it takes a capability of the host's to raise it. With
// package syscall's call commands get the limit that is set, and not the one that Go found at its start.
func limit(resource int, most uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(resource, &now); err != nil {
		return err
	}
	most = min(most, now.Max)
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most})
}

// limitOpenFiles changes the limit of a sandbox that lives. It is EPERM to raise it.
func (q *request) limitOpenFiles() error {
	most := q.r.Uint()
	if err := q.r.Done(); err != nil {
		return err
	}
	var now syscall.Rlimit
	err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &now)
	if err == nil && most > now.Max {
		err = unix.EPERM
	}
	if err == nil {
		err = limitOpenFiles(most)
	}
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	return q.send(q.ok())
}
