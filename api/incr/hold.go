package incr

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// root is what a node has while it is held.
type root struct {
	holds []*hold
	news  bool // its failure began, ended or reads differently
}

// hold is one call of Hold.
type hold struct {
	n        *node // set once a round has taken it in
	find     func(*Engine) *node
	tell     func()
	order    uint64
	told     bool
	released atomic.Bool
}

// Hold marks f as in use: from the next round on its value is kept up to date.
// changed is called in the publish phase of that round with the value, and again
// after every round in which the value became another one or its failure began,
// ended or reads differently; err is the failure of f itself (nil if it is well),
// v then the last good value. Calls are serial, in the order of Hold.
//
// changed must not block and must not call the engine except Hold and release
// functions, which take effect in the same round. After release it is not called
// again; a call already under way is not awaited.
func Hold[V any](e *Engine, f Ref[V], changed func(v V, err error)) (release func()) {
	h := &hold{}
	h.find = func(e *Engine) *node {
		n, v := f.of.in(e)
		h.tell = func() { changed(*v, n.err()) }
		return n
	}
	e.post(h)
	return func() {
		if h.released.CompareAndSwap(false, true) {
			e.post(h)
		}
	}
}

// post hands a new or a released hold to the next round; one that comes out of a
// callback belongs to the round that called it.
func (e *Engine) post(h *hold) {
	e.inbox.Lock()
	if h.order == 0 {
		e.order++
		h.order = e.order
	}
	if e.publishing {
		e.pending = append(e.pending, h)
	} else {
		e.posted = append(e.posted, h)
	}
	e.inbox.Unlock()
	e.poke()
}

// poke wakes Loop.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// gather takes what was posted into the round that is about to begin. It comes
// before the round's snapshot is taken: what somebody holds because of a commit
// must not be computed without that commit first, and then once more.
func (e *Engine) gather() {
	e.inbox.Lock()
	e.pending = append(e.pending, e.posted...)
	e.posted = nil
	e.inbox.Unlock()
}

func (e *Engine) setPublishing(yes bool) {
	e.inbox.Lock()
	e.publishing = yes
	e.inbox.Unlock()
}

// expecting reports whether the round under way has more to take in.
func (e *Engine) expecting() bool {
	e.inbox.Lock()
	defer e.inbox.Unlock()
	return len(e.pending) > 0
}

// admit takes in new and released holds and returns the nodes that are now held
// and must be looked at. Released ones go first: what is held again in their place
// is then not computed twice.
func (e *Engine) admit() []*node {
	e.inbox.Lock()
	pending := e.pending
	e.pending = nil
	e.inbox.Unlock()
	var roots []*node
	for _, h := range pending {
		switch {
		case !h.released.Load():
			h.n = h.find(e)
			h.find = nil
			if h.n.root == nil {
				h.n.root = &root{}
			}
			h.n.root.holds = append(h.n.root.holds, h)
			e.held++
			roots = append(roots, h.n)
		case h.n != nil:
			e.dismiss(h)
		}
	}
	return slices.DeleteFunc(roots, func(n *node) bool { return n.root == nil })
}

func (e *Engine) dismiss(h *hold) {
	n := h.n
	h.n, h.tell = nil, nil
	e.held--
	n.root.holds = slices.DeleteFunc(n.root.holds, func(o *hold) bool { return o == h })
	if len(n.root.holds) > 0 {
		return
	}
	n.root = nil
	n.lost = e.age
	if !n.used() {
		e.unused(n)
	}
}

// publish tells those who hold one of the roots what is new to them.
func (e *Engine) publish(roots []*node) {
	var due []*hold
	for _, n := range roots {
		if n.root == nil {
			continue
		}
		news := n.root.news || n.changed == e.clock
		n.root.news = false
		for _, h := range n.root.holds {
			if news || !h.told {
				h.told = true
				due = append(due, h)
			}
		}
	}
	slices.SortFunc(due, func(a, b *hold) int { return cmp.Compare(a.order, b.order) })
	due = slices.Compact(due)
	e.setPublishing(true)
	defer e.setPublishing(false)
	for _, h := range due {
		if !h.released.Load() {
			h.tell()
		}
	}
}

// Peek computes f on the engine's present snapshot, or finds it computed, and
// returns it with its failure. It waits for a round under way. What it computed is
// kept for the grace; runs that fail are reported by the next round.
func Peek[V any](e *Engine, f Ref[V]) (V, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, v := f.of.in(e)
	if n.state.Load() != clean {
		e.wave([]*node{n})
		e.merge()
		e.report.Ran, e.report.Changed = 0, 0 // not the next round's work
	}
	if !n.used() && n.lost != e.age {
		n.lost = e.age
		e.unused(n)
	}
	return *v, n.err()
}
