// Package policy says which policies a proxy gets, in what order, merged how,
// and where every part of the result came from.
//
// It owns selection ([Set]), the rules for what a proxy calls ([ToRules]), for
// who calls it ([InboundRules], [PermissionsFor]) and for the proxy as such
// ([Single]), and the merge they share ([Merge], [MergeKeyed]). Queries of
// xds/plan and inspection call it. It never reads the database (what a label
// selects is asked of a callback, so that the caller's reads are recorded),
// knows no policy kind but MeshTrafficPermission, and changes nothing that it
// is given. Everything here is a pure function; values may be shared between
// goroutines.
//
//	 policies of one kind and mesh, in any order
//	        │ NewSet: drop shadow policies, sort once, index by label
//	        ▼
//	   ┌─ Set ──────────────┐   Keys: the labels that matter ─▶ the caller makes
//	   │ low ──────▶ high   │                                   classes of proxies
//	   └────────┬───────────┘
//	            │ Select(Proxy): zone, namespace, labels, section
//	            ▼
//	   []Selected, low ─▶ high; the later wins
//	            │
//	   ┌────────┴─────┬──────────────────┬──────────────────┐
//	   ▼ to[]         ▼ rules[]          ▼ default          ▼ MeshTrafficPermission
//	NewToRules     InboundRules        Single          PermissionsFor
//	   │ Lookup       │ CatchAll         │                  │
//	   ▼              ▼                  ▼                  ▼
//	 Rule{Conf, Steps} ◀── Merge ── Step{Source, Conf}…   Permissions
//
// A [Rule] keeps the steps it was merged from. [Rule.Explain] tells for each
// field which step set it.
//
// # Why
//
// Confs are merged as JSON (RFC 7396), because what a user wrote is JSON and
// "absent" has one meaning there; a merge written per kind would be code per
// kind and would disagree with it sooner or later. It is not done where it says
// nothing: one step is its own result, and a rule is merged when it is first
// looked up, once.
//
// Sorting happens once per kind and mesh, not per proxy: all that orders two
// policies is written in them. A proxy then costs a look-up per label. Rules of
// equal importance end up ordered by ID, so that the order in which rows arrive
// can never be seen.
//
// A conf must survive encoding and decoding; one that does not is a broken kind
// and panics in Merge.
package policy

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unique"

	"github.com/atoll-mesh/atoll/api"
)

// Proxy is all that a policy can see of a proxy when it selects.
type Proxy struct {
	Mesh      string            `json:"mesh"`
	Zone      string            `json:"zone,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`   // those that matter, see [Set.Keys]
	Sections  []string          `json:"sections,omitempty"` // names of inbounds and listeners, or their ports as text
	// Tags are, by inbound, those that older policies select by and that differ
	// from the labels; all inbounds are listed if one is. The proxy itself, if it
	// has no inbounds, is listed as "".
	Tags map[string]map[string]string `json:"tags,omitempty"`
}

// ProxyOf describes a Dataplane by the labels of the given keys and by its
// sections. The display name counts as a label even where it is not stored.
func ProxyOf(m *api.Meta, keys []string, sections []string) Proxy {
	p := Proxy{Mesh: m.Mesh, Zone: zoneOf(m), Namespace: namespaceOf(m), Sections: sections}
	for _, key := range keys {
		value, ok := m.Labels[key]
		if !ok && key == api.LabelDisplayName {
			value, ok = m.Name, true
		}
		if !ok {
			continue
		}
		if p.Labels == nil {
			p.Labels = make(map[string]string, len(keys))
		}
		p.Labels[key] = value
	}
	return p
}

