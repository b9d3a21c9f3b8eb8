package engine

import (
	"strconv"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// ProcessState tells how a command ended, as os.ProcessState does.
type ProcessState struct {
	pid  int
	exit wire.Exit
}

// ExitError tells that a command ended with an exit code other than 0, or by a signal.
type ExitError struct {
	*ProcessState
	// Stderr is what the command wrote to its standard error, as far as Output kept it.
	Stderr []byte
	// OOM tells that the command was killed, or its shell says so of a program, while the kernel ended processes
	// because Limits.Memory was used up. Of what ended before Attach it isn't known, and false.
	OOM bool
}

// Error tells the exit code or the signal, and whether the memory was used up.
func (e *ExitError) Error() string {
	if e.OOM {
		return e.ProcessState.String() + " (out of memory: Limits.Memory is used up)"
	}
	return e.ProcessState.String()
}

// The parts of a wait status, see wait(2).
func (p *ProcessState) signal() int  { return int(p.exit.Status & 0x7f) }
func (p *ProcessState) dumped() bool { return p.exit.Status&0x80 != 0 }

// Pid is the process number that the command had in the sandbox.
func (p *ProcessState) Pid() int { return p.pid }

// Exited tells whether the command ended by itself, and not by a signal.
func (p *ProcessState) Exited() bool { return p.signal() == 0 }

// Success tells whether the exit code is 0.
func (p *ProcessState) Success() bool { return p.exit.Status == 0 }

// ExitCode is the exit code, and -1 if a signal ended the command.
func (p *ProcessState) ExitCode() int {
	if p == nil || !p.Exited() {
		return -1
	}
	return int(p.exit.Status >> 8 & 0xff)
}

// Signal is the signal that ended the command, and 0 if none did.
func (p *ProcessState) Signal() syscall.Signal { return syscall.Signal(p.signal()) }

// UserTime is the processor time that the command, and those of its children that it waited for, took.
func (p *ProcessState) UserTime() time.Duration { return p.exit.User }

// SystemTime is the time that the kernel took for them.
func (p *ProcessState) SystemTime() time.Duration { return p.exit.Sys }

// MaxRSS is the largest resident set of any of them, in bytes.
func (p *ProcessState) MaxRSS() int64 { return int64(p.exit.MaxRSSKiB) << 10 }

// String gives "exit status 1", "signal: killed" and the like.
func (p *ProcessState) String() string {
	if p == nil {
		return "<nil>"
	}
	if p.Exited() {
		return "exit status " + strconv.Itoa(p.ExitCode())
	}
	s := "signal: " + p.Signal().String()
	if p.dumped() {
		s += " (core dumped)"
	}
	return s
}
