//go:build linux && cgo

package container

/*
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

// idle waits until the pipe's other end is closed. It runs in the memory of the host program, of which it touches
// nothing: its calls can't fail, so that errno isn't written either. It has copies of all that the program has open,
// and lets go of them, or it would hold sandboxes, and the pipes of others like it, when the program is killed.
static int idle(void *arg) {
	int in = *(int *)arg;
	char c;
	if (in > 0)
		syscall(SYS_close_range, 0, in - 1, 0);
	syscall(SYS_close_range, in + 1, ~0U, 0);
	syscall(SYS_read, in, &c, 1);
	return 0;
}

enum { IDLE_STACK = 16384 };

// start_idle starts idle as a process with a user namespace. It gives its number, or minus the errno. No signal
// reaches the process but those that can't be blocked: the host program's handlers are not for it. It sends none
// when it ends.
static int start_idle(char *stack, int *in) {
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int pid = clone(idle, stack + IDLE_STACK, CLONE_VM | CLONE_NEWUSER, in);
	if (pid < 0)
		pid = -errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UserNamespace makes a user namespace with a sandbox's range of ids.
//
// A namespace needs a process to make it: one that shares this one's memory, so that a host program with much of it
// needn't be copied, does nothing, and is killed once the namespace is open. It ends by itself if this process dies
// before.
//
// The namespace belongs to the first user of the range. What the kernel counts for each user (inotify instances,
// pending signals, message queues, …) it counts for a namespace's owner too, who must not be the host's root, nor
// another sandbox's.
func UserNamespace(uid uint32) (ns *os.File, err error) {
	err = onOwnThread(func() error {
		err := becomeOwner(int(uid))
		if err == nil {
			ns, err = userNamespace(int(uid))
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
	defer keepDumpable()()
	keep := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}

// dumpable is what PR_SET_DUMPABLE(2const) of this program was before the first of those began who are to keep it.
var dumpable struct {
	mu    sync.Mutex
	users int
	was   int
}

// keepDumpable has the kernel go on dumping cores of this program, if it does. It takes a program of which a thread, or a
// process with its memory, changes its user for one with secrets. Here the program itself doesn't.
func keepDumpable() (done func()) {
	d := &dumpable
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users++; d.users == 1 {
		d.was, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.users--
		if d.was == 1 {
			_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		}
	}
}

func userNamespace(uid int) (ns *os.File, err error) {
	err = withIdle(func(pid int) error {
		proc := fmt.Sprintf("/proc/%d/", pid)
		ids := fmt.Appendf(nil, "0 %d %d\n", uid, IDs)
		for _, name := range []string{"uid_map", "gid_map"} { // see user_namespaces(7)
			if err := os.WriteFile(proc+name, ids, 0); err != nil {
				return err
			}
		}
		f, err := os.Open(proc + "ns/user")
		ns = f
		return err
	})
	return ns, err
}

// withIdle calls f with the number of an idle process, which has a user namespace.
func withIdle(f func(pid int) error) (err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	// Both are C's: the process reads them after the call is over.
	stack := (*C.char)(C.malloc(C.IDLE_STACK))
	defer C.free(unsafe.Pointer(stack))
	in := (*C.int)(C.malloc(C.sizeof_int))
	defer C.free(unsafe.Pointer(in))
	*in = C.int(pipe[0])
	pid := int(C.start_idle(stack, in))
	if pid < 0 {
		return os.NewSyscallError("clone", syscall.Errno(-pid))
	}
	defer func() { err = errors.Join(err, end(pid)) }()
	return f(pid)
}

// end kills a process that sends no signal when it ends, and waits for it.
func end(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	return await(pid)
}
