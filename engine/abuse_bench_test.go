package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// BenchmarkAbuse measures how long a command takes in a quiet sandbox beside one that does its worst, and, as a
// yardstick, beside none, in turns:
//
//	go test ./engine -run '^$' -bench Abuse -benchtime 5x
//
// It reports the medians and the 99th percentiles in µs, and as "p50-ratio" and "p99-ratio" those beside the abuse by
// those without.
func BenchmarkAbuse(b *testing.B) {
	for _, a := range abuses {
		b.Run(a.name, func(b *testing.B) {
			eng := open(b, "")
			h := &abused{eng: eng, other: create(b, eng, engine.CreateOptions{})}
			var idle, beside []time.Duration
			h.commands(b, 20)
			for b.Loop() {
				idle = append(idle, h.commands(b, 100)...)
				sb := h.create(b, engine.CreateOptions{Limits: a.limits})
				startAbuse(b, sb, a.name)
				beside = append(beside, h.commands(b, 100)...)
				try(b, sb.Kill(b.Context()))
				h.commands(b, 20) // until what it left to the kernel is done
			}
			report := func(q float64, name string) {
				with, without := quantile(beside, q), quantile(idle, q)
				b.ReportMetric(micros(with), name+"-µs")
				b.ReportMetric(micros(without), "idle-"+name+"-µs")
				b.ReportMetric(float64(with)/float64(without), name+"-ratio")
			}
			report(0.50, "p50")
			report(0.99, "p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// commands runs n commands in the quiet sandbox and gives how long each took.
func (h *abused) commands(b *testing.B, n int) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		try(b, h.other.Command("/bin/true").Run())
		took[i] = time.Since(began)
	}
	return took
}

// quantile gives the value that a part q of others don't exceed.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}
