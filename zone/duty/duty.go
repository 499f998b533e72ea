// Package duty is the life of a goroutine that works when it is told to, and when
// something falls due.
//
// It owns the waiting: a [Duty] is poked from anywhere, mostly from commits, and
// runs turns of its user's one after the other, each of which says when the next
// is due if nothing happens before. It never knows what there is to do: what was
// marked is its user's, behind a lock of the user's.
//
//	commit ─▶ mark, Poke ─▶ turn: takes what is marked, works ─▶ when next?
//	                         ▲                                        │
//	                         └────── the next Poke, or that time ◀────┘
//
// # Why
//
// A commit must not wait for work, so it only marks; a retry, a renewal and the end
// of a grace are the same thing: a time at which to look again. Marks are sets of
// different things in every duty, which is why they are not here.
package duty

import (
	"context"
	"time"
)

// least is the shortest wait for a time, so that turns that are always due leave
// the processor to others.
const least = 10 * time.Millisecond

// Duty wakes one goroutine.
type Duty struct {
	now  func() time.Time
	wake chan struct{}
}

// New returns a duty whose times are those of the clock.
func New(now func() time.Time) *Duty { return &Duty{now, make(chan struct{}, 1)} }

// Poke makes a turn follow, after the one under way if there is one. It never
// blocks; any number of pokes before a turn are one.
func (d *Duty) Poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run runs a first turn at once and then one whenever it is due, until the
// context ends. Next is when to look again unless poked; zero: never.
func (d *Duty) Run(ctx context.Context, turn func(context.Context) (next time.Time)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := turn(ctx)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(next.Sub(d.now()), least))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// Earlier is the first of two times; a zero one is never.
func Earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
