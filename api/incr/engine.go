package incr

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/atoll-mesh/atoll/api/db"
)

// Engine holds the values of queries over one database, their edges and counters.
// Its methods may be called from any goroutine, but not from a query function; a
// Hold's callback may only call Hold and release functions.
type Engine struct {
	grace   uint64
	workers []*worker
	memos   sync.Map // *Query[K, V] → *memo[K, V]

	// mu is held for a whole round: one round is one snapshot.
	mu      sync.Mutex
	at      *db.Snapshot
	clock   uint64 // stamps marks and waves, so that "changed since" is one comparison
	round   uint64
	age     uint64 // the round whose grace begins now: the present one, or the next between rounds
	spots   map[db.Touch]*spot
	leaving map[uint64][]*node // by the round in which they go if still unused
	faulty  map[*node]struct{} // nodes whose last run failed
	report  Round              // what the round under way, or the next, will return
	total   struct{ ran, changed, released uint64 }
	held    int
	edges   int // links between nodes
	reads   int // links to spots

	wait     sync.Mutex // guards the stacks of sleeping workers
	woken    *sync.Cond
	sleepers atomic.Int32

	inbox      sync.Mutex // guards what follows, for moments only
	posted     []*hold    // for the next round
	pending    []*hold    // for the round under way
	publishing bool       // what is posted now belongs to the round under way
	order      uint64

	wake    chan struct{}
	looping atomic.Bool
}

// Option configures an Engine.
type Option func(*Engine)

// WithWorkers sets how many goroutines compute in a round; the default is GOMAXPROCS.
func WithWorkers(n int) Option {
	return func(e *Engine) { e.workers = make([]*worker, max(1, n)) }
}

// WithGrace sets for how many rounds a query that nobody uses any more is kept, up to
// date on demand, in case it is wanted again; the default is 16, and 0 means that it
// goes at the end of the round in which its last user went.
func WithGrace(rounds int) Option {
	return func(e *Engine) { e.grace = uint64(max(0, rounds)) }
}

// New returns an engine without values, standing at the snapshot.
func New(s *db.Snapshot, opts ...Option) *Engine {
	e := &Engine{
		grace: 16, workers: make([]*worker, runtime.GOMAXPROCS(0)), at: s, age: 1,
		spots: map[db.Touch]*spot{}, leaving: map[uint64][]*node{}, faulty: map[*node]struct{}{},
		wake: make(chan struct{}, 1),
	}
	for _, o := range opts {
		o(e)
	}
	for i := range e.workers {
		e.workers[i] = &worker{e: e}
	}
	e.woken = sync.NewCond(&e.wait)
	return e
}

// Round is what one round did.
type Round struct {
	Revision db.Revision // of the snapshot that all values now correspond to
	Ran      int         // query functions run
	Changed  int         // queries whose value became another one, first values included
	Released int         // queries that left because nobody used them
	// Failures are the queries that ran and failed, ordered by name and key; one that
	// runs and fails again is listed again, also with the same error. A query that
	// failed before and was not run is still failing; Failing lists all.
	Failures []Failure
	// Mended are the queries that failed until now and succeeded, or were released.
	// Err is the failure that is over.
	Mended []Failure
}

// Stats are exact counters of one engine since it was made, and its present size.
type Stats struct {
	Revision db.Revision
	Rounds   uint64
	Ran      map[string]uint64 // query functions run, by query name
	Changed  uint64            // values that became another one
	Released uint64            // queries that left
	Nodes    int               // queries at a key that are kept
	Edges    int               // reads of a query by a query
	Reads    int               // reads of a touch by a query
	Touches  int               // distinct touches that are watched
	Held     int               // calls of Hold in force
	Failing  int               // queries whose last run failed
}

// Advance moves to a newer state in one round: it marks what read one of the
// touches, refreshes what is held and depends on it, and publishes what differs.
// touched must hold the touches of all commits between the engine's state and s.
func (e *Engine) Advance(s *db.Snapshot, touched []db.Touch) Round {
	e.gather()
	return e.advance(s, touched)
}

func (e *Engine) advance(s *db.Snapshot, touched []db.Touch) Round {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = s
	return e.turn(e.mark(func(yield func(*spot) bool) {
		for _, t := range touched {
			if sp := e.spots[t]; sp != nil && !yield(sp) {
				return
			}
		}
	}))
}

// advanceAll moves to a state of which the touches are not known: everything that
// read a row runs again.
func (e *Engine) advanceAll(s *db.Snapshot) Round {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at = s
	return e.turn(e.mark(func(yield func(*spot) bool) {
		for _, sp := range e.spots {
			if !yield(sp) {
				return
			}
		}
	}))
}