// Of is [ProxyOf] with the tags of the Dataplane, which older policies select by.
// Sections nil: those of all inbounds count, and only to select at all.
func Of(dp *api.Object[api.Dataplane], keys []string, sections []string) Proxy {
	p := ProxyOf(&dp.Meta, keys, sections)
	tags, differ := map[string]map[string]string{}, false
	add := func(section string, in *api.Inbound) {
		own := map[string]string{}
		for _, key := range keys {
			if value := api.Tag(dp, in, key); value != p.Labels[key] {
				own[key] = value
			}
		}
		tags[section] = own
		differ = differ || len(own) > 0
	}
	inbounds := dp.Spec.Networking.Inbound
	for i := range inbounds {
		if section := inbounds[i].Section(); sections == nil || slices.Contains(sections, section) {
			add(section, &inbounds[i])
		}
	}
	if len(inbounds) == 0 {
		add("", nil)
	}
	if differ {
		p.Tags = tags
	}
	return p
}

// Class is a Proxy as a comparable value of one word: two proxies of one class
// get the same policies. The zero value is no class.
type Class struct{ text unique.Handle[string] } // the JSON of the Proxy

// Class returns the class of the proxy. The order of the sections is ignored.
func (p Proxy) Class() Class {
	p.Sections = slices.Compact(slices.Sorted(slices.Values(p.Sections)))
	body, err := json.Marshal(p)
	if err != nil {
		panic("policy: class: " + err.Error()) // strings always encode
	}
	return Class{unique.Make(string(body))}
}

// Proxy is the inverse of [Proxy.Class].
func (c Class) Proxy() Proxy {
	var p Proxy
	if err := json.Unmarshal([]byte(c.text.Value()), &p); err != nil {
		panic("policy: not a class: " + c.String())
	}
	return p
}

// String is the JSON of the Proxy.
func (c Class) String() string {
	if c == (Class{}) {
		return "no class"
	}
	return c.text.Value()
}

// Source is where a part of a result was written.
type Source struct {
	Policy *api.Meta
	// Index is the position in the policy's to or rules list, 0 for a policy
	// that has a single conf.
	Index int
}

// Step is one conf that a merge took in.
type Step[C any] struct {
	Source
	Conf C
}

// Rule is a merged conf.
type Rule[C any] struct {
	Conf C
	// Steps are what was merged, later over earlier; at least one.
	Steps []Step[C]
}

// Sources lists where the rule came from, later over earlier.
func (r Rule[C]) Sources() []Source {
	out := make([]Source, len(r.Steps))
	for i, s := range r.Steps {
		out[i] = s.Source
	}
	return out
}

// Single is the rule of a kind whose policies hold one conf for the proxy as
// such; ok is false when no policy is selected. Give it [Selecting] for the
// conf of one section.
func Single[S, C any](selected []Selected[S], conf func(*S) C) (rule Rule[C], ok bool) {
	steps := make([]Step[C], len(selected))
	for i, s := range selected {
		steps[i] = Step[C]{Source{&s.Policy.Meta, 0}, conf(&s.Policy.Spec)}
	}
	return NewRule(steps), len(steps) > 0
}

// NewRule merges the steps, see [Merge].
func NewRule[C any](steps []Step[C]) Rule[C] {
	return Rule[C]{Conf: Merge(steps), Steps: steps}
}

// Set is the policies of one kind in one mesh, ordered and indexed once.
type Set[S any] struct {
	ordered  []candidate[S]
	everyone []int               // positions of those that select without labels
	byPair   map[labelPair][]int // positions of the others, by one of their labels
	keys     []string
}

type candidate[S any] struct {
	policy  *api.Object[S]
	top     *api.TargetRef // nil: Mesh
	labels  map[string]string
	tags    map[string]string
	section string
	tier    int
}

// pairs are those that a proxy must have, as labels or as tags.
func (c *candidate[S]) pairs() iter.Seq[labelPair] {
	return func(yield func(labelPair) bool) {
		for _, list := range [...]map[string]string{c.labels, c.tags} {
			for key, value := range list {
				if !yield(labelPair{key, value}) {
					return
				}
			}
		}
	}
}

type labelPair struct{ key, value string }

