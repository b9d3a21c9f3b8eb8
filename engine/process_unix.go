//go:build unix

package engine

import "syscall"

// Sys is the wait status, a syscall.WaitStatus.
func (p *ProcessState) Sys() any { return syscall.WaitStatus(p.exit.Status) }

// SysUsage is a *syscall.Rusage, of which UserTime, SystemTime and MaxRSS are known.
func (p *ProcessState) SysUsage() any {
	r := &syscall.Rusage{
		Utime: syscall.NsecToTimeval(p.exit.User.Nanoseconds()),
		Stime: syscall.NsecToTimeval(p.exit.Sys.Nanoseconds()),
	}
	r.Maxrss = int64(min(p.exit.MaxRSSKiB, 1<<50))
	return r
}
