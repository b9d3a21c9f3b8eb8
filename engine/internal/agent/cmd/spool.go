//go:build linux

package main

import (
	"os"
	"slices"
	"sync"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

const (
	// maxSpooled is how many bytes are set aside for what commands write, in all.
	maxSpooled = 64 << 20
	// minSpool is what a stream counts for at least.
	minSpool = 64 << 10
	// maxEnded is how many commands are remembered that have ended.
	maxEnded = 64
)

// spools are the commands whose output is kept. Locks are taken in this order: spools', spool's, stream's.
type spools struct {
	mu   sync.Mutex
	used uint64   // bytes set aside
	list []*spool // that can be attached to, oldest first
}

// spool is a command whose output is kept.
type spool struct {
	set     *spools
	about   wire.Process
	path    string
	streams []*stream // of standard output and, unless they are merged, standard error

	// Under set's mutex:
	refs  int      // one of set's list, and one of each attachment that needs what is kept; without any that goes
	sizes []uint64 // what is set aside for each stream

	mu       sync.Mutex
	command  *command
	exit     *wire.Exit // nil: it runs
	attached map[*attachment]struct{}
}

// attachment is a request that follows a command.
type attachment struct {
	spool   *spool
	exited  func(wire.Exit)
	viewers []*viewer
	pinned  bool // it has a reference; under the mutex of spool's set
}

// make makes a spool for a command and gives the descriptors of its outputs. What is kept of commands that have
// ended goes, oldest first, if there is no room else. The reference is the caller's.
func (s *spools) make(l launch) (_ *spool, outputs []*os.File, err error) {
	sp := &spool{set: s, path: l.Path, refs: 1, attached: map[*attachment]struct{}{}}
	n := 2
	if l.Stdio&wire.StdioMerged != 0 {
		n = 1
	}
	sp.sizes = slices.Repeat([]uint64{max(l.Spool, minSpool)}, n)
	if !s.reserve(sp.sizes) {
		return nil, nil, unix.ENOBUFS
	}
	for range n {
		stream, w, err := newStream(l.Spool)
		if err != nil {
			s.release(sp)
			closeFiles(outputs)
			return nil, nil, err
		}
		sp.streams, outputs = append(sp.streams, stream), append(outputs, w)
	}
	return sp, outputs, nil
}

// reserve sets bytes aside.
func (s *spools) reserve(sizes []uint64) bool {
	var n uint64
	for _, size := range sizes {
		if size > maxSpooled {
			return false
		}
		n += size
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.used+n > maxSpooled {
		if !s.evictLocked() {
			return false
		}
	}
	s.used += n
	return true
}

// evictLocked forgets the oldest command that has ended.
func (s *spools) evictLocked() bool {
	for _, sp := range s.list {
		if sp.ended() {
			s.forgetLocked(sp)
			return true
		}
	}
	return false
}

// forgetLocked lets nobody attach to the command any more.
func (s *spools) forgetLocked(sp *spool) {
	if i := slices.Index(s.list, sp); i >= 0 {
		s.list = slices.Delete(s.list, i, i+1)
		s.releaseLocked(sp)
	}
}

func (s *spools) release(sp *spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(sp)
}

// releaseLocked drops a reference.
func (s *spools) releaseLocked(sp *spool) {
	if sp.refs--; sp.refs > 0 {
		return
	}
	for _, stream := range sp.streams {
		stream.free()
	}
	for _, size := range sp.sizes {
		s.used -= size
	}
}

// add lets others attach to a command that has started.
func (s *spools) add(sp *spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.list {
		if old.about.PID == sp.about.PID { // which has ended, as the number is another's now
			s.forgetLocked(old)
			break
		}
	}
	sp.refs++
	s.list = append(s.list, sp)
}

// trim forgets what has ended first, if too many have.
func (s *spools) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sp := range s.list {
		if sp.ended() {
			n++
		}
	}
	if n > maxEnded {
		s.evictLocked()
	}
}

// find gives a command that can be attached to, with a reference.
func (s *spools) find(pid int) *spool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.list {
		if sp.about.PID != pid {
			continue
		}
		if sp.ended() && unix.Kill(pid, 0) == nil { // the number is another's now
			s.forgetLocked(sp)
			return nil
		}
		sp.refs++
		return sp
	}
	return nil
}

// pump keeps what the command writes.
func (sp *spool) pump() {
	for n, stream := range sp.streams {
		go stream.pump(func(written uint64) { // of what stays unused others may have the most
			sp.set.mu.Lock()
			defer sp.set.mu.Unlock()
			if size := max(minSpool, min(written, sp.sizes[n])); sp.refs > 0 && size < sp.sizes[n] {
				sp.set.used -= sp.sizes[n] - size
				sp.sizes[n] = size
			}
		})
	}
}

func (sp *spool) ended() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.exit != nil
}

// end tells all who are attached how the command has ended.
func (sp *spool) end(e wire.Exit) {
	sp.mu.Lock()
	sp.exit = &e
	for a := range sp.attached {
		go a.exited(e) // a handle that doesn't read keeps no other waiting
	}
	sp.mu.Unlock()
	sp.set.trim()
}

// attach follows the command. It takes a reference.
func (sp *spool) attach(exited func(wire.Exit)) *attachment {
	return &attachment{spool: sp, exited: exited, pinned: true}
}

// unpin gives back the reference.
func (a *attachment) unpin() {
	a.spool.set.mu.Lock()
	defer a.spool.set.mu.Unlock()
	if a.pinned {
		a.pinned = false
		a.spool.set.releaseLocked(a.spool)
	}
}

// begin has the command's end told, also if it is there already.
func (a *attachment) begin() {
	a.spool.mu.Lock()
	defer a.spool.mu.Unlock()
	a.spool.attached[a] = struct{}{}
	if a.spool.exit != nil {
		go a.exited(*a.spool.exit)
	}
}

// view has descriptors 1 and 2 get the command's output; it takes them; nil: none.
func (a *attachment) view(files [3]*os.File) {
	for n, stream := range a.spool.streams {
		if f := files[n+1]; f != nil {
			a.viewers = append(a.viewers, stream.view(f))
			files[n+1] = nil
		}
	}
	closeFiles(files[1:]) // standard error, where it is merged
	viewers := a.viewers
	go func() {
		for _, v := range viewers {
			<-v.over
		}
		a.unpin()
	}()
}

// end stops following the command, and forgets it if it has ended and was waited for. It gives what the viewers
// missed.
func (a *attachment) end(waited bool) (before, since uint64) {
	for _, v := range a.viewers {
		v.stop()
		b, s := v.missed()
		before, since = before+b, since+s
	}
	sp := a.spool
	sp.mu.Lock()
	delete(sp.attached, a)
	sp.mu.Unlock()
	if waited && sp.ended() {
		sp.set.mu.Lock()
		sp.set.forgetLocked(sp)
		sp.set.mu.Unlock()
	}
	a.unpin()
	return before, since
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
