//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// live measures what sandboxes take that wait, and how the tool does while there are so many. A tool goes on to the next
// number as long as its time isn't up.
func (b *bench) live(ctx context.Context) error {
	var rows []row
	for _, n := range b.counts {
		rows = append(rows, liveRows(n)...)
	}
	if !b.wants(rows...) {
		return nil
	}
	return b.inTurns(ctx, 1, func(ctx context.Context, t *tool) error {
		if t.create == nil || t.name == b.cold {
			return nil
		}
		return b.crowd(ctx, t)
	})
}

func liveRows(n int) []row {
	at := fmt.Sprintf(", with %d live", n)
	return []row{{name: "memory of each" + at, unit: mebibytes}, {name: "descriptors of each" + at, unit: descriptors},
		{name: "create" + at, unit: millis}, {name: "exec of `true`" + at, unit: millis}, {name: "list" + at, unit: millis}}
}

// crowd fills up to each of the counts and measures there.
func (b *bench) crowd(ctx context.Context, t *tool) (err error) {
	var boxes []*box
	defer func() { err = errors.Join(err, removeAll(context.WithoutCancel(ctx), boxes)) }()
	memory, files, err := taken()
	if err != nil {
		return err
	}
	var creating time.Duration
	for _, n := range b.counts {
		rows := liveRows(n)
		// What this number will take is guessed from what the last one took.
		if len(boxes) > 0 && creating*time.Duration(n)/time.Duration(len(boxes)) > b.patience {
			return nil
		}
		start := time.Now()
		made, err := createAll(ctx, t, n-len(boxes))
		creating += time.Since(start)
		boxes = append(boxes, made...)
		if err != nil {
			return b.note(rows[0], t, 0, err)
		}
		if err := t.await(ctx, 1); err != nil {
			return err
		}
		m, f, err := taken()
		if err != nil {
			return err
		}
		if n >= 10 { // of fewer it is lost in what else goes on
			_ = b.note(rows[0], t, (m-memory)/float64(n)/(1<<20), nil) // only an error can give one
			_ = b.note(rows[1], t, (f-files)/float64(n), nil)
		}
		if err := b.among(ctx, t, boxes[n/2], rows[2:]); err != nil {
			return err
		}
	}
	return nil
}

// among measures creation, a command in a sandbox, and the list, beside all that live.
func (b *bench) among(ctx context.Context, t *tool, sb *box, rows []row) error {
	for range min(b.rounds, 10) {
		if err := t.await(ctx, 1); err != nil {
			return err
		}
		create, _, err := t.parts(ctx)
		if err := b.noteTime(rows[0], t, create, err); err != nil {
			return err
		}
		if f := sb.ops[execTrue.name]; f != nil {
			d, err := f(ctx)
			if err := b.noteTime(rows[1], t, d, err); err != nil {
				return err
			}
		}
		if t.list != nil {
			d, err := timed(func(ctx context.Context) error { _, err := t.list(ctx); return err })(ctx)
			if err := b.noteTime(rows[2], t, d, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// createAll creates n sandboxes. Those that were made are given also with an error.
func createAll(ctx context.Context, t *tool, n int) (made []*box, err error) {
	list := make([]*box, n)
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i := range list {
		g.Go(func() (err error) {
			list[i], err = t.create(ctx)
			return err
		})
	}
	err = g.Wait()
	for _, sb := range list {
		if sb != nil {
			made = append(made, sb)
		}
	}
	return made, err
}

func removeAll(ctx context.Context, boxes []*box) error {
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, sb := range boxes {
		g.Go(func() error { return sb.remove(ctx) })
	}
	return g.Wait()
}

// taken is what of the host's memory can't be had any more, in bytes, the kernel's own included, and how many descriptors
// this process has open.
func taken() (memory, files float64, err error) {
	runtime.GC()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(data), "MemAvailable:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, 0, fmt.Errorf("MemAvailable: %w", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	return -float64(kib << 10), float64(len(open)), err
}
