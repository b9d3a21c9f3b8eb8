package engine_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// The benchmarks measure each thing beside what the host takes for it, in turns, and report the medians in µs
// and, as "ratio", the first by the second:
//
//	go test ./engine -run '^$' -bench .

// sideBySide times ours and, if there is one, the yardstick in turns.
func sideBySide(b *testing.B, ours, yardstick func()) {
	b.Helper()
	var us, them []time.Duration
	timed := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	for b.Loop() {
		us = append(us, timed(ours))
		if yardstick != nil {
			them = append(them, timed(yardstick))
		}
	}
	report(b, us, them)
}

// report reports the medians of ours and, if there is one, of the yardstick.
func report(b *testing.B, ours, yardstick []time.Duration) {
	b.ReportMetric(micros(median(ours)), "µs/op")
	b.ReportMetric(0, "ns/op") // both, and what is between: of no use
	if len(yardstick) > 0 {
		b.ReportMetric(micros(median(yardstick)), "host-µs/op")
		b.ReportMetric(float64(median(ours))/float64(median(yardstick)), "ratio")
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// try ends a benchmark at an error.
func try(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// bubblewrap runs true in namespaces and on a root like a sandbox's, where it is installed.
func bubblewrap(b *testing.B) func() {
	b.Helper()
	path, err := exec.LookPath("bwrap")
	if err != nil {
		b.Log("no yardstick: bubblewrap is not installed")
		return nil
	}
	args := []string{"--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
		"--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "true"}
	return func() { try(b, exec.Command(path, args...).Run()) }
}

func BenchmarkCreate(b *testing.B) {
	eng := open(b, "")
	var made []*engine.Sandbox
	sideBySide(b, func() {
		sb, err := eng.Create(b.Context(), engine.CreateOptions{})
		try(b, err)
		made = append(made, sb)
	}, nil)
	for _, sb := range made {
		try(b, sb.Close())
	}
}

func BenchmarkCreateRunClose(b *testing.B) {
	eng := open(b, "")
	sideBySide(b, func() {
		sb, err := eng.Create(b.Context(), engine.CreateOptions{})
		try(b, err)
		try(b, sb.Command("true").Run())
		try(b, sb.Close())
	}, bubblewrap(b))
}

func BenchmarkClose(b *testing.B) {
	eng := open(b, "")
	var took []time.Duration
	for b.Loop() {
		sb, err := eng.Create(b.Context(), engine.CreateOptions{})
		try(b, err)
		start := time.Now()
		try(b, sb.Close())
		took = append(took, time.Since(start))
	}
	b.ReportMetric(micros(median(took)), "µs/op")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkExec(b *testing.B) {
	sb := create(b, open(b, ""), engine.CreateOptions{})
	path, err := exec.LookPath("true")
	try(b, err)
	sideBySide(b, func() { try(b, sb.Command(path).Run()) }, func() { try(b, exec.Command(path).Run()) })
}

func BenchmarkRead4KiB(b *testing.B) {
	sb := create(b, open(b, ""), engine.CreateOptions{})
	data, path := make([]byte, 4096), filepath.Join(b.TempDir(), "f")
	try(b, os.WriteFile(path, data, 0o644))
	try(b, sb.FS().WriteFile("f", data, 0o644))
	sideBySide(b, func() { _, err := sb.FS().ReadFile("f"); try(b, err) },
		func() { _, err := os.ReadFile(path); try(b, err) })
}

func BenchmarkWrite4KiB(b *testing.B) {
	sb := create(b, open(b, ""), engine.CreateOptions{})
	data, path := make([]byte, 4096), filepath.Join(b.TempDir(), "f")
	sideBySide(b, func() { try(b, sb.FS().WriteFile("f", data, 0o644)) },
		func() { try(b, os.WriteFile(path, data, 0o644)) })
}

func BenchmarkReconnect(b *testing.B) {
	eng := open(b, "")
	sb := create(b, eng, engine.CreateOptions{})
	var again *engine.Sandbox
	sideBySide(b, func() {
		var err error
		again, err = eng.Reconnect(b.Context(), sb.ID())
		try(b, err)
	}, func() { try(b, again.Close()) }) // "host" is Close of a handle that isn't the last
}

// BenchmarkIdle creates 100 sandboxes and reports what each takes of the host's memory, the kernel's included.
func BenchmarkIdle(b *testing.B) {
	eng := open(b, "")
	const n = 100
	measure := sync.OnceFunc(func() { // more often tells nothing more
		before, files := available(b), len(list(b, "/proc/self/fd"))
		var made []*engine.Sandbox
		for range n {
			sb, err := eng.Create(b.Context(), engine.CreateOptions{})
			try(b, err)
			made = append(made, sb)
		}
		b.ReportMetric(float64(before-available(b))/n/(1<<20), "MiB/sandbox")
		b.ReportMetric(float64(len(list(b, "/proc/self/fd"))-files)/n, "descriptors/sandbox")
		for _, sb := range made {
			try(b, sb.Close())
		}
	})
	for b.Loop() {
		measure()
	}
	b.ReportMetric(0, "ns/op")
}

// available is MemAvailable of proc_meminfo(5), in bytes.
func available(b *testing.B) int64 {
	b.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	try(b, err)
	_, rest, _ := strings.Cut(string(data), "MemAvailable:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	try(b, err)
	return kib << 10
}
