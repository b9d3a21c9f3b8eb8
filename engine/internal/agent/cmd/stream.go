//go:build linux

package main

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunkSize is how much is copied at a time.
	chunkSize = 16 << 10
	// patience is how long a command waits for a viewer that hasn't got what is to be overwritten, unless it
	// has got progress bytes meanwhile.
	patience = time.Second
	progress = 64 << 10
)

// stream keeps the end of what a command writes to one of its outputs, and passes it on to viewers.
type stream struct {
	r *os.File // the pipe's

	mu      sync.Mutex
	changed sync.Cond // more is there, or the end, or a viewer got on, or gave up
	ring    []byte    // nil: given up
	end     uint64    // how much was written, the last of which is in ring
	done    bool      // nothing more comes
	viewers map[*viewer]struct{}
}

// viewer is a descriptor that gets what a stream has and what it will get.
type viewer struct {
	*stream
	f    *os.File
	at   uint64 // how much it has got, or missed
	late bool   // it isn't waited for until it has caught up
	gone bool
	over chan struct{} // closed when the viewer needs nothing more

	before, since uint64 // what it has missed: before it came, and since
}

// newStream makes a stream of size bytes and gives the pipe's end that a command is to have.
func newStream(size uint64) (*stream, *os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	// Not of the Go heap: a page costs nothing until it is written, and all are given back at once.
	ring, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Fchmod(p[1], 0o666) // for /dev/stdout to be opened by any user, as the host's pipes
	}
	if err == nil {
		err = unix.SetNonblock(p[0], true)
	}
	if err != nil {
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return nil, nil, err
	}
	s := &stream{r: os.NewFile(uintptr(p[0]), "|0"), ring: ring, viewers: map[*viewer]struct{}{}}
	s.changed.L = &s.mu
	return s, os.NewFile(uintptr(p[1]), "|1"), nil
}

// pump reads what the command writes until nobody is left to write. It calls ended then with how much there
// was.
func (s *stream) pump(ended func(written uint64)) {
	chunk := make([]byte, chunkSize)
	for {
		n, err := s.r.Read(chunk)
		if n > 0 {
			s.put(chunk[:n])
		}
		if err != nil {
			break
		}
	}
	_ = s.r.Close()
	s.mu.Lock()
	s.done = true
	written := s.end
	s.changed.Broadcast()
	s.mu.Unlock()
	ended(written)
}

// put appends b, over what is oldest.
func (s *stream) put(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) > 0 && s.ring != nil {
		part := b[:min(len(b), len(s.ring))]
		s.makeRoomLocked(uint64(len(part)))
		if s.ring == nil {
			return
		}
		at := int(s.end % uint64(len(s.ring)))
		n := copy(s.ring[at:], part)
		copy(s.ring, part[n:])
		s.end += uint64(len(part))
		s.changed.Broadcast()
		b = b[len(part):]
	}
}

// makeRoomLocked waits for viewers that haven't got what the next n bytes go over, as long as they get on.
func (s *stream) makeRoomLocked(n uint64) {
	if s.end+n <= uint64(len(s.ring)) {
		return
	}
	first := s.end + n - uint64(len(s.ring)) // what stays
	for v := s.behindLocked(first); v != nil; v = s.behindLocked(first) {
		s.awaitLocked(v, first)
	}
}

// behindLocked gives a viewer that is to be waited for.
func (s *stream) behindLocked(first uint64) *viewer {
	for v := range s.viewers {
		if !v.late && v.at < first {
			return v
		}
	}
	return nil
}

// awaitLocked waits for a viewer to have got what is before first, or progress bytes. In the end it is late.
func (s *stream) awaitLocked(v *viewer, first uint64) {
	enough := v.at + min(progress, uint64(len(s.ring)))
	over := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		over = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	for !over && !v.gone && v.at < min(first, enough) {
		s.changed.Wait()
	}
	v.late = v.at < min(first, enough)
}

// view has f, which it takes, get what is kept and what is still to come.
func (s *stream) view(f *os.File) *viewer {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &viewer{stream: s, f: f, at: s.startLocked(), over: make(chan struct{})}
	v.before = v.at
	s.viewers[v] = struct{}{}
	go v.run()
	return v
}

// startLocked is how much was written before what is kept.
func (s *stream) startLocked() uint64 { return s.end - min(s.end, uint64(len(s.ring))) }

// run writes until the stream has ended or nobody reads any more.
func (v *viewer) run() {
	defer close(v.over)
	chunk := make([]byte, chunkSize)
	for n := v.next(chunk); n > 0; n = v.next(chunk) {
		if _, err := v.f.Write(chunk[:n]); err != nil {
			break
		}
	}
	v.stop()
}

// next waits for what the viewer hasn't got and puts it into b; 0: there is nothing, and won't be.
func (v *viewer) next(b []byte) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.at == v.end && !v.done && !v.gone {
		v.changed.Wait()
	}
	if v.gone || v.at == v.end {
		return 0
	}
	if start := v.startLocked(); v.at < start {
		v.since += start - v.at
		v.at = start
	}
	n := copy(b[:min(uint64(len(b)), v.end-v.at)], v.ring[v.at%uint64(len(v.ring)):])
	v.at += uint64(n)
	if v.at == v.end {
		v.late = false
	}
	v.changed.Broadcast()
	return n
}

// stop ends the viewer, now.
func (v *viewer) stop() {
	v.mu.Lock()
	v.gone = true
	delete(v.viewers, v)
	v.changed.Broadcast()
	v.mu.Unlock()
	_ = v.f.Close() // ends a Write
}

// missed tells what the viewer has not got.
func (v *viewer) missed() (before, since uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.before, v.since
}

// free gives up what is kept. There are no viewers any more, but those that are gone.
func (s *stream) free() {
	_ = s.r.Close() // ends the pump
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.Munmap(s.ring)
	s.ring = nil
}
