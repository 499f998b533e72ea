package incr

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/atoll-mesh/atoll/api/db"
)

// States of a node. dirty: something that it read, or may have read, changed (or
// it never ran). Only the worker that takes a node from dirty to running touches
// its other fields until it is clean.
const (
	dirty uint32 = iota
	running
	clean
)

// node is a query at a key, without its types. There are tens of thousands: what
// is rare (root, fault) is behind a pointer.
type node struct {
	typed  typed
	state  atomic.Uint32
	must   bool // a row that it read changed, or it never ran: run without looking
	good   bool // the value comes from a run that succeeded
	gone   bool // released; no longer in the memo
	marked uint64
	// Stamps of the engine's clock: when the value last became another one, and when
	// it was last known to be right.
	changed, seen uint64

	kids  []link[*node] // queries that it read, in order
	spots []link[*spot] // rows that it read
	uses  []use         // queries that read it
	lost  uint64        // round in which it last lost a use
	root  *root         // set while somebody holds it
	fault *fault        // set while its last run failed
}

// typed is what a node does that needs its types; a cell per instantiation.
type typed interface {
	// eval runs the function and tells whether the value became another one.
	eval(r *Run) (changed bool, err error)
	forget(e *Engine)
	query() string
	at() any
}

// fault is why the last run failed. kids and spots count the leading links that
// the failed run read; the links behind them are those of the last good run.
type fault struct {
	err         error
	kids, spots int
}

// structural faults come from the shape of the graph and not from a value, so they
// can go away while everything that was read stays equal.
type structural struct {
	err error
}

func (s *structural) Error() string { return s.err.Error() }
func (s *structural) Unwrap() error { return s.err }

// spot is a touch that some node read.
type spot struct {
	touch db.Touch
	uses  []use
}

// link points from a reader to what it read; slot is the position of the reverse
// edge there. use is that reverse edge, at the position of the link.
type link[T any] struct {
	to   T
	slot uint32
}

type use struct {
	by *node
	at uint32
}

// linked is implemented by what can be read: nodes and spots.
type linked[T any] interface {
	comparable
	users() *[]use
	of(*node) *[]link[T]
}

func (n *node) users() *[]use              { return &n.uses }
func (n *node) of(by *node) *[]link[*node] { return &by.kids }
func (s *spot) users() *[]use              { return &s.uses }
func (s *spot) of(by *node) *[]link[*spot] { return &by.spots }

// relink makes n's links lead to want, in this order, and calls left for each that
// lost its use by n. What n reads usually stays the same, so the common beginning is kept.
func relink[T linked[T]](n *node, list *[]link[T], want []T, left func(T)) {
	old := *list
	same := 0
	for same < len(old) && same < len(want) && old[same].to == want[same] {
		same++
	}
	for i := len(old) - 1; i >= same; i-- {
		unlink(old[i])
	}
	dropped := append([]link[T](nil), old[same:]...)
	next := old[:same]
	if cap(old) < len(want) || cap(old) > 2*len(want)+4 {
		next = append(make([]link[T], 0, len(want)), old[:same]...)
	}
	*list = next
	for i := same; i < len(want); i++ {
		us := want[i].users()
		*list = append(*list, link[T]{want[i], uint32(len(*us))})
		*us = append(*us, use{n, uint32(i)})
	}
	clear((*list)[len(*list):cap(*list)])
	for _, l := range dropped {
		left(l.to)
	}
}

// unlink removes the reverse edge by moving the last one into its place.
func unlink[T linked[T]](l link[T]) {
	us := l.to.users()
	last := len(*us) - 1
	if moved := (*us)[last]; int(l.slot) != last {
		(*us)[l.slot] = moved
		(*l.to.of(moved.by))[moved.at].slot = l.slot
	}
	(*us)[last] = use{}
	*us = (*us)[:last]
}

// name returns query(key).
func (n *node) name() string { return fmt.Sprintf("%s(%v)", n.typed.query(), n.typed.at()) }

func (n *node) used() bool { return len(n.uses) > 0 || n.root != nil }

func (n *node) err() error {
	if n.fault == nil {
		return nil
	}
	return n.fault.err
}

func (n *node) failure() Failure {
	return Failure{Query: n.typed.query(), Key: n.typed.at(), Err: n.err()}
}

// memo holds one query's nodes in one engine.
type memo[K comparable, V any] struct {
	q     *Query[K, V]
	ran   atomic.Uint64
	mu    sync.RWMutex
	cells map[K]*cell[K, V]
}

// counted is a memo without its types.
type counted interface {
	count() (query string, ran uint64, nodes int)
}

func (m *memo[K, V]) count() (string, uint64, int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.q.name, m.ran.Load(), len(m.cells)
}

// cell is a node with its types.
type cell[K comparable, V any] struct {
	node
	memo *memo[K, V]
	key  K
	val  V
}

// cell returns q's node at k in e, a new one if need be. Workers call it at once.
func (q *Query[K, V]) cell(e *Engine, k K) *cell[K, V] {
	a, ok := e.memos.Load(q)
	if !ok {
		a, _ = e.memos.LoadOrStore(q, &memo[K, V]{q: q, cells: map[K]*cell[K, V]{}})
	}
	m := a.(*memo[K, V])
	if c := m.find(k); c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.cells[k]
	if c == nil {
		c = &cell[K, V]{memo: m, key: k}
		c.typed, c.must = c, true
		m.cells[k] = c
	}
	return c
}

// find unlocks in a defer because a key that cannot be hashed panics.
func (m *memo[K, V]) find(k K) *cell[K, V] {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cells[k]
}

func (c *cell[K, V]) query() string { return c.memo.q.name }
func (c *cell[K, V]) at() any       { return c.key }

func (c *cell[K, V]) forget(*Engine) {
	c.memo.mu.Lock()
	defer c.memo.mu.Unlock()
	delete(c.memo.cells, c.key)
}

func (c *cell[K, V]) eval(r *Run) (changed bool, err error) {
	c.memo.ran.Add(1)
	v, same, returned, err := c.call(r)
	if err == nil {
		// Fail, or a circle whose panic the function swallowed.
		if err = r.w.stack[r.depth].poison; err == nil {
			err = r.err
		}
	}
	switch {
	case err == nil && same:
		return false, nil
	case err == nil:
		c.val, c.good = v, true
		return true, nil
	case c.good:
		return false, err
	case returned:
		c.val = v
		return true, err
	default:
		return c.changed == 0, err
	}
}

// call runs the function and the comparison; a panic of either is an error.
func (c *cell[K, V]) call(r *Run) (v V, same, returned bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if s, ok := p.(*structural); ok {
				err = s
			} else {
				err = &PanicError{Value: p, Stack: debug.Stack()}
			}
		}
	}()
	v = c.memo.q.fn(r, c.key)
	returned = true
	if c.good && r.err == nil && c.memo.q.equal != nil {
		same = c.memo.q.equal(c.val, v)
	}
	return v, same, returned, nil
}
