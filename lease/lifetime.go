package lease

import "time"

// Lifetime applies the lifetime rule to one sandbox: it lives while it is held, and after that until
// both its deadline and its grace time have passed.
//
// Every method takes the present as a reading of one clock that is never negative and never goes back, such
// as CLOCK_BOOTTIME. The zero Lifetime belongs to a sandbox that nobody holds since the clock's zero. A Lifetime
// is not safe for concurrent use.
type Lifetime struct {
	// Grace is how long the sandbox outlives its last handle.
	Grace time.Duration

	deadline time.Duration // 0: none
	released time.Duration // when the last handle went
	holders  int
	ended    bool
}

// NewLifetime is the Lifetime of a sandbox that is yet to be held for the first time, for which it
// waits: that is its Grace until another is set.
func NewLifetime(now, wait time.Duration) *Lifetime {
	return &Lifetime{Grace: wait, released: now}
}

// Hold opens a handle. It is false when the sandbox has ended, which is final.
func (l *Lifetime) Hold(now time.Duration) bool {
	if l.Ended(now) {
		return false
	}
	l.holders++
	return true
}

// Release closes a handle.
func (l *Lifetime) Release(now time.Duration) {
	if l.holders--; l.holders == 0 {
		l.released = now
	}
}

// Holders is how many handles are open.
func (l *Lifetime) Holders() int { return l.holders }

// KeepAlive sets the deadline to now + d, also if that is sooner than it was; 0 or less cancels it. It does
// nothing when the sandbox has ended.
func (l *Lifetime) KeepAlive(now, d time.Duration) {
	if l.Ended(now) {
		return
	}
	if l.deadline = 0; d > 0 {
		l.deadline = later(now, d)
	}
}

// Extend sets the deadline to now + d if that is later than it was. It does nothing when the sandbox has
// ended.
func (l *Lifetime) Extend(now, d time.Duration) {
	if d > 0 && !l.Ended(now) {
		l.deadline = max(l.deadline, later(now, d))
	}
}

// Remaining is how far away the deadline is; 0 if there is none or it has passed.
func (l *Lifetime) Remaining(now time.Duration) time.Duration {
	return max(0, l.deadline-now)
}

// End is when the sandbox ends if nothing changes; it is false while the sandbox is held.
func (l *Lifetime) End() (at time.Duration, ok bool) {
	if l.holders > 0 {
		return 0, false
	}
	return max(l.deadline, later(l.released, l.Grace)), true
}

// Ended tells whether the sandbox has ended. Once it has, it stays so.
func (l *Lifetime) Ended(now time.Duration) bool {
	if at, ok := l.End(); ok && now >= at {
		l.ended = true
	}
	return l.ended
}

// later is t + d, or as late as can be.
func later(t, d time.Duration) time.Duration {
	if sum := t + max(0, d); sum >= t {
		return sum
	}
	return 1<<63 - 1
}
