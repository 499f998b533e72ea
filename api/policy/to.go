package policy

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/atoll-mesh/atoll/api"
)

// To is one element of a policy's to list. The element types of package api
// have the same fields and convert: To[api.MeshTimeoutConf](element).
type To[C any] struct {
	TargetRef api.TargetRef
	Default   C
}

// Destination is a real resource that a proxy calls, or a route to it. Section
// is the port's name (or its number as text), "rule_<i>" for a route; empty: all
// of the resource. The zero value stands for everything in the mesh.
type Destination struct {
	ID      api.ID
	Section string
}

// Resolve returns the resources of the kind in the policies' mesh that carry
// the labels, in any order.
type Resolve func(kind string, labels map[string]string) []api.ID

// ToRules are the results of one kind for all that a proxy calls: R is a [Rule],
// or a list of [KeyedRule].
type ToRules[R any] struct {
	origin  []ranked // of the entries, ascending
	results map[Destination]*result[R]
	merge   func(at []int) R
}

// result is what some entries target: positions of these, and the merge with
// what else is relevant once somebody asked. Two who ask at once may both
// merge; they get one value.
type result[R any] struct {
	own    []int
	merged atomic.Pointer[R]
}

type ranked struct {
	Source
	rank int
}

// NewToRules collects the to entries of the selected policies and resolves what
// they target. Merge is [NewRule] or [MergeKeyed]; it is called for what is
// looked up and kept.
func NewToRules[S, C, R any](selected []Selected[S], to func(*S) []To[C], resolve Resolve, merge func([]Step[C]) R) *ToRules[R] {
	type entry struct {
		ranked
		To[C]
	}
	var all []entry
	for _, s := range selected {
		for i, e := range to(&s.Policy.Spec) {
			if r, ok := targetRank(e.TargetRef); ok {
				all = append(all, entry{ranked{Source{&s.Policy.Meta, i}, s.tier*targetRanks + r}, e})
			}
		}
	}
	// Names and positions are in order already and count less than the target:
	// a stable sort keeps them.
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.rank, b.rank) })

	t := &ToRules[R]{origin: make([]ranked, len(all)), results: make(map[Destination]*result[R], len(all))}
	t.merge = func(at []int) R {
		steps := make([]Step[C], len(at))
		for i, p := range at {
			steps[i] = Step[C]{all[p].Source, all[p].Default}
		}
		return merge(steps)
	}
	add := func(d Destination, at int) {
		r := t.results[d]
		if r == nil {
			r = &result[R]{}
			t.results[d] = r
		}
		r.own = append(r.own, at)
	}
	for i, e := range all {
		t.origin[i] = e.ranked
		if e.TargetRef.Kind == api.RefMesh {
			add(Destination{}, i)
			continue
		}
		for _, id := range resolve(e.TargetRef.Kind, e.TargetRef.Labels) {
			add(Destination{id, e.TargetRef.SectionName}, i)
		}
	}
	return t
}

// get returns the result at exactly this destination: the entries for it, for
// all of the resource, and for everything, merged in their order.
func (t *ToRules[R]) get(d Destination) (R, bool) {
	r := t.results[d]
	if r == nil {
		var none R
		return none, false
	}
	if v := r.merged.Load(); v != nil {
		return *v, true
	}
	var at []int
	for _, level := range []Destination{{}, {ID: d.ID}, d} {
		if r := t.results[level]; r != nil {
			at = append(at, r.own...)
		}
	}
	slices.Sort(at)
	v := t.merge(slices.Compact(at))
	if !r.merged.CompareAndSwap(nil, &v) {
		v = *r.merged.Load()
	}
	return v, true
}

const targetRanks = 6

func targetRank(ref api.TargetRef) (rank int, ok bool) {
	switch ref.Kind {
	case api.RefMesh:
		return 0, true
	case api.RefService:
		if ref.SectionName != "" {
			return 2, true
		}
		return 1, true
	case api.RefExternalService:
		return 3, true
	case api.RefMultiZoneService:
		return 4, true
	case api.RefHTTPRoute:
		return 5, true
	}
	return 0, false // a form that is no longer in use selects nothing
}

// Lookup returns the result for the first of the destinations that has one,
// each tried with its section and without, and then the one for everything.
// Levels are not merged: the first supplies the whole. For a port of a service
// give its destination; for a route give the route and then the service's port.
// At tells what the result was found under.
func (t *ToRules[R]) Lookup(ids ...Destination) (result R, at Destination, ok bool) {
	for _, d := range ids {
		for _, at := range [...]Destination{d, {ID: d.ID}} {
			if result, ok = t.get(at); ok {
				return result, at, true
			}
		}
	}
	result, ok = t.get(Destination{})
	return result, Destination{}, ok
}

// All yields every result, by destination; the one for everything is first.
func (t *ToRules[R]) All() iter.Seq2[Destination, R] {
	return func(yield func(Destination, R) bool) {
		for _, d := range slices.SortedFunc(maps.Keys(t.results), compareDestinations) {
			if r, _ := t.get(d); !yield(d, r) {
				return
			}
		}
	}
}

func compareDestinations(a, b Destination) int {
	return cmp.Or(cmp.Compare(a.ID.Kind, b.ID.Kind), cmp.Compare(a.ID.Key(), b.ID.Key()), cmp.Compare(a.Section, b.Section))
}

// Equal reports whether both come from the same rows and targets.
func (t *ToRules[R]) Equal(o *ToRules[R]) bool {
	if t == o || t == nil || o == nil {
		return t == o
	}
	same := func(a, b *result[R]) bool { return slices.Equal(a.own, b.own) }
	return slices.Equal(t.origin, o.origin) && maps.EqualFunc(t.results, o.results, same)
}
