//go:build linux

package main

import (
	"os"
	"sync"
	"time"

	"github.com/nestbox/nestbox/lease"
	"golang.org/x/sys/unix"
)

// life keeps the sandbox's lease and ends the agent when it is over.
type life struct {
	timer timer

	mu        sync.Mutex
	rule      *lease.Lifetime
	suspended bool // while the sandbox is paused the host sees to its end
}

func newLife() (*life, error) {
	timer, err := newTimer(unix.CLOCK_BOOTTIME)
	if err != nil {
		return nil, err
	}
	l := &life{timer: timer, rule: lease.NewLifetime(now(), firstHold)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armLocked()
	return l, nil
}

// change applies f to the lease. Where the lease is over already, or was over but for f, the agent
// ends and change does not return.
func (l *life) change(f func(now time.Duration, rule *lease.Lifetime)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := now()
	if l.rule.Ended(t) {
		os.Exit(exitEnded)
	}
	f(t, l.rule)
	l.armLocked()
}

// release closes a handle. It tells the host by done, before the agent ends, whether that ended the
// sandbox.
func (l *life) release(done func(ended bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rule.Release(now())
	ended := l.rule.Ended(now())
	done(ended)
	if ended {
		os.Exit(exitEnded)
	}
	l.armLocked()
}

// suspend keeps the lease from ending until resume.
func (l *life) suspend() {
	l.change(func(now time.Duration, rule *lease.Lifetime) {
		if !l.suspended {
			l.suspended = true
			rule.Hold(now)
		}
	})
}

// resume sets the deadline to what it has become, 0 for none, and lets the lease go on.
func (l *life) resume(remaining time.Duration) {
	l.change(func(now time.Duration, rule *lease.Lifetime) {
		if l.suspended {
			l.suspended = false
			rule.KeepAlive(now, remaining)
			rule.Release(now)
		}
	})
}

// armLocked sets the timer to the lease's end.
func (l *life) armLocked() {
	at, ok := l.rule.End() // 0 and false: never
	if ok {
		at = max(1, at)
	}
	l.timer.at(at)
}

// watch ends the agent when the timer says that the lease is over.
func (l *life) watch() {
	for {
		l.timer.wait()
		l.change(func(time.Duration, *lease.Lifetime) {})
	}
}
