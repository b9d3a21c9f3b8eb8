package engine

import (
	"context"
	"errors"
	"io/fs"

	"github.com/nestbox/nestbox/engine/internal/container"
)

// Posture is how the kernel confines a sandbox, as read from the kernel and not from what was asked for. It is that
// of the agent, from which every command has it.
type Posture struct {
	UID, GID        uint32          // the host's ids of the sandbox's root
	Groups          []uint32        // the host's ids of supplementary groups; none are expected
	Capabilities    []string        // that a process of the sandbox can have, in its user namespace alone, sorted: "CAP_CHOWN", …
	NoNewPrivileges bool            // no program gives more, see prctl(2)
	Seccomp         string          // "disabled", "strict" or "filter"
	Namespaces      map[string]bool // by "cgroup", "ipc", "mnt", "net", "pid", "user", "uts": true: the sandbox's own; false: the host's
	Mounts          []MountPosture  // in the order in which they were made
	Limits          Limits          // what the cgroup holds the sandbox to; negative: no limit
}

// MountPosture is a mount inside a sandbox.
type MountPosture struct {
	Target                          string // inside
	Type                            string // of its file system
	ReadOnly, NoSuid, NoDev, NoExec bool
}

// Posture reads how the kernel confines the sandbox, for a program to assert in the field.
func (s *Sandbox) Posture(ctx context.Context) (Posture, error) {
	p, err := s.posture(ctx)
	if errors.Is(err, fs.ErrNotExist) { // it has ended meanwhile
		err = ErrEnded
	}
	return p, opError("posture", s.id, err)
}

func (s *Sandbox) posture(ctx context.Context) (Posture, error) {
	if err := s.usable(); err != nil {
		return Posture{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Posture{}, err
	}
	f, err := s.e.state.readFacts(s.id)
	if err != nil {
		return Posture{}, err
	}
	p, err := readPosture(f.PID)
	if err != nil {
		return Posture{}, err
	}
	l, err := container.ReadLimits(f.Cgroup)
	if err != nil {
		return Posture{}, err
	}
	p.Limits.Memory, p.Limits.CPUs, p.Limits.Processes, p.Limits.DiskIOPS = l.Memory, l.CPUs, int(l.Processes), int(l.DiskIOPS)
	if !f.alive() { // else the number is another's by now
		return Posture{}, fs.ErrNotExist
	}
	return p, nil
}
