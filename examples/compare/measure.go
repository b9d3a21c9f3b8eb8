//go:build linux

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// The rows that have one figure in each round.
var (
	createRow  = row{name: "create", unit: millis}
	firstRow   = row{name: "create to first result", unit: millis, tail: true}
	closeRow   = row{name: "close, until all is gone", unit: millis}
	wholeRow   = row{name: "create, run, close", unit: millis}
	execTrue   = row{name: "exec of `true`", unit: millis, host: true}
	firstByte  = row{name: "terminal's first byte", unit: millis, host: true}
	writeSmall = row{name: "write 4 KiB", unit: millis, host: true}
	readSmall  = row{name: "read 4 KiB", unit: millis, host: true}
	reconnect  = row{name: "reconnect in another process", unit: millis}
	pause      = row{name: "pause", unit: millis}
	resume     = row{name: "resume", unit: millis}
	writeLarge = row{name: "write a large file", unit: millis, host: true}
	readLarge  = row{name: "read a large file", unit: millis, host: true}
)

// small is what is written and read again.
var small = make([]byte, 4096)

// callTimeout is for one thing that a tool does.
const callTimeout = time.Minute

// settle is how long the kernel has to remove what the tool before has left, before the next one's turn.
const settle = 20 * time.Millisecond

// inTurns has each tool do something in each of some rounds. Their order is another one each time, so that what disturbs
// the machine hits them alike. A pool is full again before the next. A tool whose error f gives has no turn any more; what
// ends it all is an interrupt, and a sandbox that isn't isolated as promised.
func (b *bench) inTurns(ctx context.Context, rounds int, f func(ctx context.Context, t *tool) error) error {
	for range rounds {
		for _, i := range rand.Perm(len(b.tools)) {
			t := b.tools[i]
			if t.broken != nil {
				continue
			}
			time.Sleep(settle) // what the last turn left to the kernel is no part of this one
			turn, cancel := context.WithTimeout(ctx, 10*callTimeout)
			err := f(turn, t)
			if err == nil { // what it makes anew must not be in the way of the next
				err = t.await(turn, 1)
			}
			cancel()
			if ctx.Err() != nil || errors.Is(err, errPosture) {
				return errors.Join(err, context.Cause(ctx))
			}
			t.broken = err
		}
	}
	return nil
}

// note adds a figure to a row, if that is wanted. Its error is one that ends it all.
func (b *bench) note(w row, t *tool, value float64, err error) error {
	if b.only.MatchString(w.name) {
		b.results.add(w, t.name, value, err)
	}
	if errors.Is(err, errPosture) {
		return err
	}
	return nil
}

// noteTime is note for a time; zero: there is none to be had.
func (b *bench) noteTime(w row, t *tool, d time.Duration, err error) error {
	if d == 0 && err == nil {
		return nil
	}
	return b.note(w, t, float64(d.Nanoseconds())/1e6, err)
}

// wants tells whether one of rows is to be measured, and gives those that are their places in the report.
func (b *bench) wants(rows ...row) (some bool) {
	for _, w := range rows {
		if b.only.MatchString(w.name) {
			b.results.declare(w)
			some = true
		}
	}
	return some
}

// await waits until a tool that has sandboxes ready has n.
func (t *tool) await(ctx context.Context, n int) error {
	if t.ready == nil {
		return nil
	}
	return t.ready(ctx, n)
}

// lives measures the parts of a sandbox's life, one after the other.
func (b *bench) lives(ctx context.Context) error {
	if !b.wants(createRow, firstRow, closeRow, wholeRow) {
		return nil
	}
	return b.inTurns(ctx, b.rounds, func(ctx context.Context, t *tool) error {
		if b.results.hopeless(firstRow.name, t.name) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		s, err := t.life(ctx, time.Now())
		if err == nil && t.run != nil && t.create != nil { // what run does at once is to be seen part by part
			s.create, s.close, err = t.parts(ctx)
		}
		if err != nil {
			return b.noteTime(firstRow, t, 0, err)
		}
		return errors.Join(b.noteTime(createRow, t, s.create, nil), b.noteTime(firstRow, t, s.first, nil),
			b.noteTime(closeRow, t, s.close, nil), b.noteTime(wholeRow, t, s.whole, nil))
	})
}

// parts times the creation and the end of a sandbox.
func (t *tool) parts(ctx context.Context) (create, remove time.Duration, err error) {
	start := time.Now()
	sb, err := t.create(ctx)
	if err != nil {
		return 0, 0, err
	}
	create = time.Since(start)
	start = time.Now()
	err = sb.remove(context.WithoutCancel(ctx))
	return create, time.Since(start), err
}

// inside measures what is done in a sandbox that runs, in the order of rows, which makes pause come before resume.
func (b *bench) inside(ctx context.Context, rounds int, rows ...row) (err error) {
	if !b.wants(rows...) {
		return nil
	}
	boxes := map[*tool]*box{}
	defer func() {
		for _, sb := range boxes {
			err = errors.Join(err, sb.remove(context.WithoutCancel(ctx)))
		}
	}()
	for _, t := range b.tools {
		open := t.here
		if open == nil {
			open = t.create
		}
		if t.ready != nil || t.broken != nil { // from the pool come the same sandboxes
			continue
		}
		sb, err := open(ctx)
		if err != nil {
			if err := b.note(rows[0], t, 0, err); err != nil {
				return err
			}
			continue
		}
		boxes[t] = sb
		if sb.check != nil {
			if err := sb.check(ctx); err != nil {
				return err
			}
		}
	}
	return b.inTurns(ctx, rounds, func(ctx context.Context, t *tool) error {
		for _, w := range rows {
			if boxes[t] == nil || boxes[t].ops[w.name] == nil || !b.only.MatchString(w.name) || b.results.hopeless(w.name, t.name) {
				continue
			}
			if err := b.some(ctx, t, w, boxes[t].ops[w.name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// some does an op a few times, if it is a fast one that can be done again at once.
func (b *bench) some(ctx context.Context, t *tool, w row, f op) error {
	begin := time.Now()
	for range 10 {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		d, err := f(call)
		cancel()
		if err := b.noteTime(w, t, d, err); err != nil {
			return err
		}
		if err != nil || w == pause || w == resume || time.Since(begin) > 20*time.Millisecond {
			return nil
		}
	}
	return nil
}

// files measures large files. The one that is copied is made now, and synced, and this comes last: while the host writes
// it back, all that creates files waits.
func (b *bench) files(ctx context.Context) (err error) {
	if !b.wants(writeLarge, readLarge) {
		return nil
	}
	if b.large, err = os.Create(filepath.Join(b.dir, "large")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.large.Close()) }()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * i >> 8) // no zeros: those can be left out of a file
	}
	for left := b.size; left > 0; left -= int64(len(chunk)) {
		if _, err := b.large.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			return err
		}
	}
	if err := b.large.Sync(); err != nil {
		return err
	}
	return b.inside(ctx, b.larges, writeLarge, readLarge)
}
