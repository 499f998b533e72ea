// Package incr keeps pure functions of the database up to date.
//
// A Query is a function of a key. While it runs, everything that it reads, rows
// and other queries, is noted. After a commit only the queries that read something
// that changed run again, a query whose result equals the one before ends the wave
// and keeps its old value (the same pointer), and only what somebody holds is
// computed at all.
//
//	commit{touched} ─▶ mark (serial, no work) ─▶ refresh held roots (parallel) ─▶ merge reads ─▶ publish what differs
//
// The package owns the graph: values, edges and counters, all of them in an
// Engine, so that several control planes run in one process and share the static
// query handles. Assembly makes the engine and runs Loop; sessions call Hold,
// inspection calls Peek, plans declare queries. The package never writes to the
// database, never reads a clock (but for Loop's optional coalescing wait) and
// never waits for whoever is told of a value.
//
// # Rules for query functions
//
// A query function reads rows through its Run and other queries through Get, and
// nothing else: no time, no randomness, no globals that change. It must not keep
// the Run or hand it to another goroutine, and must not call the engine. Values
// are shared by all readers and must never be changed.
//
// # Failure
//
// A query that panics or calls Fail keeps its last good value and the reads that
// led to it, beside the reads of the failed run, so that mending either mends it.
// Whoever reads it sees the old value and goes on. A query that never succeeded
// stands at what it returned beside Fail, or at the zero value after a panic.
// Queries that read each other in a circle all fail with ErrCycle and the names of
// the circle; so does a nesting deeper than 5,000, with ErrDepth.
//
// # Why
//
// A proxy's configuration depends on a few hundred rows out of a hundred thousand.
// Rebuilding everything after each change costs what exists; hand-written
// invalidation is wrong sooner or later. Recorded reads are neither: the cost
// follows the change, and tests count it.
//
// A round refreshes children first, in the order in which they were read, and
// stops at the first that changed. The order is what makes the shortcut sound: as
// long as all earlier reads came out equal, a pure function reads the next one too,
// so nothing is computed that nobody wants. The usual alternative, pushing changes
// upwards in topological order, computes values that the new state no longer needs
// and fights with graphs that change their shape.
//
// Workers note reads privately and edges are merged after the barrier, so a round
// takes no lock on its way but the one for new nodes. Edges are slices with back
// positions instead of maps: removal takes constant time and fifty thousand nodes
// stay small.
package incr

import (
	"errors"
	"fmt"

	"github.com/atoll-mesh/atoll/api/db"
)

// Faults of query functions, to be found with errors.Is.
var (
	// ErrCycle is in the error of every query of a circle of queries.
	ErrCycle = errors.New("queries read each other in a circle")
	// ErrDepth is in the error of queries nested too deep, which is what a
	// recursion without end comes to.
	ErrDepth = errors.New("queries nested too deep")
	// ErrLooping is returned by Loop if the engine already follows a database.
	ErrLooping = errors.New("engine already follows a database")
)

// PanicError is the failure of a query that panicked.
type PanicError struct {
	Value any
	Stack []byte // as of debug.Stack; not part of the text, so that equal faults read equal
}

func (p *PanicError) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Unwrap returns the panic's value if it was an error.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// Failure is a query at a key that could not be computed.
type Failure struct {
	Query string
	Key   any
	Err   error
}

// String returns query(key): error.
func (f Failure) String() string { return fmt.Sprintf("%s(%v): %v", f.Query, f.Key, f.Err) }

// Query is a memoised pure function from K to V. It is a static handle: the values
// are in the engines, so a Query can be a package-level variable.
type Query[K comparable, V any] struct {
	name  string
	fn    func(*Run, K) V
	equal func(a, b V) bool
}

// NewQuery returns a query. The name is what counters and failures call it. equal
// tells whether a new value may be dropped in favour of the old one; it sees only
// values that fn returned without failing. With equal nil every run counts as a
// change.
func NewQuery[K comparable, V any](name string, fn func(*Run, K) V, equal func(a, b V) bool) *Query[K, V] {
	return &Query[K, V]{name: name, fn: fn, equal: equal}
}

// Name returns the query's name.
func (q *Query[K, V]) Name() string { return q.name }

// Get returns the value at k and notes that the running query depends on it.
func (q *Query[K, V]) Get(r *Run, k K) V {
	c := q.cell(r.engine(), k)
	r.need(&c.node)
	return c.val
}

// Ref returns a reference to the query at k.
func (q *Query[K, V]) Ref(k K) Ref[V] { return Ref[V]{pair[K, V]{q, k}} }

// Ref is a query at a key, without the key's type. References to the same query
// and key are equal (==) and can be keys of a map.
type Ref[V any] struct{ of target[V] }

// target has one implementation per key type: it is how a Ref forgets that type.
type target[V any] interface {
	get(*Run) V
	in(*Engine) (*node, *V)
	String() string
}

type pair[K comparable, V any] struct {
	q *Query[K, V]
	k K
}

func (p pair[K, V]) get(r *Run) V { return p.q.Get(r, p.k) }

func (p pair[K, V]) in(e *Engine) (*node, *V) {
	c := p.q.cell(e, p.k)
	return &c.node, &c.val
}

func (p pair[K, V]) String() string { return fmt.Sprintf("%s(%v)", p.q.name, p.k) }

// IsZero tells whether f refers to nothing.
func (f Ref[V]) IsZero() bool { return f.of == nil }

// Get returns the value and notes that the running query depends on it.
func (f Ref[V]) Get(r *Run) V { return f.of.get(r) }

// String returns query(key).
func (f Ref[V]) String() string {
	if f.of == nil {
		return "nothing"
	}
	return f.of.String()
}

// Run is the reader that a query function is given: it notes what is read. It is
// valid until the function returns, in the function's goroutine.
type Run struct {
	w       *worker // nil once the function has returned
	depth   int     // position on the worker's stack
	kids    []*node
	touches []db.Touch
	err     error
}

func (r *Run) engine() *Engine {
	if r.w == nil {
		panic("incr: Run used after its query returned")
	}
	return r.w.e
}

// At returns the round's snapshot, for the tables' readers. What is read from it
// must be noted with Read, as the readers of package db do.
func (r *Run) At() *db.Snapshot { return r.engine().at }

// Read notes that the spot was looked at.
func (r *Run) Read(t db.Touch) {
	r.engine()
	if n := len(r.touches); n == 0 || r.touches[n-1] != t {
		r.touches = append(r.touches, t)
	}
}

// Fail makes the run fail with err: the query keeps its last good value. Several
// errors are joined; nil is ignored. The function should return soon after.
func (r *Run) Fail(err error) {
	r.engine()
	if r.err == nil {
		r.err = err
	} else if err != nil {
		r.err = errors.Join(r.err, err)
	}
}

// need notes the read of n and brings n up to date.
func (r *Run) need(n *node) {
	if l := len(r.kids); l == 0 || r.kids[l-1] != n {
		r.kids = append(r.kids, n)
	}
	if n.state.Load() == clean {
		return
	}
	if err := r.w.refresh(n); err != nil {
		// n is on its way up from here, or too deep: the whole circle is marked, so
		// unwind to its outermost member instead of going on with an old value.
		r.w.poison(n, err)
	}
	if err := r.w.stack[r.depth].poison; err != nil {
		panic(err)
	}
}
