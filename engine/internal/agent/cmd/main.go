//go:build linux

// Command cmd is the agent: PID 1 of a sandbox. It holds the sandbox's lease, starts commands and opens
// files for the handles that are connected to it, and reaps what is orphaned. When the lease is over it
// exits, and the kernel ends everything else in the sandbox.
//
// It is given a listening socket as descriptor 3 and its own program as descriptor 4, /dev/null as those below, and no
// supplementary groups. It says nothing and dies of nothing but the end of its lease: a request that fails is answered
// with its error.
package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	listenFD  = 3
	programFD = 4

	// firstHold is how long a fresh agent waits for the handle that made it.
	firstHold = 10 * time.Second
)

func main() {
	if os.Getpid() != 1 { // a guest has found the program
		os.Exit(exitSetup)
	}
	unix.CloseOnExec(listenFD)
	_ = unix.Close(programFD)
	if err := limitAll(); err != nil {
		os.Exit(exitSetup)
	}
	makeThreads()
	defaultSignals()
	procs, err := newProcs()
	if err != nil {
		os.Exit(exitSetup)
	}
	// After this nothing in the sandbox can trace the agent or look into its descriptors, see
	// ptrace(2) and PR_SET_DUMPABLE(2const). What it opened in /proc for itself it opened before.
	if err := undumpable(); err != nil {
		os.Exit(exitSetup)
	}
	go procs.reapOrphans()
	go procs.freeStuck()
	life, err := newLife()
	if err != nil {
		os.Exit(exitSetup)
	}
	go life.watch()
	turns, err := newTurns()
	if err != nil {
		os.Exit(exitSetup)
	}
	s := &server{life: life, procs: procs, spools: &spools{}, turns: turns, conns: map[*conn]struct{}{}}
	go s.overtake()
	s.listen(listenFD)
}

// The agent's exit codes. Nobody depends on them; they help when debugging with strace.
const (
	exitEnded = iota
	exitSetup
	exitListen
)

// defaultSignals gives all signals but those that the Go runtime needs their default action, which for PID 1 is none,
// whoever sends them; see pid_namespaces(7). The runtime's own would be to end the agent. They must not be ignored either:
// a command would inherit that.
func defaultSignals() {
	const last, mask = 64, 8
	var action [4]uint64 // struct sigaction of the kernel's, with SIG_DFL
	for sig := syscall.Signal(1); sig <= last; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGURG, sigThreads:
		default:
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, mask, 0, 0)
		}
	}
}

// sigThreads is what the Go runtime has its threads make a system call by. It takes no harm of one that another sent.
const sigThreads = syscall.Signal(33)

func undumpable() error {
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// errnoOf is the errno in err, or EIO if it holds none.
func errnoOf(err error) syscall.Errno {
	for err != nil {
		switch e := err.(type) {
		case syscall.Errno:
			return e
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		default:
			return unix.EIO
		}
	}
	return 0
}
