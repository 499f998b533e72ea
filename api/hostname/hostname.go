// Package hostname decides which host names services have: what
// HostnameGenerators make of them, and who keeps a name that two would get.
//
// It owns that decision for everybody: a zone keeps a [Directory] of what it knows
// and enters its answers as rows (zone/names), inspection fills one as each zone
// would see it (api/inspect). It reads no database, writes nothing, and knows
// nothing of addresses and DNS.
//
//	generator, service ─▶ Directory: claims by name, in order ─▶ Changed ─▶ Of: addresses, conditions
//
// # Order
//
// Generators of the zone are asked before those of global, older before younger;
// each is asked for older services before younger ones. Who gets a name of a mesh
// first keeps it, and the others are told who has it. The order is one of what is
// written, never of arrival, so that all instances and all restarts agree.
//
// # Why
//
// Asking all generators for all services anew is easy to say and costs what
// exists. Here each name knows its claims in order, so that a change looks at the
// names concerned only: a service that comes or goes changes its own status and, of
// those that wanted a name of its own, theirs.
package hostname

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// Kinds are the kinds of services that generators give names to.
var Kinds = []api.AnyKind{api.MeshServices, api.MeshExternalServices, api.MeshMultiZoneServices}

// Directory is the host names in one zone. It must not be used by several
// goroutines at a time.
type Directory struct {
	zone       string
	generators []*generator // in order
	services   map[api.ID]*service
	claims     map[spot][]*claim // in order: the first has the name

	changed map[api.ID]struct{}
	moved   map[spot]struct{} // names that have another owner
}

// spot is a name in a mesh.
type spot struct{ mesh, host string }

// generator is what matters of a HostnameGenerator; comparable but for its labels.
type generator struct {
	rank
	core, kind, text string
	labels           map[string]string
	template         api.HostnameTemplate
	err              error // of the template
}

// service is what matters of a service.
type service struct {
	meta   *api.Meta
	rank   rank
	claims []*claim // in the order of their generators
}

// claim is what a generator made of a service: a name, or an error.
type claim struct {
	by   *generator
	of   *service
	host string
	err  error
}

// rank is the place in the order of generators, or of services.
type rank struct {
	last    bool // after all that are not
	created time.Time
	id      api.ID
}

func (a rank) compare(b rank) int {
	switch {
	case a.last != b.last && b.last:
		return -1
	case a.last != b.last:
		return 1
	}
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id.Name, b.id.Name), cmp.Compare(a.id.String(), b.id.String()))
}

func (c *claim) compare(d *claim) int {
	return cmp.Or(c.by.compare(d.by.rank), c.of.rank.compare(d.of.rank))
}

func (c *claim) at() spot { return spot{c.of.meta.Mesh, c.host} }

// New returns an empty directory of the zone with this name.
func New(zone string) *Directory {
	return &Directory{
		zone: zone, services: map[api.ID]*service{}, claims: map[spot][]*claim{},
		changed: map[api.ID]struct{}{}, moved: map[spot]struct{}{},
	}
}

// PutGenerator enters a generator, or what became of it.
func (d *Directory) PutGenerator(o *api.Object[api.HostnameGenerator]) {
	g := &generator{
		rank: rank{o.Label(api.LabelOrigin) != api.OriginZone, o.Created, o.ID},
		core: o.Core, text: o.Spec.Template,
	}
	for _, k := range Kinds {
		if s := o.Spec.Selector.For(k.Info().Name); s != nil {
			g.kind, g.labels = k.Info().Name, s.MatchLabels
		}
	}
	if old := d.generator(o.ID); old != nil {
		if old.rank.compare(g.rank) == 0 && old.core == g.core && old.kind == g.kind && old.text == g.text && maps.Equal(old.labels, g.labels) {
			return
		}
		d.RemoveGenerator(o.ID)
	}
	g.template, g.err = api.ParseHostname(g.text)
	i, _ := slices.BinarySearchFunc(d.generators, g, func(a, b *generator) int { return a.compare(b.rank) })
	d.generators = slices.Insert(d.generators, i, g)
	for _, s := range d.services {
		d.ask(g, s)
	}
}

// RemoveGenerator takes a generator out, if it is there.
func (d *Directory) RemoveGenerator(id api.ID) {
	g := d.generator(id)
	if g == nil {
		return
	}
	d.generators = slices.DeleteFunc(d.generators, func(o *generator) bool { return o == g })
	for _, s := range d.services {
		if i := slices.IndexFunc(s.claims, func(c *claim) bool { return c.by == g }); i >= 0 {
			d.drop(s.claims[i])
			s.claims = slices.Delete(s.claims, i, i+1)
		}
	}
}

