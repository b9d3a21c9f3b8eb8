package lease_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nestbox/nestbox/lease"
)

const (
	s       = time.Second
	never   = time.Duration(-1) // as an end: it is held
	forever = time.Duration(math.MaxInt64)
)

// step is something that happens to a Lifetime, at a time.
type step struct {
	at time.Duration
	do func(l *lease.Lifetime, now time.Duration)
	// What is so then.
	end   time.Duration // when it ends if nothing changes, or never
	ended bool
}

func hold(l *lease.Lifetime, now time.Duration)    { l.Hold(now) }
func release(l *lease.Lifetime, now time.Duration) { l.Release(now) }
func nothing(*lease.Lifetime, time.Duration)       {}

func keepAlive(d time.Duration) func(*lease.Lifetime, time.Duration) {
	return func(l *lease.Lifetime, now time.Duration) { l.KeepAlive(now, d) }
}

func extend(d time.Duration) func(*lease.Lifetime, time.Duration) {
	return func(l *lease.Lifetime, now time.Duration) { l.Extend(now, d) }
}

func grace(d time.Duration) func(*lease.Lifetime, time.Duration) {
	return func(l *lease.Lifetime, now time.Duration) { l.Grace = d }
}

func TestLifetime(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step // after it was made at 100s, to wait for 10s, held, and given no grace
	}{
		{"closed", []step{
			{101 * s, nothing, never, false},
			{200 * s, release, 200 * s, true},
		}},
		{"closed at once", []step{
			{100 * s, release, 100 * s, true},
		}},
		{"closed before the deadline", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{105 * s, release, 110 * s, false},
			{110*s - 1, nothing, 110 * s, false},
			{110 * s, nothing, 110 * s, true},
		}},
		{"held past the deadline", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{110 * s, nothing, never, false},
			{1000 * s, release, 1000 * s, true},
		}},
		{"closed at the deadline", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{110 * s, release, 110 * s, true},
		}},
		{"two handles", []step{
			{101 * s, hold, never, false},
			{102 * s, release, never, false},
			{103 * s, nothing, never, false},
			{104 * s, release, 104 * s, true},
		}},
		{"held again before the deadline", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{101 * s, release, 110 * s, false},
			{109 * s, hold, never, false},
			{111 * s, nothing, never, false},
			{112 * s, release, 112 * s, true},
		}},
		{"deadline replaced", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{105 * s, keepAlive(10 * s), never, false},
			{106 * s, release, 115 * s, false},
			{115 * s, nothing, 115 * s, true},
		}},
		{"deadline shortened", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, keepAlive(1 * s), never, false},
			{101 * s, release, 102 * s, false},
			{102 * s, nothing, 102 * s, true},
		}},
		{"deadline shortened after the last handle", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, release, 200 * s, false},
			{102 * s, keepAlive(1 * s), 103 * s, false},
			{103 * s, nothing, 103 * s, true},
		}},
		{"deadline cancelled", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, keepAlive(0), never, false},
			{102 * s, release, 102 * s, true},
		}},
		{"deadline cancelled by less than nothing", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, keepAlive(-forever), never, false},
			{102 * s, release, 102 * s, true},
		}},
		{"deadline cancelled after the last handle", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, release, 200 * s, false},
			{102 * s, keepAlive(0), 101 * s, true},
		}},
		{"extended", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{101 * s, extend(20 * s), never, false},
			{102 * s, release, 121 * s, false},
			{103 * s, extend(20 * s), 123 * s, false},
			{123 * s, nothing, 123 * s, true},
		}},
		{"extended from nothing", []step{
			{101 * s, extend(20 * s), never, false},
			{102 * s, release, 121 * s, false},
		}},
		{"extending does not shorten", []step{
			{100 * s, keepAlive(100 * s), never, false},
			{101 * s, extend(1 * s), never, false},
			{102 * s, extend(0), never, false},
			{103 * s, extend(-1 * s), never, false},
			{104 * s, release, 200 * s, false},
		}},
		{"grace", []step{
			{100 * s, grace(10 * s), never, false},
			{150 * s, release, 160 * s, false},
			{160*s - 1, nothing, 160 * s, false},
			{160 * s, nothing, 160 * s, true},
		}},
		{"grace, then the deadline", []step{
			{100 * s, grace(10 * s), never, false},
			{100 * s, keepAlive(100 * s), never, false},
			{150 * s, release, 200 * s, false},
			{160 * s, nothing, 200 * s, false},
			{200 * s, nothing, 200 * s, true},
		}},
		{"the deadline, then grace", []step{
			{100 * s, grace(10 * s), never, false},
			{100 * s, keepAlive(55 * s), never, false},
			{150 * s, release, 160 * s, false},
			{155 * s, nothing, 160 * s, false},
			{160 * s, nothing, 160 * s, true},
		}},
		{"grace, and the deadline cancelled", []step{
			{100 * s, grace(10 * s), never, false},
			{100 * s, keepAlive(100 * s), never, false},
			{150 * s, release, 200 * s, false},
			{151 * s, keepAlive(0), 160 * s, false},
			{160 * s, nothing, 160 * s, true},
		}},
		{"grace begins anew", []step{
			{100 * s, grace(10 * s), never, false},
			{110 * s, release, 120 * s, false},
			{119 * s, hold, never, false},
			{129 * s, hold, never, false},
			{130 * s, release, never, false},
			{135 * s, release, 145 * s, false},
			{144 * s, hold, never, false},
			{144 * s, release, 154 * s, false},
			{154 * s, nothing, 154 * s, true},
		}},
		{"less than no grace", []step{
			{100 * s, grace(-forever), never, false},
			{110 * s, release, 110 * s, true},
		}},
		{"kept alive for ever", []step{
			{100 * s, keepAlive(forever), never, false},
			{110 * s, release, forever, false},
			{forever - 1, nothing, forever, false},
		}},
		{"extended for ever", []step{
			{100 * s, extend(forever - 1), never, false},
			{110 * s, release, forever, false},
			{111 * s, extend(1 * s), forever, false},
			{112 * s, keepAlive(1 * s), 113 * s, false},
		}},
		{"grace for ever", []step{
			{100 * s, grace(forever), never, false},
			{110 * s, release, forever, false},
			{forever - 1, nothing, forever, false},
		}},
		{"ended is final", []step{
			{100 * s, grace(10 * s), never, false},
			{110 * s, release, 120 * s, false},
			{120 * s, nothing, 120 * s, true},
			{120 * s, hold, 120 * s, true},
			{121 * s, keepAlive(100 * s), 120 * s, true},
			{122 * s, extend(100 * s), 120 * s, true},
		}},
		{"ended is final, seen or not", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{101 * s, release, 110 * s, false},
			{111 * s, keepAlive(100 * s), 110 * s, true},
		}},
		{"ended is final, seen or not, when extended", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{101 * s, release, 110 * s, false},
			{111 * s, extend(100 * s), 110 * s, true},
		}},
		{"ended is final, seen or not, when held", []step{
			{100 * s, keepAlive(10 * s), never, false},
			{101 * s, release, 110 * s, false},
			{111 * s, hold, 110 * s, true},
		}},
	} {
		l := lease.NewLifetime(100*s, 10*s)
		l.Hold(100 * s)
		l.Grace = 0
		for i, st := range tt.steps {
			st.do(l, st.at)
			end, ok := l.End()
			if !ok {
				end = never
			}
			if end != st.end {
				t.Errorf("%s: step %d: ends at %v, want %v", tt.name, i, end, st.end)
			}
			if ended := l.Ended(st.at); ended != st.ended {
				t.Errorf("%s: step %d: ended: %v, want %v", tt.name, i, ended, st.ended)
			}
		}
		last := tt.steps[len(tt.steps)-1]
		if l.Grace = forever; l.Ended(last.at) != last.ended {
			t.Errorf("%s: ended: %v with another grace time, want %v", tt.name, !last.ended, last.ended)
		}
	}
}