// Settle does a round on the present snapshot: newly held roots are computed and
// published, released ones leave when their grace is over.
func (e *Engine) Settle() Round {
	e.gather()
	return e.settle()
}

func (e *Engine) settle() Round {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.turn(nil)
}

// mark makes dirty what read one of the spots, and what read that, and returns the
// held roots among them. It goes through nodes that are dirty already: one that
// nobody uses may be dirty below one that is clean.
func (e *Engine) mark(spots func(func(*spot) bool)) []*node {
	e.clock++
	var todo, roots []*node
	spots(func(sp *spot) bool {
		for _, u := range sp.uses {
			u.by.must = true
			todo = append(todo, u.by)
		}
		return true
	})
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n.marked == e.clock {
			continue
		}
		n.marked = e.clock
		n.state.Store(dirty)
		if n.root != nil {
			roots = append(roots, n)
		}
		for _, u := range n.uses {
			if u.by.marked != e.clock {
				todo = append(todo, u.by)
			}
		}
	}
	return roots
}

// turn is the rest of a round, from the dirty roots on. Roots that are held by
// callbacks are computed and published in the same round.
func (e *Engine) turn(roots []*node) Round {
	e.round++
	e.age = e.round
	for {
		roots = append(roots, e.admit()...)
		e.wave(roots)
		e.merge()
		e.publish(roots)
		roots = nil
		if !e.expecting() {
			break
		}
	}
	e.leave()
	out := e.report
	out.Revision = e.at.Revision()
	e.report = Round{}
	e.age = e.round + 1
	return out
}

// merge takes over what the workers noted. Nothing runs meanwhile.
func (e *Engine) merge() {
	for _, w := range e.workers {
		e.report.Ran += w.ran
		e.report.Changed += w.changed
		e.total.ran += uint64(w.ran)
		e.total.changed += uint64(w.changed)
		w.ran, w.changed = 0, 0
	}
	for _, w := range e.workers {
		for _, o := range w.done {
			e.settleOutcome(o)
		}
		clear(w.done)
		w.done = w.done[:0]
	}
	slices.SortFunc(e.report.Failures, byName)
}

func byName(a, b Failure) int {
	return cmp.Or(cmp.Compare(a.Query, b.Query), cmp.Compare(a.String(), b.String()))
}

func (e *Engine) settleOutcome(o outcome) {
	n, kids := o.n, o.kids
	spots := make([]*spot, len(o.touches))
	for i, t := range o.touches {
		sp := e.spots[t]
		if sp == nil {
			sp = &spot{touch: t}
			e.spots[t] = sp
		}
		spots[i] = sp
	}
	was := n.fault
	n.fault = nil
	if o.err != nil {
		// The failed run's reads, and behind them those of the last good run.
		oldKids, oldSpots := n.kids, n.spots
		if was != nil {
			oldKids, oldSpots = n.kids[was.kids:], n.spots[was.spots:]
		}
		n.fault = &fault{err: o.err, kids: len(kids), spots: len(spots)}
		kids = append(kids, without(targets(oldKids), kids)...)
		spots = append(spots, without(targets(oldSpots), spots)...)
		e.faulty[n] = struct{}{}
		e.report.Failures = append(e.report.Failures, n.failure())
	} else if was != nil {
		delete(e.faulty, n)
		e.report.Mended = append(e.report.Mended, Failure{n.typed.query(), n.typed.at(), was.err})
	}
	if n.root != nil && !sameFault(was, n.fault) {
		n.root.news = true
	}
	e.rewire(n, kids, spots)
	if !n.used() {
		e.unused(n)
	}
}

// without returns the elements of list that are not in other.
func without[T comparable](list, other []T) []T {
	return slices.DeleteFunc(list, func(x T) bool { return slices.Contains(other, x) })
}

func sameFault(a, b *fault) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.err.Error() == b.err.Error()
}

func (e *Engine) rewire(n *node, kids []*node, spots []*spot) {
	e.edges += len(kids) - len(n.kids)
	e.reads += len(spots) - len(n.spots)
	relink(n, &n.kids, kids, func(k *node) {
		k.lost = e.age
		if !k.used() {
			e.unused(k)
		}
	})
	relink(n, &n.spots, spots, e.unwatch)
}

func (e *Engine) unwatch(sp *spot) {
	if len(sp.uses) == 0 {
		delete(e.spots, sp.touch)
	}
}
