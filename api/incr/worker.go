package incr

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/atoll-mesh/atoll/api/db"
)

// maxDepth bounds the nesting of queries, and with it the stack of a goroutine.
const maxDepth = 5000

// worker refreshes nodes during a wave. Its fields are its own, but for stack and
// blocked, which others may look at, under the engine's wait lock, while it sleeps.
type worker struct {
	e       *Engine
	stack   []frame
	blocked *node
	done    []outcome
	spare   []buffers // by depth
	ran     int
	changed int
}

// frame is one node that the worker is in the middle of. Each frame reads the next.
type frame struct {
	n      *node
	poison error // the node is part of a circle, or of a recursion without end
}

// outcome is what the merge after the barrier needs to know of a run. Runs that
// succeeded and read what they read before leave none.
type outcome struct {
	n       *node
	kids    []*node
	touches []db.Touch
	err     error
}

// buffers are reused by the runs at one depth.
type buffers struct {
	kids    []*node
	touches []db.Touch
}

// refresh brings n up to date. An error means that n cannot be had from here: it is
// on its way up from this worker's own stack, or nested too deep.
func (w *worker) refresh(n *node) error {
	for {
		switch n.state.Load() {
		case clean:
			return nil
		case dirty:
			if len(w.stack) >= maxDepth {
				return ErrDepth
			}
			if n.state.CompareAndSwap(dirty, running) {
				w.take(n)
				return nil
			}
		case running:
			if !w.await(n) {
				return ErrCycle
			}
		}
	}
}

// take refreshes a node that this worker has set to running.
func (w *worker) take(n *node) {
	depth := len(w.stack)
	w.stack = append(w.stack, frame{n: n})
	run := n.must || w.stale(n)
	if err := w.stack[depth].poison; err != nil {
		// Found to be part of a circle while looking at what it read before.
		w.done = append(w.done, outcome{n, targets(n.kids), touchesOf(n.spots), err})
	} else if run {
		w.run(n, depth)
	}
	w.stack[depth] = frame{}
	w.stack = w.stack[:depth]
	n.must, n.seen = false, w.e.clock
	n.state.Store(clean)
	if w.e.sleepers.Load() > 0 {
		w.e.wait.Lock()
		w.e.woken.Broadcast()
		w.e.wait.Unlock()
	}
}

// stale tells whether n must run: one of the values that it read came out
// different. It looks in the order of reading and stops at the first.
func (w *worker) stale(n *node) bool {
	kids := n.kids
	if f := n.fault; f != nil {
		if isStructural(f.err) {
			return true
		}
		for _, l := range n.kids[f.kids:] {
			// Reads of the last good run: they may no longer be wanted, so they are not
			// refreshed; that they may have changed is enough to try again.
			if l.to.marked > n.seen {
				return true
			}
		}
		kids = kids[:f.kids]
	}
	for _, l := range kids {
		if l.to.state.Load() != clean && w.refresh(l.to) != nil {
			return true
		}
		if l.to.changed > n.seen {
			return true
		}
	}
	return false
}

func (w *worker) run(n *node, depth int) {
	w.ran++
	for len(w.spare) <= depth {
		w.spare = append(w.spare, buffers{})
	}
	r := &Run{w: w, depth: depth, kids: w.spare[depth].kids[:0], touches: w.spare[depth].touches[:0]}
	w.spare[depth] = buffers{}
	changed, err := n.typed.eval(r)
	if changed {
		w.changed++
		n.changed = w.e.clock
	}
	kids, touches := distinct(r.kids), distinct(r.touches)
	if err != nil || n.fault != nil || !leads(n.kids, kids) || !watches(n.spots, touches) {
		w.done = append(w.done, outcome{n, slices.Clone(kids), slices.Clone(touches), err})
	}
	clear(r.kids)
	clear(r.touches)
	w.spare[depth] = buffers{r.kids[:0], r.touches[:0]}
	r.w, r.kids, r.touches = nil, nil, nil
}

