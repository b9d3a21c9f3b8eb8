package engine

import (
	"context"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Process is a process of a sandbox, or a command that has ended and can be attached to. Everything but PID is
// what the sandbox says of itself.
type Process struct {
	PID, PPID  int
	Name       string   // of its program, at most 15 bytes; it can change that itself
	Args       []string // its arguments, the first 2 KiB; none: it has ended, or removed them
	User       string   // its name in the sandbox, or its number
	Start      time.Time
	State      string // "running", "sleeping", "waiting" (for a disk, say), "stopped", "zombie", "ended" or "unknown"
	Command    bool   // a Cmd started it, of any handle
	Attachable bool   // it can be attached to: it was started with a Spool
}

// Processes tells what runs in the sandbox, in the order of the PIDs, and which commands have ended and can be
// attached to. The sandbox's own first process, of number 1, is left out. More than 65536 are an error.
func (s *Sandbox) Processes(ctx context.Context) ([]Process, error) {
	if err := s.usable(); err != nil {
		return nil, opError("processes", s.id, err)
	}
	all, err := s.client.Processes(ctx)
	if err != nil {
		return nil, opError("processes", s.id, err)
	}
	list := make([]Process, len(all))
	for i, p := range all {
		list[i] = Process{
			PID:        p.PID,
			PPID:       p.PPID,
			Name:       p.Name,
			Args:       p.Args,
			User:       p.User,
			Start:      time.Unix(0, p.Start),
			State:      stateOf(p),
			Command:    p.Command,
			Attachable: p.Attachable,
		}
	}
	return list, nil
}

// stateOf gives the state in words, see proc_pid_stat(5).
func stateOf(p wire.Process) string {
	switch p.State {
	case 0:
		return "ended"
	case 'R':
		return "running"
	case 'S', 'I':
		return "sleeping"
	case 'D':
		return "waiting"
	case 'T', 't':
		return "stopped"
	case 'Z', 'X':
		return "zombie"
	default:
		return "unknown"
	}
}
