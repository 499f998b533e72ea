package store

import (
	"context"
	"slices"
	"sync"
)

// group is the most calls that are committed together. It bounds how much must
// be written before the first of them hears of it.
const group = 1024

// Queue is for stores: calls of Apply that arrive while others are written wait
// here, and are then committed together. What a commit costs (an fsync, round
// trips) is so shared by all who wait for it. The caller at the head does the
// work, so a queue has no goroutine.
type Queue struct {
	commit func([]*Call)

	mu      sync.Mutex
	closed  bool
	waiting []*Call
	busy    bool       // one of the callers commits
	idle    *sync.Cond // busy became false
	groups  uint64
}

// Call is one Apply that waits for its turn or its result.
type Call struct {
	Ops []Op
	// Revision and Err are set by the commit.
	Revision Revision
	Err      error
	// turn is closed when the call shall commit the next group.
	turn chan struct{}
	// done is closed when the result is there.
	done chan struct{}
}

// NewQueue returns a queue for that commit, which sets the results of all calls
// that it is given. It is never called twice at once.
func NewQueue(commit func([]*Call)) *Queue {
	q := &Queue{commit: commit}
	q.idle = sync.NewCond(&q.mu)
	return q
}

// Apply is [Store.Apply]. A call that is part of a group is not withdrawn any
// more when its context ends: it returns what became of it.
func (q *Queue) Apply(ctx context.Context, ops []Op) (Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c := &Call{Ops: ops, turn: make(chan struct{}), done: make(chan struct{})}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return 0, ErrClosed
	}
	q.waiting = append(q.waiting, c)
	if !q.busy {
		q.busy = true
		close(c.turn)
	}
	q.mu.Unlock()

	select {
	case <-c.turn:
		q.lead()
	case <-c.done:
		return c.Revision, c.Err
	case <-ctx.Done():
		if q.withdraw(c) {
			return 0, ctx.Err()
		}
	}
	<-c.done
	return c.Revision, c.Err
}

// withdraw takes a call out of the queue. It is too late when the call is part
// of a group already. A call whose turn it is passes the turn on.
func (q *Queue) withdraw(c *Call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, c)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	select {
	case <-c.turn:
		q.pass()
	default:
	}
	return true
}

// pass gives the turn to the head of the queue. The lock is held.
func (q *Queue) pass() {
	if q.closed {
		for _, c := range q.waiting {
			c.Err = ErrClosed
			close(c.done)
		}
		q.waiting = nil
	}
	if len(q.waiting) > 0 {
		close(q.waiting[0].turn)
		return
	}
	q.busy = false
	q.idle.Broadcast()
}

// lead commits all calls that wait as one group, then passes the turn on.
func (q *Queue) lead() {
	q.mu.Lock()
	n := min(len(q.waiting), group)
	calls := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	q.groups++
	q.mu.Unlock()

	q.commit(calls)
	for _, c := range calls {
		close(c.done)
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	q.pass()
}

// Close ends the queue: calls that wait get [ErrClosed], and so do all later
// ones. It returns when nobody commits any more, and false if it was closed
// before.
func (q *Queue) Close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := !q.closed
	q.closed = true
	for q.busy {
		q.idle.Wait()
	}
	return first
}

// Groups returns how many groups were committed.
func (q *Queue) Groups() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.groups
}

// Waiting returns how many calls wait for their turn, and whether others are
// committed meanwhile.
func (q *Queue) Waiting() (calls int, busy bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting), q.busy
}
