package engine_test

import (
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// openPool opens an engine with a pool, and waits until that is full.
func openPool(t testing.TB, dir string, specs ...engine.PoolSpec) *engine.Engine {
	t.Helper()
	eng := open(t, dir, func(o *engine.Options) { o.Pool = specs })
	awaitFull(t, eng)
	return eng
}

// awaitFull waits until all pools are full.
func awaitFull(t testing.TB, eng *engine.Engine) {
	t.Helper()
	eventually(t, 60*time.Second, "the pool is full", func() bool {
		for _, s := range eng.PoolStats() {
			if s.Ready < s.Size {
				return false
			}
		}
		return true
	})
}

// BenchmarkCreateWarm claims sandboxes of a pool that is full.
func BenchmarkCreateWarm(b *testing.B) {
	benchmarkWarm(b, func(*engine.Sandbox) {})
}

// BenchmarkCreateRunWarm is that and the result of a first command.
func BenchmarkCreateRunWarm(b *testing.B) {
	benchmarkWarm(b, func(sb *engine.Sandbox) { try(b, sb.Command("true").Run()) })
}

func benchmarkWarm(b *testing.B, first func(*engine.Sandbox)) {
	eng := openPool(b, "", engine.PoolSpec{Size: 8})
	yardstick := bubblewrap(b)
	var ours, theirs []time.Duration
	for b.Loop() {
		awaitFull(b, eng)
		start := time.Now()
		sb, err := eng.Create(b.Context(), engine.CreateOptions{})
		try(b, err)
		first(sb)
		ours = append(ours, time.Since(start))
		try(b, sb.Close())
		if yardstick != nil {
			awaitFull(b, eng)
			start = time.Now()
			yardstick()
			theirs = append(theirs, time.Since(start))
		}
	}
	if s := eng.PoolStats()[0]; s.Misses > 0 {
		b.Errorf("%d creates missed the pool", s.Misses)
	}
	report(b, ours, theirs)
}

// BenchmarkBurst has a hundred Creates at once, each with a first command, on a pool of ten. It reports how long they
// take from the moment when all are asked for.
func BenchmarkBurst(b *testing.B) {
	limits := engine.Limits{Memory: 64 << 20, Disk: 64 << 20}
	eng := open(b, "", func(o *engine.Options) { o.Limits, o.Pool = limits, []engine.PoolSpec{{Size: 10}} })
	var took []time.Duration
	for b.Loop() {
		awaitFull(b, eng)
		var all sync.WaitGroup
		var mu sync.Mutex
		var made []*engine.Sandbox
		start := time.Now()
		for range 100 {
			all.Go(func() {
				sb, err := eng.Create(b.Context(), engine.CreateOptions{})
				if err == nil {
					err = sb.Command("true").Run()
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					b.Error(err)
					return
				}
				took, made = append(took, time.Since(start)), append(made, sb)
			})
		}
		all.Wait()
		for _, sb := range made {
			try(b, sb.Close())
		}
	}
	slices.Sort(took)
	for _, p := range []int{5, 50, 95, 99} {
		b.ReportMetric(micros(took[len(took)*p/100])/1000, fmt.Sprintf("ms-p%d", p))
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCrowd claims a sandbox, and runs a command in one, beside those that live already: 1, 100 and as many
// as -crowd says.
func BenchmarkCrowd(b *testing.B) {
	limits := engine.Limits{Memory: 64 << 20, Disk: 64 << 20}
	eng := open(b, "", func(o *engine.Options) { o.Limits, o.Pool = limits, []engine.PoolSpec{{Size: 2}} })
	sb := create(b, eng, engine.CreateOptions{})
	live := []*engine.Sandbox{sb}
	for _, n := range []int{1, 100, *crowd} {
		for len(live) < n {
			live = append(live, create(b, eng, engine.CreateOptions{}))
		}
		b.Run(fmt.Sprintf("create/live=%d", n), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				awaitFull(b, eng)
				start := time.Now()
				sb, err := eng.Create(b.Context(), engine.CreateOptions{})
				try(b, err)
				took = append(took, time.Since(start))
				try(b, sb.Close())
			}
			report(b, took, nil)
		})
		b.Run(fmt.Sprintf("exec/live=%d", n), func(b *testing.B) {
			sideBySide(b, func() { try(b, sb.Command("/bin/true").Run()) }, func() { try(b, exec.Command("/bin/true").Run()) })
		})
		b.Run(fmt.Sprintf("list/live=%d", n), func(b *testing.B) {
			sideBySide(b, func() {
				for _, err := range eng.List(b.Context(), lease.Query{Limit: 10, States: []lease.State{lease.Running}}) {
					try(b, err)
				}
			}, nil)
		})
	}
}

var crowd = flag.Int("crowd", 200, "how many sandboxes BenchmarkCrowd has at most")
