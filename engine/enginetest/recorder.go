package enginetest

import (
	"bytes"
	"fmt"
	"sync"
)

// maxOutput is how much of the output a recorder keeps, in bytes.
const maxOutput = 8 << 10

// recorder keeps the last of what commands print.
type recorder struct {
	mu      sync.Mutex
	buf     []byte
	command string // that printed last
	skipped bool
}

func (r *recorder) write(command string, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if command != r.command {
		if n := len(r.buf); n > 0 && r.buf[n-1] != '\n' {
			r.buf = append(r.buf, '\n')
		}
		r.buf = fmt.Appendf(r.buf, "$ %s\n", command)
		r.command = command
	}
	r.buf = append(r.buf, b...)
	if over := len(r.buf) - maxOutput; over > 0 {
		r.buf = append(r.buf[:0], r.buf[over:]...)
		r.skipped = true
	}
}

// text gives what was kept.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := bytes.ToValidUTF8(r.buf, []byte("\uFFFD"))
	switch {
	case len(text) == 0:
		return "(none)\n"
	case r.skipped:
		return "…" + string(text)
	}
	return string(text)
}
