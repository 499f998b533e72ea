package policy

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/atoll-mesh/atoll/api"
)

// To is one element of a policy's to list.
type To[C any] struct {
	Target api.TargetRef
	Conf   C
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
	origin []ranked // of the entries, ascending
	mesh   []int    // positions of the entries for everything
	own    map[Destination][]int
	rules  map[Destination]func() R
}

type ranked struct {
	Source
	rank int
}

// NewToRules collects the to entries of the selected policies and resolves what
// they target. Merge is [NewRule] or [MergeKeyed]; it is called for what is
// looked up, once.
func NewToRules[S, C, R any](selected []Selected[S], to func(*S) []To[C], resolve Resolve, merge func([]Step[C]) R) *ToRules[R] {
	type entry struct {
		ranked
		To[C]
	}
	var all []entry
	for _, s := range selected {
		for i, e := range to(&s.Policy.Spec) {
			if r, ok := targetRank(e.Target); ok {
				all = append(all, entry{ranked{Source{&s.Policy.Meta, i}, s.tier*targetRanks + r}, e})
			}
		}
	}
	// Names and positions are in order already and count less than the target:
	// a stable sort keeps them.
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.rank, b.rank) })

	t := &ToRules[R]{own: map[Destination][]int{}, rules: map[Destination]func() R{}}
	for i, e := range all {
		t.origin = append(t.origin, e.ranked)
		if e.Target.Kind == "Mesh" {
			t.mesh = append(t.mesh, i)
			continue
		}
		for _, id := range resolve(e.Target.Kind, e.Target.Labels) {
			d := Destination{id, e.Target.SectionName}
			t.own[d] = append(t.own[d], i)
		}
	}
	later := func(at []int) func() R {
		return sync.OnceValue(func() R {
			steps := make([]Step[C], len(at))
			for i, p := range at {
				steps[i] = Step[C]{all[p].Source, all[p].Conf}
			}
			return merge(steps)
		})
	}
	if len(t.mesh) > 0 {
		t.rules[Destination{}] = later(t.mesh)
	}
	for d, at := range t.own {
		at = slices.Concat(t.mesh, at)
		if d.Section != "" {
			at = append(at, t.own[Destination{ID: d.ID}]...)
		}
		slices.Sort(at)
		t.rules[d] = later(slices.Compact(at))
	}
	return t
}

const targetRanks = 6

func targetRank(ref api.TargetRef) (rank int, ok bool) {
	switch ref.Kind {
	case "Mesh":
		return 0, true
	case "MeshService":
		if ref.SectionName != "" {
			return 2, true
		}
		return 1, true
	case "MeshExternalService":
		return 3, true
	case "MeshMultiZoneService":
		return 4, true
	case "MeshHTTPRoute":
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
			if get, ok := t.rules[at]; ok {
				return get(), at, true
			}
		}
	}
	if get, ok := t.rules[Destination{}]; ok {
		return get(), Destination{}, true
	}
	return result, Destination{}, false
}

// All yields every result, by destination; the one for everything is first.
func (t *ToRules[R]) All() iter.Seq2[Destination, R] {
	return func(yield func(Destination, R) bool) {
		for _, d := range slices.SortedFunc(maps.Keys(t.rules), compareDestinations) {
			if !yield(d, t.rules[d]()) {
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
	return slices.Equal(t.origin, o.origin) && slices.Equal(t.mesh, o.mesh) && maps.EqualFunc(t.own, o.own, slices.Equal[[]int])
}
