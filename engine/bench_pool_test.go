package engine_test

import (
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
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
