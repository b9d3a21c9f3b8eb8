//go:build linux

package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var (
	staggerRow    = row{name: "first result, staggered", unit: millis, tail: true}
	throughputRow = row{name: "create, run, close, all cores", unit: perSecond}
)

func burstRow(n int) row {
	return row{name: fmt.Sprintf("first result, %d at once", n), unit: millis, tail: true}
}

// arrivals starts n sandboxes' lives, one each interval whether earlier ones have ended or not, and notes how long after
// its time each had its first result.
func (b *bench) arrivals(ctx context.Context, t *tool, w row, n int, interval time.Duration) error {
	if b.results.hopeless(w.name, t.name) {
		return nil
	}
	var all sync.WaitGroup
	begin := time.Now()
	errs := make([]error, n)
	for i := range n {
		due := begin.Add(time.Duration(i) * interval)
		select {
		case <-ctx.Done():
			all.Wait()
			return context.Cause(ctx)
		case <-time.After(time.Until(due)):
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
			defer cancel()
			s, err := t.life(ctx, due)
			errs[i] = b.noteTime(w, t, s.first, err)
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) staggered(ctx context.Context) error {
	if !b.wants(staggerRow) {
		return nil
	}
	return b.inTurns(ctx, b.loads, func(ctx context.Context, t *tool) error {
		return b.arrivals(ctx, t, staggerRow, b.arriving, b.interval)
	})
}

func (b *bench) bursts(ctx context.Context) error {
	w := burstRow(b.burst)
	if !b.wants(w) {
		return nil
	}
	return b.inTurns(ctx, 1, func(ctx context.Context, t *tool) error {
		if err := t.await(ctx, b.burst); err != nil {
			return err
		}
		return b.arrivals(ctx, t, w, b.burst, 0)
	})
}

// throughput has as many workers as there are processors live lives for some time.
func (b *bench) throughput(ctx context.Context) error {
	if !b.wants(throughputRow) {
		return nil
	}
	return b.inTurns(ctx, 1, func(ctx context.Context, t *tool) error {
		var workers sync.WaitGroup
		var done atomic.Int64
		errs := make([]error, runtime.GOMAXPROCS(0))
		begin := time.Now()
		for i := range errs {
			workers.Go(func() {
				for time.Since(begin) < b.busy && errs[i] == nil {
					if _, errs[i] = t.life(ctx, time.Now()); errs[i] == nil {
						done.Add(1)
					}
				}
			})
		}
		workers.Wait()
		took := time.Since(begin)
		for _, err := range errs {
			if err != nil {
				return b.note(throughputRow, t, 0, err)
			}
		}
		return b.note(throughputRow, t, float64(done.Load())/took.Seconds(), nil)
	})
}
