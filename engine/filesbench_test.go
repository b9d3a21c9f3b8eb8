package engine_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
)

// copySize is how much the benchmarks of copies copy. At 1 GiB the host's page cache is full, and what is measured
// is its writing back.
var copySize = flag.Int64("copysize", 256<<20, "bytes that BenchmarkCopy copies")

// cpuBeside is sideBySide, and reports as "cpu-ratio" also the processor time of this process: what the disk does
// at the same time doesn't count in it.
func cpuBeside(b *testing.B, ours, host func()) {
	b.Helper()
	var us, them []time.Duration
	sideBySide(b, func() { us = append(us, processorTime(b, ours)) }, func() { them = append(them, processorTime(b, host)) })
	b.ReportMetric(float64(median(us))/float64(median(them)), "cpu-ratio")
}

func processorTime(b *testing.B, f func()) time.Duration {
	b.Helper()
	now := func() time.Duration {
		var r syscall.Rusage
		try(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	start := now()
	f()
	return now() - start
}

// BenchmarkCopyIn copies a file of the host's into a sandbox by io.Copy, beside a copy on the host.
func BenchmarkCopyIn(b *testing.B) {
	sb, path := copyBench(b)
	from, err := os.Open(path)
	try(b, err)
	defer from.Close()
	cpuBeside(b, func() {
		to, err := sb.FS().Create("to")
		try(b, err)
		copyFile(b, to, from)
	}, func() {
		to, err := os.Create(path + "2")
		try(b, err)
		copyFile(b, to, from)
	})
}

// BenchmarkCopyOut copies a file of a sandbox to the host.
func BenchmarkCopyOut(b *testing.B) {
	from, host, path := bothFiles(b)
	create := func() *os.File {
		to, err := os.Create(path + "2")
		try(b, err)
		return to
	}
	cpuBeside(b, func() { copyFile(b, create(), from) }, func() { copyFile(b, create(), host) })
}

// BenchmarkReadAll reads a file of a sandbox from end to end, and writes it nowhere.
func BenchmarkReadAll(b *testing.B) {
	from, host, _ := bothFiles(b)
	cpuBeside(b, func() { readAll(b, from) }, func() { readAll(b, host) })
}

// bothFiles opens one file in a sandbox and on the host, where it is at path.
func bothFiles(b *testing.B) (from *fsapi.File, host *os.File, path string) {
	b.Helper()
	sb, path := copyBench(b)
	in, err := sb.FS().Create("from")
	try(b, err)
	host, err = os.Open(path)
	try(b, err)
	b.Cleanup(func() { _ = host.Close() })
	copyFile(b, in, host)
	from, err = sb.FS().Open("from")
	try(b, err)
	b.Cleanup(func() { _ = from.Close() })
	return from, host, path
}

// copyBench makes a sandbox, and a file to copy.
func copyBench(b *testing.B) (*engine.Sandbox, string) {
	b.Helper()
	eng := openLarge(b)
	sb := create(b, eng, engine.CreateOptions{})
	path := filepath.Join(eng.Dir(), "copy") // on the file system that the sandbox writes to
	f, err := os.Create(path)
	try(b, err)
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * i >> 8)
	}
	for n := *copySize; n > 0; n -= int64(len(buf)) {
		_, err := f.Write(buf)
		try(b, err)
	}
	try(b, f.Close())
	return sb, path
}

type readSeeker interface {
	io.Reader
	io.Seeker
}

// copyFile copies all of from, and closes to.
func copyFile(b *testing.B, to io.WriteCloser, from readSeeker) {
	b.Helper()
	_, err := from.Seek(0, io.SeekStart)
	try(b, err)
	n, err := io.Copy(to, from)
	try(b, err)
	try(b, to.Close())
	if n != *copySize {
		b.Fatalf("copied %d bytes", n)
	}
}

func readAll(b *testing.B, from readSeeker) {
	b.Helper()
	_, err := from.Seek(0, io.SeekStart)
	try(b, err)
	buf := make([]byte, 128<<10)
	for {
		if _, err := from.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStat(b *testing.B) {
	sb := create(b, open(b, ""), engine.CreateOptions{})
	path := filepath.Join(b.TempDir(), "f")
	try(b, os.WriteFile(path, nil, 0o644))
	try(b, sb.FS().WriteFile("f", nil, 0o644))
	sideBySide(b, func() { _, err := sb.FS().Stat("f"); try(b, err) }, func() { _, err := os.Stat(path); try(b, err) })
}

// BenchmarkReplaceFile is beside writing, syncing and renaming on the host.
func BenchmarkReplaceFile(b *testing.B) {
	eng := open(b, "")
	sb := create(b, eng, engine.CreateOptions{})
	data, path := make([]byte, 4096), filepath.Join(eng.Dir(), "f")
	sideBySide(b, func() { try(b, sb.FS().ReplaceFile("f", data, 0o644)) }, func() {
		f, err := os.Create(path + "2")
		try(b, err)
		_, err = f.Write(data)
		try(b, err)
		try(b, f.Sync())
		try(b, f.Close())
		try(b, os.Rename(path+"2", path))
		d, err := os.Open(eng.Dir())
		try(b, err)
		try(b, d.Sync())
		try(b, d.Close())
	})
}