func (d *Directory) generator(id api.ID) *generator {
	if i := slices.IndexFunc(d.generators, func(g *generator) bool { return g.id == id }); i >= 0 {
		return d.generators[i]
	}
	return nil
}

// PutService enters a service of one of [Kinds], or what became of it: only its
// names, labels and age matter.
func (d *Directory) PutService(m *api.Meta) {
	if old := d.services[m.ID]; old != nil {
		if old.meta.Core == m.Core && old.meta.Created.Equal(m.Created) && maps.Equal(old.meta.Labels, m.Labels) {
			return
		}
		d.RemoveService(m.ID)
	}
	s := &service{meta: m, rank: rank{created: m.Created, id: m.ID}}
	d.services[m.ID] = s
	for _, g := range d.generators {
		d.ask(g, s)
	}
}

// RemoveService takes a service out, if it is there.
func (d *Directory) RemoveService(id api.ID) {
	s := d.services[id]
	if s == nil {
		return
	}
	delete(d.services, id)
	d.changed[id] = struct{}{}
	for _, c := range s.claims {
		d.drop(c)
	}
}

// ask enters what the generator makes of the service, if it selects it.
func (d *Directory) ask(g *generator, s *service) {
	if g.kind != s.meta.Kind || !api.HasLabels(s.meta.Labels, g.labels) {
		return
	}
	c := &claim{by: g, of: s, err: g.err}
	if c.err == nil {
		c.host, c.err = g.template.Render(s.meta, d.zone)
	}
	i, _ := slices.BinarySearchFunc(s.claims, c, (*claim).compare)
	s.claims = slices.Insert(s.claims, i, c)
	d.changed[s.meta.ID] = struct{}{}
	if c.err != nil {
		return
	}
	all := d.claims[c.at()]
	i, _ = slices.BinarySearchFunc(all, c, (*claim).compare)
	d.claims[c.at()] = slices.Insert(all, i, c)
	if i == 0 && len(all) > 0 {
		d.moved[c.at()] = struct{}{}
	}
}

// drop takes a claim out of those of its name.
func (d *Directory) drop(c *claim) {
	d.changed[c.of.meta.ID] = struct{}{}
	if c.err != nil {
		return
	}
	all := d.claims[c.at()]
	i := slices.Index(all, c)
	all = slices.Delete(all, i, i+1)
	if len(all) == 0 {
		delete(d.claims, c.at())
		return
	}
	d.claims[c.at()] = all
	if i == 0 {
		d.moved[c.at()] = struct{}{}
	}
}

// Changed lists the services of which [Directory.Of] may say something else than
// when Changed was called before, in no order.
func (d *Directory) Changed() []api.ID {
	for s := range d.moved {
		for _, c := range d.claims[s] {
			d.changed[c.of.meta.ID] = struct{}{}
		}
	}
	ids := slices.Collect(maps.Keys(d.changed))
	d.changed, d.moved = map[api.ID]struct{}{}, map[spot]struct{}{} // emptying one that was large costs its size
	return ids
}

// Of is the names of a service, nil if no generator selects it.
func (d *Directory) Of(id api.ID) *api.ServiceHostnames {
	s := d.services[id]
	if s == nil || len(s.claims) == 0 {
		return nil
	}
	out := &api.ServiceHostnames{Service: id}
	for _, c := range s.claims {
		by := api.GeneratorRef{CoreName: c.by.core}
		said := api.Condition{Type: "Generated", Status: "False"}
		switch {
		case c.err != nil:
			said.Reason, said.Message = "TemplateError", c.err.Error()
		case d.claims[c.at()][0].of != s:
			said.Reason, said.Message = "Collision", fmt.Sprintf("%s is the name of %s", c.host, d.claims[c.at()][0].of.meta.ID)
		default:
			said.Status, said.Reason, said.Message = "True", "Generated", c.host
			out.Addresses = append(out.Addresses, api.ServiceAddress{Hostname: c.host, Origin: "HostnameGenerator", Generator: &by})
		}
		out.Generators = append(out.Generators, api.HostnameGeneratorStatus{Generator: by, Conditions: []api.Condition{said}})
	}
	return out
}
