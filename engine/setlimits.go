package engine

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/container"
)

// SetLimits changes the limits of the sandbox, whichever handle made it. A zero field leaves a limit as it is, and a
// negative one takes it away. Memory that is taken already is reclaimed, and if that is not enough the kernel ends
// processes, or refuses the limit, whose error is syscall.EBUSY. OpenFiles counts for commands that start from now
// on, and can only be lowered; Disk can't be changed; while the sandbox is paused it is ErrPaused. After an error some may be changed and
// others not; Limits tells.
func (s *Sandbox) SetLimits(ctx context.Context, l Limits) error {
	return opError("set limits", s.id, s.setLimits(ctx, l))
}

func (s *Sandbox) setLimits(ctx context.Context, l Limits) error {
	if _, err := l.or(Limits{}); err != nil {
		return err
	}
	if l.Disk != 0 {
		return invalid("Limits.Disk", "%d; a sandbox that lives keeps the disk that it has: create another", l.Disk)
	}
	return s.locked(ctx, func() error {
		f, err := s.e.state.readFacts(s.id)
		if err != nil {
			return err
		}
		if f.Disk == 0 {
			if l.DiskIOPS > 0 {
				return invalid("Limits.DiskIOPS", "%d; the sandbox was created without Limits.Disk", l.DiskIOPS)
			}
			l.DiskIOPS = 0
		}
		if err := s.setOpenFiles(ctx, l.OpenFiles, f.Limits.OpenFiles); err != nil {
			return err
		}
		if err := s.remember(Limits{OpenFiles: l.OpenFiles}); err != nil {
			return err
		}
		l.OpenFiles = 0
		if l == (Limits{}) {
			return nil
		}
		err = container.SetLimits(s.cgroup, container.Limits{
			Memory:    l.Memory,
			CPUs:      l.CPUs,
			Processes: int64(l.Processes),
			Disk:      f.Disk,
			DiskIOPS:  int64(l.DiskIOPS),
		})
		if err != nil {
			return err
		}
		return s.remember(l)
	})
}

// setOpenFiles has the agent lower its limit, which commands inherit. It lacks the capability to raise it.
func (s *Sandbox) setOpenFiles(ctx context.Context, most, now int) error {
	const reason = "%d; it is %d, and can only be lowered in a sandbox that lives: create another"
	switch {
	case most == 0, most < 0 && now < 0:
		return nil
	case most < 0:
		return invalid("Limits.OpenFiles", reason, most, now)
	}
	err := s.client.LimitOpenFiles(ctx, uint64(most))
	if errors.Is(err, syscall.EPERM) {
		return invalid("Limits.OpenFiles", reason, most, now)
	}
	return err
}

// remember writes down what limits have become.
func (s *Sandbox) remember(l Limits) error {
	return s.e.state.changeFacts(s.id, func(f *facts) {
		f.Limits = Limits{
			Memory:    orElse(l.Memory, f.Limits.Memory),
			CPUs:      orElse(l.CPUs, f.Limits.CPUs),
			Processes: orElse(l.Processes, f.Limits.Processes),
			OpenFiles: orElse(l.OpenFiles, f.Limits.OpenFiles),
			Disk:      f.Limits.Disk,
			DiskIOPS:  orElse(l.DiskIOPS, f.Limits.DiskIOPS),
		}
	})
}

// Limits tells the limits that the sandbox has, whichever handle set them. A negative field is no limit.
func (s *Sandbox) Limits() (Limits, error) {
	if err := s.usable(); err != nil {
		return Limits{}, opError("limits", s.id, err)
	}
	f, err := s.e.state.readFacts(s.id)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrEnded
	}
	return f.Limits, opError("limits", s.id, err)
}
