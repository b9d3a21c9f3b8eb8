package engine

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/nestbox/nestbox/rootfs"
)

// Stats is what a sandbox takes, and has taken since it was created, of the host. Sizes are in bytes.
type Stats struct {
	CPU              time.Duration // of all its processes
	Throttled        time.Duration // for which Limits.CPUs held them up
	Memory           int64         // with what of the page cache is charged to it
	MemoryPeak       int64         // 0 where the kernel doesn't tell
	Processes        int           // and threads, with the agent's
	ProcessesRefused uint64        // for which Limits.Processes left no room
	OOMKills         uint64        // processes ended for Limits.Memory
	Disk             int64         // taken by what it has written to its own files
	Files            int64         // how many those are, directories and what it deleted of the template included
	NetworkReceived  int64         // by all its interfaces, loopback included; with NetworkHost the host's
	NetworkSent      int64
}

// Stats measures what the sandbox takes. It works on a paused one too. Without Limits.Disk, Disk and Files are
// counted file by file, which takes a moment where there are many.
func (s *Sandbox) Stats(ctx context.Context) (Stats, error) {
	done, err := s.begin()
	if err != nil {
		return Stats{}, opError("stats", s.id, err)
	}
	defer done()
	st, err := s.e.stats(ctx, s.id)
	if errors.Is(err, fs.ErrNotExist) { // it has ended meanwhile
		err = ErrEnded
	}
	return st, opError("stats", s.id, err)
}

func (e *Engine) stats(ctx context.Context, id string) (Stats, error) {
	f, err := e.state.readFacts(id)
	if err != nil {
		return Stats{}, err
	}
	u, err := container.ReadUsage(f.Cgroup)
	if err != nil {
		return Stats{}, err
	}
	st := Stats{
		CPU:              u.CPU,
		Throttled:        u.Throttled,
		Memory:           u.Memory,
		MemoryPeak:       u.MemoryPeak,
		Processes:        u.Processes,
		ProcessesRefused: u.ProcessesRefused,
		OOMKills:         u.OOMKills,
	}
	proc := filepath.Join("/proc", strconv.Itoa(f.PID))
	if f.Limits.Disk > 0 {
		st.Disk, st.Files, err = rootfs.DiskUsage(filepath.Join(proc, "root")) // no name of the guest's: the kernel follows it
	} else {
		st.Disk, st.Files, err = rootfs.TreeUsage(ctx, e.state.sandbox(id))
	}
	if err != nil {
		return Stats{}, err
	}
	st.NetworkReceived, st.NetworkSent, err = networkBytes(filepath.Join(proc, "net", "dev"))
	if err == nil && !f.alive() { // else the number is another's by now
		err = fs.ErrNotExist
	}
	return st, err
}
