// Package lease lets one instance of a control plane at a time do a duty.
//
// It owns the rows of the leases: who wants a duty done calls [Keeper.Do] in every
// instance and is told when it is this one's turn, with the only way to write in its
// name, [Held.Apply]. It never knows what a duty is, who else there is, or what time
// it is elsewhere.
//
//	Do ─▶ free, or not renewed for its term? ─▶ take (compare and swap) ─▶ work
//	       ▲                                                                │ renew, 3 × per term
//	       └──────────── lost, or given up ◀────────────────────────────────┘
//
// # Why
//
// Clocks of hosts differ and jump, so no time is written down. Who waits measures with
// its own monotonic clock how long the row has stayed the same; who holds stops when
// it could not renew for a term. Neither suffices: a process can be paused between its
// look at the clock and its write. So each write in the name of a duty carries the
// revision of the lease and is refused by the store once somebody else has taken it
// (a fencing token, Kleppmann, "How to do distributed locking", 2016; here the store
// itself compares). A store that commits row by row gives the weaker promise that the
// lease was held when the write began.
//
// A lost lease ends the work and not the process: the store may be away for all.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// ErrLost says that the duty is, or may be, another instance's by now. Nothing was
// written.
var ErrLost = errors.New("the lease is lost")

// Term is a usual [Keeper.Term].
const Term = 10 * time.Second

// Keeper competes for the leases of one instance.
type Keeper struct {
	// DB holds what the store holds; Apply stores, and returns when DB has it.
	DB    *db.DB
	Apply func(context.Context, []store.Op) (store.Revision, error)
	// Holder names this instance among all that were and will be.
	Holder string
	// Term is how long a lease holds without a renewal: how long a duty may be
	// undone after its instance died.
	Term time.Duration
	Log  *slog.Logger
}

// Do has the work done while this instance holds the lease of the duty, again and
// again until ctx ends. The work ends with its context; an error that it returns
// while it is held ends Do as well.
func (k *Keeper) Do(ctx context.Context, duty string, work func(context.Context, *Held) error) error {
	id := api.LeaseID(duty)
	changed := make(chan struct{}, 1)
	defer k.DB.OnCommit(func(c db.Commit) {
		for _, ch := range c.Changes {
			if ch.Table == api.Leases.Name {
				select {
				case changed <- struct{}{}:
				default:
				}
				return
			}
		}
	})()
	for {
		held := k.acquire(ctx, id, changed)
		if held == nil {
			return nil // ctx has ended
		}
		k.Log.Info("this instance does the duty", "duty", duty)
		if err := held.during(ctx, work); err != nil {
			return fmt.Errorf("%s: %w", duty, err)
		}
		k.Log.Info("this instance does the duty no longer", "duty", duty)
	}
}

// acquire waits until the lease is this instance's; nil when ctx has ended.
func (k *Keeper) acquire(ctx context.Context, id api.ID, changed <-chan struct{}) *Held {
	var seen store.Revision
	var since time.Time
	for ctx.Err() == nil {
		expect, wait, renewals := store.Absent, time.Duration(0), uint64(0)
		if row, ok := api.Leases.Get(k.DB.Snapshot(), id); ok {
			if revision := store.Revision(row.Revision); revision != seen {
				seen, since = revision, time.Now()
			}
			expect, renewals = store.At(seen), row.Spec.Renewals+1
			if row.Spec.Holder != "" && row.Spec.Holder != k.Holder {
				wait = time.Until(since.Add(row.Spec.Term.Duration))
			}
		}
		if wait <= 0 {
			h := &Held{k: k, id: id, turn: make(chan struct{}, 1), renewals: renewals}
			err := h.write(ctx, expect)
			if err == nil {
				return h
			}
			if !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
				k.Log.Warn("the lease cannot be taken", "lease", id.Name, "error", err)
			}
			wait = k.Term / 3 // the row of who was faster comes earlier
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(wait):
		}
	}
	return nil
}

// Held is a lease while this instance holds it.
type Held struct {
	k    *Keeper
	id   api.ID
	stop context.CancelFunc // ends the work
	turn chan struct{}      // full while something is written: one after the other

	// Changed by whose turn it is.
	revision store.Revision
	renewals uint64

	mu    sync.Mutex
	until time.Time // it is not this instance's for sure after that
	lost  bool
}

// write takes or renews the lease; it is the caller's turn, or nobody else knows h.
func (h *Held) write(ctx context.Context, expect store.Expect) error {
	began := time.Now()
	revision, err := h.k.Apply(ctx, []store.Op{{Record: h.record(h.k.Holder), Expect: expect}})
	if err != nil {
		return err
	}
	h.revision = revision
	h.mu.Lock()
	h.until = began.Add(h.k.Term)
	h.mu.Unlock()
	return nil
}

func (h *Held) record(holder string) store.Record {
	return store.RecordFor(api.Leases, h.id, api.Lease{Holder: holder, Term: api.Duration{Duration: h.k.Term}, Renewals: h.renewals})
}

// left is how long the lease is this instance's for sure.
func (h *Held) left() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost {
		return 0
	}
	return max(time.Until(h.until), 0)
}

// lose ends the work.
func (h *Held) lose() {
	h.mu.Lock()
	h.lost = true
	h.mu.Unlock()
	h.stop()
}

// refused reports whether the store has another lease than this one.
func (h *Held) refused(err error) bool {
	var conflict *store.Conflict
	return errors.As(err, &conflict) && conflict.ID == h.id
}

// Apply stores the operations if the lease is still held: all of them in one commit
// with the comparison, where the store commits several rows at once. [ErrLost]: it is
// not, and nothing was written. Other errors are those of [store.Store].
func (h *Held) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-h.turn }()
	if h.left() == 0 {
		h.lose()
		return 0, ErrLost
	}
	fence := store.Op{Record: h.record(h.k.Holder), Expect: store.At(h.revision)} // changes nothing
	revision, err := h.k.Apply(ctx, append([]store.Op{fence}, ops...))
	if h.refused(err) {
		h.lose()
		return 0, ErrLost
	}
	return revision, err
}

// during runs the work and renews the lease until the work ends.
func (h *Held) during(ctx context.Context, work func(context.Context, *Held) error) error {
	working, stop := context.WithCancel(ctx)
	h.stop = stop
	ended := make(chan error, 1)
	go func() { ended <- work(working, h) }()
	var due <-chan time.Time // of the next renewal; nil when it is lost
	for {
		if left := h.left(); left > 0 {
			due = time.After(min(h.k.Term/3, left))
		} else {
			h.lose()
			due = nil
		}
		select {
		case <-due:
			h.renew(working)
		case err := <-ended:
			own := working.Err() == nil // it was not told to end
			stop()
			h.giveUp()
			if !own {
				return nil
			}
			return err
		}
	}
}

func (h *Held) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.left())
	defer cancel()
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-h.turn }()
	h.renewals++
	if err := h.write(ctx, store.At(h.revision)); h.refused(err) {
		h.lose()
	} else if err != nil {
		h.renewals-- // the next write compares with what is stored
		h.k.Log.Warn("the lease cannot be renewed", "lease", h.id.Name, "error", err)
	}
}

// giveUp lets others have the lease at once; without it they wait for the end of the
// term. The work has ended.
func (h *Held) giveUp() {
	left := h.left()
	if left == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	h.renewals++
	_, _ = h.k.Apply(ctx, []store.Op{{Record: h.record(""), Expect: store.At(h.revision)}})
}