// distinct keeps the first of equal elements, in place and in order.
func distinct[T comparable](list []T) []T {
	const few = 16
	out := list[:0]
	if len(list) <= few {
		for _, x := range list {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
		return out
	}
	seen := make(map[T]struct{}, len(list))
	for _, x := range list {
		if _, ok := seen[x]; !ok {
			seen[x] = struct{}{}
			out = append(out, x)
		}
	}
	return out
}

func leads(links []link[*node], to []*node) bool {
	return slices.EqualFunc(links, to, func(l link[*node], n *node) bool { return l.to == n })
}

func watches(links []link[*spot], to []db.Touch) bool {
	return slices.EqualFunc(links, to, func(l link[*spot], t db.Touch) bool { return l.to.touch == t })
}

func targets[T any](links []link[T]) []T {
	out := make([]T, len(links))
	for i, l := range links {
		out[i] = l.to
	}
	return out
}

func touchesOf(links []link[*spot]) []db.Touch {
	out := make([]db.Touch, len(links))
	for i, l := range links {
		out[i] = l.to.touch
	}
	return out
}

// await sleeps until another worker is done with n. It reports false, at once, if
// that would be for ever, because n waits for something on this worker's stack.
// The last worker that closes a circle finds it, since all others sleep by then.
func (w *worker) await(n *node) bool {
	e := w.e
	e.wait.Lock()
	defer e.wait.Unlock()
	if w.circle(n) != nil {
		return false
	}
	e.sleepers.Add(1)
	w.blocked = n
	for n.state.Load() == running {
		e.woken.Wait()
	}
	w.blocked = nil
	e.sleepers.Add(-1)
	return true
}

// circle returns the frames that lead from n back to the top of w's stack, or nil
// if n is being worked on by somebody who does not wait for w. The wait lock is held.
func (w *worker) circle(n *node) []*frame {
	var out []*frame
	for {
		owner, at := w.owner(n)
		if owner == nil {
			return nil
		}
		for i := at; i < len(owner.stack); i++ {
			out = append(out, &owner.stack[i])
		}
		if owner == w {
			return out
		}
		n = owner.blocked
	}
}

// owner finds who has n on its stack: w, or one of those who sleep.
func (w *worker) owner(n *node) (*worker, int) {
	has := func(f frame) bool { return f.n == n }
	if i := slices.IndexFunc(w.stack, has); i >= 0 {
		return w, i
	}
	for _, o := range w.e.workers {
		if o != w && o.blocked != nil {
			if i := slices.IndexFunc(o.stack, has); i >= 0 {
				return o, i
			}
		}
	}
	return nil, 0
}

// poison marks every member of the circle that reading n closes, so that all of
// them fail, whichever was entered first. A nesting too deep is marked as a whole.
func (w *worker) poison(n *node, why error) {
	w.e.wait.Lock()
	defer w.e.wait.Unlock()
	members := w.circle(n)
	if why == ErrDepth {
		members = nil
		for i := range w.stack {
			members = append(members, &w.stack[i])
		}
	}
	err := &structural{fmt.Errorf("%w: %s", why, path(members, why == ErrCycle))}
	for _, f := range members {
		if f.poison == nil {
			f.poison = err
		}
	}
}

// path names the members. A circle begins at its least name, so that its text does
// not depend on where it was entered; a long path is cut in the middle.
func path(members []*frame, closed bool) string {
	const ends = 8
	names := make([]string, len(members))
	for i, f := range members {
		names[i] = f.n.name()
	}
	if closed {
		least := slices.Index(names, slices.Min(names))
		names = slices.Concat(names[least:], names[:least], names[least:least+1])
	}
	if cut := len(names) - 2*ends; cut > 1 {
		names = slices.Replace(names, ends, ends+cut, fmt.Sprintf("… %d more …", cut))
	}
	return strings.Join(names, " → ")
}

func isStructural(err error) bool {
	_, ok := err.(*structural)
	return ok
}

// wave refreshes the nodes on as many workers as there is work for and returns when
// all of them are clean.
func (e *Engine) wave(work []*node) {
	e.clock++
	if len(work) == 0 {
		return
	}
	var next atomic.Int64
	drain := func(w *worker) {
		for i := next.Add(1) - 1; int(i) < len(work); i = next.Add(1) - 1 {
			// An empty stack has neither circle nor depth, so this cannot fail.
			_ = w.refresh(work[i])
		}
	}
	n := min(len(e.workers), len(work))
	var all sync.WaitGroup
	for _, w := range e.workers[1:n] {
		all.Go(func() { drain(w) })
	}
	drain(e.workers[0])
	all.Wait()
}
