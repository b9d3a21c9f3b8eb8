//go:build linux

package main

import (
	"runtime"
	"unsafe"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// starter is the thread that starts commands, which one does at a time anyway. They inherit its priority: the host
// raises that of all other threads, by its name not of this one, so that the agent answers however many processes the
// guest has at work.
type starter chan func()

func newStarter() (starter, error) {
	s, named := make(starter), make(chan error)
	go func() {
		runtime.LockOSThread()
		name := append([]byte(wire.Starter), 0)
		err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
		named <- err
		for f := range s {
			f()
		}
	}()
	return s, <-named
}

// do calls f on the thread.
func (s starter) do(f func()) {
	done := make(chan struct{})
	s <- func() {
		defer close(done)
		f()
	}
	<-done
}
