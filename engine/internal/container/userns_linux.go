//go:build linux && cgo

package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// UserNamespace makes a user namespace with a sandbox's range of ids. It borrows the agent's program.
//
// A namespace needs a process to make it: the agent, told to do nothing, which is killed once the namespace
// is open, and ends by itself if this process dies before.
//
// The namespace belongs to the first user of the range. What the kernel counts for each user (inotify instances,
// pending signals, message queues, …) it counts for a namespace's owner too, who must not be the host's root, nor
// another sandbox's.
func UserNamespace(agent *os.File, uid uint32) (ns *os.File, err error) {
	err = onOwnThread(func() error {
		err := becomeOwner(int(uid))
		if err == nil {
			ns, err = userNamespace(agent, int(uid))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	return ns, nil
}

// becomeOwner makes the calling thread's effective user uid, with the capabilities that it has. The real one stays.
func becomeOwner(uid int) error {
	const noSetuidFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP of capabilities(7)
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	keep := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}

func userNamespace(agent *os.File, uid int) (ns *os.File, err error) {
	stdin, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer alive.Close()
	defer stdin.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: IDs}}
	p, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(int(agent.Fd())), []string{"agent", Idle}, &os.ProcAttr{
		Files: []*os.File{stdin},
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 unix.CLONE_NEWUSER,
			UidMappings:                ids,
			GidMappings:                ids,
			GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		kerr := p.Kill()
		_, werr := p.Wait()
		err = errors.Join(err, kerr, werr)
	}()
	return os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
}
