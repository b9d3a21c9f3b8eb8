//go:build linux

package main

import (
	"runtime"
	"sync"
)

// The agent makes its threads when it starts: later the guest may have taken every process that the sandbox may
// have, and the Go runtime ends a program that can't get a thread. So there are never more system calls under way
// that may take long than there are threads for.
const (
	maxBusy  = 4 // requests that work on files or names
	maxSlow  = 2 // those that take long, such as OpRemoveAll
	parallel = 2 // GOMAXPROCS, as the environment has it that the agent is started with

	// One more is for what starts a command, for there is only one at a time; one for what reaps; the others
	// for the runtime itself.
	allThreads = maxBusy + maxSlow + parallel + 6
)

var (
	busy = make(slots, maxBusy)
	slow = make(slots, maxSlow)
)

// slots bound how many of something there are at a time.
type slots chan struct{}

// do calls f when there is a slot.
func (s slots) do(f func() error) error {
	s <- struct{}{}
	defer func() { <-s }()
	return f()
}

// makeThreads has the runtime start all threads, which it keeps.
func makeThreads() {
	runtime.GOMAXPROCS(parallel)
	var started, done sync.WaitGroup
	started.Add(allThreads)
	for range allThreads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			started.Wait() // until each has one
		})
	}
	done.Wait()
}
