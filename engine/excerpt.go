package engine

import (
	"fmt"
	"sync"
)

// Excerpt is a writer that keeps the beginning and the end of what is written to it, for a Cmd whose output may be
// of any size: a guest's limits don't count what the host keeps. The zero Excerpt is ready. It is safe for concurrent
// use.
type Excerpt struct {
	// Size is how much it keeps of the beginning, and as much of the end, in bytes. Zero: 32 KiB.
	Size int

	mu         sync.Mutex
	head, tail []byte
	skipped    int64
}

// Write keeps what it can of b. It never fails.
func (e *Excerpt) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	size := e.Size
	if size <= 0 {
		size = 32 << 10
	}
	n := len(b)
	take := min(len(b), max(0, size-len(e.head)))
	e.head = append(e.head, b[:take]...)
	e.tail = append(e.tail, b[take:]...)
	if over := len(e.tail) - size; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
		e.skipped += int64(over)
	}
	return n, nil
}

// Bytes gives what was kept, with a line in the place of what was not, as os/exec has it in ExitError.Stderr.
func (e *Excerpt) Bytes() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := append([]byte{}, e.head...)
	if e.skipped > 0 {
		all = fmt.Appendf(all, "\n... omitting %d bytes ...\n", e.skipped)
	}
	return append(all, e.tail...)
}

// String is Bytes as a string.
func (e *Excerpt) String() string { return string(e.Bytes()) }

// Omitted is how many bytes were not kept.
func (e *Excerpt) Omitted() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.skipped
}