// NewSet orders the policies. Top reads the spec's targetRef; nil is Mesh.
// Policies with the label kuma.io/effect: shadow are left out unless
// shadow is set (a question "what if").
func NewSet[S any](policies []*api.Object[S], top func(*S) *api.TargetRef, shadow bool) *Set[S] {
	s := &Set[S]{byPair: map[labelPair][]int{}}
	for _, p := range policies {
		if p.Label(api.LabelEffect) == "shadow" && !shadow {
			continue
		}
		ref := top(&p.Spec)
		c := candidate[S]{policy: p, top: ref, tier: tierOf(&p.Meta, ref)}
		if ref != nil && ref.Kind == api.RefDataplane {
			c.labels, c.section = ref.Labels, ref.SectionName
			if ref.Older != nil {
				c.tags = ref.Older.Tags
			}
		}
		s.ordered = append(s.ordered, c)
	}
	slices.SortFunc(s.ordered, func(a, b candidate[S]) int {
		if a.tier != b.tier {
			return cmp.Compare(a.tier, b.tier)
		}
		return compareNames(&a.policy.Meta, &b.policy.Meta)
	})
	s.index()
	return s
}

// index files each policy under the rarest of its label pairs, so that a proxy
// meets few policies that it does not match.
func (s *Set[S]) index() {
	uses := map[labelPair]int{}
	keys := map[string]bool{}
	for _, c := range s.ordered {
		for p := range c.pairs() {
			uses[p]++
			keys[p.key] = true
		}
	}
	s.keys = slices.Sorted(maps.Keys(keys))
	for i, c := range s.ordered {
		var rarest labelPair
		for p := range c.pairs() {
			if rarest == (labelPair{}) || uses[p] < uses[rarest] {
				rarest = p
			}
		}
		if rarest == (labelPair{}) {
			s.everyone = append(s.everyone, i)
		} else {
			s.byPair[rarest] = append(s.byPair[rarest], i)
		}
	}
}

// Keys lists, sorted, the keys of labels and tags that some policy selects by: a proxy's
// other labels cannot make a difference.
func (s *Set[S]) Keys() []string { return s.keys }

// Len is the number of policies in the set.
func (s *Set[S]) Len() int { return len(s.ordered) }

// Equal reports whether both sets hold the same rows.
func (s *Set[S]) Equal(o *Set[S]) bool {
	return s == o || s != nil && o != nil && slices.EqualFunc(s.ordered, o.ordered, func(a, b candidate[S]) bool { return a.policy == b.policy })
}

// Selected is a policy that a proxy gets. It is comparable with ==: equal means
// the same row.
type Selected[S any] struct {
	Policy *api.Object[S]
	// Section is the one inbound or listener that the policy is for; empty: all
	// of them, and the proxy itself.
	Section string

	tier int
	// among is for an older policy that selects some inbounds by their tags: the
	// names of these, each in quotes; empty: all.
	among string
}

// Selects reports whether the policy is for the inbound or listener.
func (s Selected[S]) Selects(section string) bool {
	return (s.Section == "" || s.Section == section) && (s.among == "" || strings.Contains(s.among, strconv.Quote(section)))
}

// Select returns the policies that the proxy gets, in ascending order: the
// later wins.
func (s *Set[S]) Select(p Proxy) []Selected[S] {
	at := slices.Clone(s.everyone)
	for key, value := range p.Labels {
		at = append(at, s.byPair[labelPair{key, value}]...)
	}
	for _, tags := range p.Tags {
		for key, value := range tags {
			at = append(at, s.byPair[labelPair{key, value}]...)
		}
	}
	slices.Sort(at)
	var out []Selected[S]
	for _, i := range slices.Compact(at) {
		c := s.ordered[i]
		if !Matches(&c.policy.Meta, c.top, p) {
			continue
		}
		among, _ := p.carrying(c.tags)
		out = append(out, Selected[S]{c.policy, c.section, c.tier, among})
	}
	return out
}

// Selecting keeps those that are for the inbound or listener, in order.
func Selecting[S any](selected []Selected[S], section string) []Selected[S] {
	var out []Selected[S]
	for _, s := range selected {
		if s.Selects(section) {
			out = append(out, s)
		}
	}
	return out
}
