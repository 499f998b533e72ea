package incr

import "slices"

// unused notes that nobody uses n since the round in n.lost.
func (e *Engine) unused(n *node) {
	if n.lost == 0 {
		n.lost = e.age
	}
	due := n.lost + e.grace
	e.leaving[due] = append(e.leaving[due], n)
}

// leave releases what nobody has used for the grace. What only a released node
// used goes with it, unless somebody else left it more recently.
func (e *Engine) leave() {
	due := e.leaving[e.round]
	delete(e.leaving, e.round)
	e.sweep(due)
	e.sweep(e.tangled())
}

func (e *Engine) sweep(due []*node) {
	for len(due) > 0 {
		n := due[len(due)-1]
		due = due[:len(due)-1]
		if !n.gone && !n.used() && e.overdue(n) {
			due = append(due, e.drop(n)...)
		}
	}
}

// overdue tells whether the grace has passed since n lost a use other than by a release.
func (e *Engine) overdue(n *node) bool { return n.lost == 0 || n.lost+e.grace <= e.round }

// drop takes n out of the graph and returns those that it was the last to use.
func (e *Engine) drop(n *node) (orphans []*node) {
	n.gone = true
	n.typed.forget(e)
	e.report.Released++
	e.total.released++
	if n.fault != nil {
		delete(e.faulty, n)
		e.report.Mended = append(e.report.Mended, n.failure())
	}
	e.edges -= len(n.kids)
	e.reads -= len(n.spots)
	relink(n, &n.kids, nil, func(k *node) {
		switch {
		case k.gone || k.used():
		case !e.overdue(k):
			e.unused(k)
		default:
			orphans = append(orphans, k)
		}
	})
	relink(n, &n.spots, nil, e.unwatch)
	return orphans
}

// tangled handles failing nodes, which can use each other in a ring (a circle of
// queries, or a kept read that has turned round) and so never become unused. Where
// nothing above a failing node is held or waits for its own release, the whole
// ring has been left: its edges are cut after the grace. It returns the nodes that
// became unused by it.
func (e *Engine) tangled() (orphans []*node) {
	for n := range e.faulty {
		for m := range e.left(n) {
			if !m.gone {
				orphans = append(orphans, e.drop(m)...)
			}
		}
	}
	return orphans
}

// left returns n and everything above it if none of that is held, on its way out or
// within its grace, else nil.
func (e *Engine) left(n *node) map[*node]struct{} {
	seen := map[*node]struct{}{n: {}}
	for todo := []*node{n}; len(todo) > 0; {
		m := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if m.root != nil || len(m.uses) == 0 || !e.overdue(m) {
			return nil
		}
		for _, u := range m.uses {
			if _, ok := seen[u.by]; !ok {
				seen[u.by] = struct{}{}
				todo = append(todo, u.by)
			}
		}
	}
	return seen
}

// Stats returns the counters. It waits for a round under way.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Stats{
		Revision: e.at.Revision(), Rounds: e.round, Ran: map[string]uint64{}, Changed: e.total.changed,
		Released: e.total.released, Edges: e.edges, Reads: e.reads, Touches: len(e.spots), Held: e.held, Failing: len(e.faulty),
	}
	e.memos.Range(func(_, m any) bool {
		name, ran, nodes := m.(counted).count()
		s.Ran[name] += ran
		s.Nodes += nodes
		return true
	})
	return s
}

// Failing lists all queries whose last run failed, by name and key. It waits for a
// round under way.
func (e *Engine) Failing() []Failure {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Failure, 0, len(e.faulty))
	for n := range e.faulty {
		out = append(out, n.failure())
	}
	slices.SortFunc(out, byName)
	return out
}
