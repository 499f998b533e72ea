package incr

import (
	"context"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api/db"
)

// LoopOption configures Loop.
type LoopOption func(*loop)

// WithAfter has f called after each round, in Loop's goroutine. Unlike a Hold's
// callback it may call the engine.
func WithAfter(f func(Round)) LoopOption { return func(l *loop) { l.after = f } }

// WithWait makes a round wait this long after the first commit, so that those which
// follow shortly are merged into it. The default is not to wait: commits that arrive
// during a round are merged anyway.
func WithWait(d time.Duration) LoopOption { return func(l *loop) { l.wait = d } }

type loop struct {
	after func(Round)
	wait  time.Duration

	mu      sync.Mutex
	newest  *db.Snapshot
	touched map[db.Touch]struct{}
}

// Loop is the engine's goroutine: it follows d, does a round for what was committed
// or held since the last one, and returns the context's error when that ends. The
// engine must be of a snapshot of d. A commit only notes its touches and sets a
// flag, so writers never wait for a round.
func (e *Engine) Loop(ctx context.Context, d *db.DB, opts ...LoopOption) error {
	if !e.looping.CompareAndSwap(false, true) {
		return ErrLooping
	}
	defer e.looping.Store(false)
	l := &loop{after: func(Round) {}, touched: map[db.Touch]struct{}{}}
	for _, o := range opts {
		o(l)
	}
	defer d.OnCommit(func(c db.Commit) {
		l.note(c)
		e.poke()
	})()
	// Commits between the engine's snapshot and the subscription were not noted, and
	// their touches are not known.
	e.mu.Lock()
	at := e.at.Revision()
	e.mu.Unlock()
	e.gather()
	if s := d.Snapshot(); s.Revision() != at {
		at = s.Revision()
		l.after(e.advanceAll(s))
	} else if e.expecting() {
		l.after(e.settle())
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		}
		if l.wait > 0 {
			t := time.NewTimer(l.wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			case <-t.C:
			}
		}
		e.gather()
		s, touched := l.take()
		switch {
		case s != nil && s.Revision() > at:
			at = s.Revision()
			l.after(e.advance(s, touched))
		case e.expecting():
			l.after(e.settle())
		}
	}
}

func (l *loop) note(c db.Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest = c.Snapshot
	for _, t := range c.Touched {
		l.touched[t] = struct{}{}
	}
}

func (l *loop) take() (*db.Snapshot, []db.Touch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.newest
	touched := make([]db.Touch, 0, len(l.touched))
	for t := range l.touched {
		touched = append(touched, t)
	}
	l.newest, l.touched = nil, map[db.Touch]struct{}{}
	return s, touched
}
