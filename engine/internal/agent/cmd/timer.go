//go:build linux

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// timer is the kernel's, on CLOCK_BOOTTIME, which goes on while the host sleeps. To set it wakes no thread, as setting
// one of the runtime's may.
type timer struct {
	f  *os.File
	fd int // f's
}

func newTimer() (timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	return timer{os.NewFile(uintptr(fd), "timer"), fd}, err
}

// set has the timer expire at a time, 0 for never.
func (t timer) set(at time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	_ = unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// wait waits until the timer expires.
func (t timer) wait() {
	if _, err := t.f.Read(make([]byte, 8)); err != nil {
		os.Exit(exitSetup)
	}
}

// now is the time on the timers' clock.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
