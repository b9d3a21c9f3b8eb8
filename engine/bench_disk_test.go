package engine_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// disks are limits to compare: none, where a sandbox writes to the state directory itself, and the default.
var disks = []struct {
	name  string
	limit int64
}{{"none", -1}, {"2GiB", 0}}

func BenchmarkDiskCreate(b *testing.B) {
	for _, d := range disks {
		b.Run(d.name, func(b *testing.B) {
			eng := open(b, "", func(o *engine.Options) { o.Limits.Disk = d.limit })
			var create, closing []time.Duration
			for b.Loop() {
				start := time.Now()
				sb, err := eng.Create(b.Context(), engine.CreateOptions{})
				try(b, err)
				create = append(create, time.Since(start))
				start = time.Now()
				try(b, sb.Close())
				closing = append(closing, time.Since(start))
			}
			b.ReportMetric(micros(median(create)), "create-µs/op")
			b.ReportMetric(micros(median(closing)), "close-µs/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func BenchmarkDiskWrite4KiB(b *testing.B) {
	for _, d := range disks {
		b.Run(d.name, func(b *testing.B) {
			sb := create(b, open(b, "", func(o *engine.Options) { o.Limits.Disk = d.limit }), engine.CreateOptions{})
			data, path, n := make([]byte, 4096), b.TempDir(), 0
			sideBySide(b, func() { n++; try(b, sb.FS().WriteFile(fmt.Sprint("f", n), data, 0o644)) },
				func() { try(b, os.WriteFile(filepath.Join(path, fmt.Sprint("f", n)), data, 0o644)) })
		})
	}
}

func BenchmarkDiskWrite256MiB(b *testing.B) {
	for _, d := range disks {
		b.Run(d.name, func(b *testing.B) {
			eng := open(b, "", func(o *engine.Options) { o.Limits.Disk = d.limit })
			sb := create(b, eng, engine.CreateOptions{Limits: engine.Limits{CPUs: -1}})
			write := func(path string) []string {
				return []string{"-c", "head -c 268435456 /dev/zero > " + path + "/big && rm " + path + "/big"}
			}
			path := b.TempDir()
			sideBySide(b, func() { try(b, sb.Command("sh", write("/root")...).Run()) }, func() { try(b, exec.Command("sh", write(path)...).Run()) })
		})
	}
}