func TestLifetimeWaits(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration
		at   time.Duration
		want bool
	}{
		{"at once", 10 * s, 100 * s, true},
		{"in time", 10 * s, 110*s - 1, true},
		{"late", 10 * s, 110 * s, false},
		{"no wait", 0, 100 * s, false},
		{"any time", forever, forever - 1, true},
	} {
		l := lease.NewLifetime(100*s, tt.wait)
		if got := l.Hold(tt.at); got != tt.want {
			t.Errorf("%s: held: %v, want %v", tt.name, got, tt.want)
		}
		if got := l.Ended(tt.at); got == tt.want {
			t.Errorf("%s: ended: %v, want %v", tt.name, got, !tt.want)
		}
		want := 0
		if tt.want {
			want = 1
		}
		if got := l.Holders(); got != want {
			t.Errorf("%s: %d holders, want %d", tt.name, got, want)
		}
	}
}

func TestRemaining(t *testing.T) {
	l := lease.NewLifetime(100*s, 10*s)
	for _, tt := range []struct {
		at   time.Duration
		do   func(*lease.Lifetime, time.Duration)
		want time.Duration
	}{
		{100 * s, nothing, 0},
		{100 * s, hold, 0},
		{100 * s, keepAlive(10 * s), 10 * s},
		{101 * s, nothing, 9 * s},
		{102 * s, extend(1 * s), 8 * s},
		{103 * s, extend(30 * s), 30 * s},
		{133 * s, nothing, 0},
		{140 * s, nothing, 0},
		{141 * s, keepAlive(forever), forever - 141*s},
		{142 * s, keepAlive(0), 0},
	} {
		tt.do(l, tt.at)
		if got := l.Remaining(tt.at); got != tt.want {
			t.Errorf("at %v: got %v, want %v", tt.at, got, tt.want)
		}
	}
}

// TestLifetimeRandom lets things happen at random and goes by the rule's text, tick by tick.
func TestLifetimeRandom(t *testing.T) {
	const ticks = 60
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		some := func() time.Duration { return time.Duration(rng.IntN(20)) }
		l := lease.NewLifetime(1, 5)
		handles, deadline, graceEnd, dead := 0, time.Duration(0), time.Duration(6), false
		for now := time.Duration(1); now < ticks; now++ {
			dead = dead || handles == 0 && now >= deadline && now >= graceEnd
			d := some()
			switch rng.IntN(8) {
			case 0, 1:
				if held := l.Hold(now); held == dead {
					t.Fatalf("seed %d: at %d: held: %v, want %v", seed, now, held, !dead)
				}
				if !dead {
					handles++
				}
			case 2, 3:
				if handles > 0 {
					l.Release(now)
					if handles--; handles == 0 {
						graceEnd = now + l.Grace
					}
				}
			case 4:
				l.KeepAlive(now, d)
				if deadline = 0; d > 0 {
					deadline = now + d
				}
			case 5:
				l.Extend(now, d)
				deadline = max(deadline, now+d)
			case 6:
				if handles > 0 {
					l.Grace = d
				}
			}
			dead = dead || handles == 0 && now >= deadline && now >= graceEnd
			if rng.IntN(2) == 0 { // not always asked
				if ended := l.Ended(now); ended != dead {
					t.Fatalf("seed %d: at %d: ended: %v, want %v", seed, now, ended, dead)
				}
			}
			if l.Holders() != handles {
				t.Fatalf("seed %d: at %d: %d holders, want %d", seed, now, l.Holders(), handles)
			}
		}
	}
}
