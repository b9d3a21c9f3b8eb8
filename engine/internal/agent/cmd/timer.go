//go:build linux

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// timer is the kernel's, see timerfd_create(2). To set it wakes no thread, as setting one of the runtime's may.
type timer struct {
	f  *os.File
	fd int // f's
}

func newTimer(clock int) (timer, error) {
	fd, err := unix.TimerfdCreate(clock, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	return timer{os.NewFile(uintptr(fd), "timer"), fd}, err
}

// at has the timer expire at a time on its clock, 0 for never.
func (t timer) at(time time.Duration) { t.set(unix.TFD_TIMER_ABSTIME, time) }

// in has the timer expire after a time, 0 for never.
func (t timer) in(d time.Duration) { t.set(0, d) }

func (t timer) set(flags int, d time.Duration) {
	_ = unix.TimerfdSettime(t.fd, flags, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
}

// wait waits until the timer expires.
func (t timer) wait() {
	if _, err := t.f.Read(make([]byte, 8)); err != nil {
		os.Exit(exitSetup)
	}
}

// now is the time on CLOCK_BOOTTIME, which goes on while the host sleeps.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
