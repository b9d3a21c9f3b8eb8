package engine

import "syscall"

// oomKills is how many processes of a sandbox the kernel had ended for want of memory at some time; known is false
// where it doesn't tell.
type oomKills struct {
	n     uint64
	known bool
}

// oomKills counts now.
func (s *Sandbox) oomKills() oomKills {
	c, err := s.oom()
	if err != nil {
		return oomKills{}
	}
	n, err := c.Kills()
	return oomKills{n, err == nil}
}

// outOfMemory tells whether a command that ended did so for want of memory. The kernel only counts whom it ends:
// that it was this one is told by how it ended, or a shell of which it was the last command.
func (c *Cmd) outOfMemory(p *ProcessState) bool {
	const shells = 128 + int(syscall.SIGKILL)
	if p.Signal() != syscall.SIGKILL && p.ExitCode() != shells || !c.oomBefore.known {
		return false
	}
	now := c.sb.oomKills()
	return now.known && now.n > c.oomBefore.n
}
