package xds

import (
	"maps"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// content is a resource that some connected proxy uses.
type content struct {
	ref     plan.Ref
	name    string
	res     *wire.Resource
	parts   map[*part]struct{}
	release func()
}

// part is the names of one type. It is immutable, and shared by the groups that
// do not differ in the type: a change replaces what it concerns.
type part struct {
	typ     wire.Type
	names   plan.Names
	sorted  []string
	members map[string]*content // by Envoy's name: cheaper to look up than a Ref
	groups  map[*group]struct{}
}

// group is a set of names and the streams that have it.
type group struct {
	set     *plan.Set
	parts   []*part // of the types that have names
	streams map[*stream]struct{}
}

// planned is the groups of a plan; zero: there is no plan.
type planned struct{ own, class *group }

// part returns the names of a type; nil: there are none.
func (g *group) part(t wire.Type) *part {
	if g != nil {
		for _, p := range g.parts {
			if p.typ == t {
				return p
			}
		}
	}
	return nil
}

// get returns the content of a name; nil: the part does not have it.
func (p *part) get(name string) *content {
	if p == nil {
		return nil
	}
	return p.members[name]
}

// equal tells whether the group is of the same names and resources.
func (g *group) equal(set *plan.Set) bool {
	for _, t := range wire.Types() {
		if !g.part(t).equal(set.Of(t)) {
			return false
		}
	}
	return true
}

func (p *part) equal(names plan.Names) bool {
	if p == nil {
		return len(names) == 0
	}
	return maps.Equal(p.names, names)
}

// enter puts the stream into the groups of a plan. Like is what it had before:
// the new one differs little from it.
func (s *Server) enter(st *stream, p *plan.Plan, like planned) (next planned) {
	if p == nil {
		return next
	}
	if next.own = like.own; next.own == nil || !next.own.equal(p.Own) {
		next.own = s.newGroup(p.Own, like.own)
	}
	if next.class = s.classes[p.Class]; next.class == nil {
		next.class = s.newGroup(p.Class, like.class)
		s.classes[p.Class] = next.class
	}
	next.own.streams[st] = struct{}{}
	next.class.streams[st] = struct{}{}
	return next
}

func (s *Server) newGroup(set *plan.Set, like *group) *group {
	g := &group{set: set, streams: map[*stream]struct{}{}}
	for _, t := range wire.Types() {
		names, p := set.Of(t), like.part(t)
		if len(names) == 0 {
			continue
		}
		if !p.equal(names) {
			p = s.newPart(t, names, p)
		}
		p.groups[g] = struct{}{}
		g.parts = append(g.parts, p)
	}
	return g
}

func (s *Server) newPart(t wire.Type, names plan.Names, like *part) *part {
	p := &part{typ: t, names: names, members: make(map[string]*content, len(names)), groups: map[*group]struct{}{}}
	known := 0
	for name, ref := range names {
		c := like.get(name)
		if c != nil {
			known++
		}
		if c == nil || c.ref != ref {
			c = s.use(t, name, ref)
		}
		c.parts[p] = struct{}{}
		p.members[name] = c
	}
	if like != nil && known == len(names) && known == len(like.sorted) {
		p.sorted = like.sorted
	} else {
		p.sorted = slices.Sorted(maps.Keys(names))
	}
	return p
}

// use finds the content of a resource, or holds the resource from now on.
func (s *Server) use(t wire.Type, name string, ref plan.Ref) *content {
	c := s.contents[ref]
	if c == nil {
		c = &content{ref: ref, name: name, parts: map[*part]struct{}{}}
		s.contents[ref] = c
		c.release = incr.Hold(s.o.Engine, ref, func(res *wire.Resource, err error) {
			if err != nil {
				s.o.Log.Error("resource cannot be built; the last good one stays", "type", t.Short(), "name", name, "error", err)
			}
			s.mu.Lock()
			s.stagedContents[c] = res
			s.mu.Unlock()
		})
	}
	return c
}

// leave takes the stream out of the groups that none of the others has. It
// returns what nobody uses any more, for the caller to release without the lock.
func (s *Server) leave(st *stream, gone planned, others ...planned) (unused []*content) {
	for _, g := range []*group{gone.own, gone.class} {
		if g == nil || slices.ContainsFunc(others, func(o planned) bool { return o.own == g || o.class == g }) {
			continue
		}
		if delete(g.streams, st); len(g.streams) == 0 {
			unused = append(unused, s.dissolve(g)...)
		}
	}
	return unused
}

func (s *Server) dissolve(g *group) (unused []*content) {
	if s.classes[g.set] == g {
		delete(s.classes, g.set)
	}
	for _, p := range g.parts {
		if delete(p.groups, g); len(p.groups) > 0 {
			continue
		}
		for _, c := range p.members {
			if delete(c.parts, p); len(c.parts) == 0 {
				delete(s.contents, c.ref)
				delete(s.stagedContents, c)
				unused = append(unused, c)
			}
		}
	}
	return unused
}

func releaseAll(unused []*content) {
	for _, c := range unused {
		c.release()
	}
}

// news is names of one type, sorted, that may have other resources now. The
// names are shared by the streams that they concern.
type news struct {
	typ   wire.Type
	names []string
}

// diff lists the names that have another resource in the newer group; a group
// may be nil.
func diff(old, next *group) (out []news) {
	if old == next {
		return nil
	}
	for _, t := range wire.Types() {
		if was, is := old.part(t), next.part(t); was != is {
			if names := was.diff(is); len(names) > 0 {
				out = append(out, news{t, names})
			}
		}
	}
	return out
}

func (p *part) diff(next *part) (names []string) {
	var was, is []string
	if p != nil {
		was = p.sorted
	}
	if next != nil {
		is = next.sorted
	}
	for len(was) > 0 && len(is) > 0 {
		switch c := strings.Compare(was[0], is[0]); {
		case c < 0:
			names, was = append(names, was[0]), was[1:]
		case c > 0:
			names, is = append(names, is[0]), is[1:]
		default:
			if p.members[is[0]] != next.members[is[0]] {
				names = append(names, is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
	return append(append(names, was...), is...)
}
