package hostname_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/hostname"
)

var east = api.Site{Zone: "east", Env: "universal"}

func at(second int) time.Time { return time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC) }

// service is one of the mesh shop, of the zone east.
func service(k api.AnyKind, name string, age int, labels map[string]string) *api.Meta {
	m := api.Meta{ID: api.LocalID(k, "shop", "", name, east), Created: at(age)}
	m.Labels = api.ComputeLabels(k, m.ID, labels, east)
	m.Core = api.CoreName(k, &m)
	return &m
}

// generator is of the zone, or of global.
func generator(name string, age int, own bool, sel api.HostnameSelector, template string) *api.Object[api.HostnameGenerator] {
	site := api.Site{}
	m := api.Meta{Source: api.Global, Created: at(age)}
	if own {
		site, m.Source = east, ""
	}
	m.ID = api.LocalID(api.HostnameGenerators, "", "", name, site)
	m.Labels = api.ComputeLabels(api.HostnameGenerators, m.ID, nil, site)
	m.Core = name
	return api.HostnameGenerators.New(m, api.HostnameGenerator{Selector: sel, Template: template})
}

func services(labels map[string]string) api.HostnameSelector {
	return api.HostnameSelector{MeshService: &api.LabelSelector{MatchLabels: labels}}
}

// show is the names of a service in short: what each generator made of it.
func show(h *api.ServiceHostnames) string {
	if h == nil {
		return "none"
	}
	var out []string
	for _, a := range h.Addresses {
		out = append(out, a.Hostname+" by "+a.Generator.CoreName)
	}
	for _, g := range h.Generators {
		c := g.Conditions[0]
		out = append(out, fmt.Sprintf("%s: %s %s (%s)", g.Generator.CoreName, c.Status, c.Reason, c.Message))
	}
	return strings.Join(out, "; ")
}

func TestDirectory(t *testing.T) {
	d := hostname.New("east")
	changed := func() string {
		var out []string
		for _, id := range d.Changed() {
			out = append(out, id.Name)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	check := func(when string, m *api.Meta, want string) {
		t.Helper()
		if got := show(d.Of(m.ID)); got != want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", when, m.Name, got, want)
		}
	}
	cart := service(api.MeshServices, "cart", 5, map[string]string{"app": "x"})
	mail := service(api.MeshExternalServices, "mail", 3, nil)
	many := service(api.MeshMultiZoneServices, "many", 1, nil)
	for _, m := range []*api.Meta{cart, mail, many} {
		d.PutService(m)
	}
	check("no generator", cart, "none")
	changed()
	d.PutGenerator(generator("plain", 9, false, services(nil), "{{ .DisplayName }}.{{ .Zone }}.mesh.local"))
	check("selected", cart, "cart.east.mesh.local by plain; plain: True Generated (cart.east.mesh.local)")
	check("of another kind", mail, "none")
	if got := changed(); got != "cart" {
		t.Errorf("a generator changed %s", got)
	}

	// All that select a service name it; those of the zone are asked first.
	d.PutGenerator(generator("own", 10, true, services(map[string]string{"app": "x"}), "x.own.local"))
	check("two generators", cart, "x.own.local by own; cart.east.mesh.local by plain; own: True Generated (x.own.local); plain: True Generated (cart.east.mesh.local)")
	changed()

	// Who is older keeps a name, whoever came first; who wants it is told.
	older, younger := service(api.MeshServices, "older", 4, map[string]string{"app": "x"}), service(api.MeshServices, "younger", 6, map[string]string{"app": "x"})
	d.PutService(younger)
	check("younger", younger, "younger.east.mesh.local by plain; own: False Collision (x.own.local is the name of MeshService shop/east//cart); plain: True Generated (younger.east.mesh.local)")
	if got := changed(); got != "younger" {
		t.Errorf("a loser changed %s", got)
	}
	d.PutService(older)
	if got := changed(); got != "cart older younger" {
		t.Errorf("a new owner changed %s", got)
	}
	check("an older one came", cart, "cart.east.mesh.local by plain; own: False Collision (x.own.local is the name of MeshService shop/east//older); plain: True Generated (cart.east.mesh.local)")
	d.RemoveService(older.ID)
	if got := changed(); got != "cart older younger" {
		t.Errorf("an owner that went changed %s", got)
	}
	check("it went", older, "none")
	check("it went", cart, "x.own.local by own; cart.east.mesh.local by plain; own: True Generated (x.own.local); plain: True Generated (cart.east.mesh.local)")

	// What decides first is the generator, of whatever kind.
	d.PutGenerator(generator("external", 1, false, api.HostnameSelector{MeshExternalService: &api.LabelSelector{}}, "x.own.local"))
	check("a generator of the zone goes first", mail, "external: False Collision (x.own.local is the name of MeshService shop/east//cart)")
	d.PutGenerator(generator("own-2", 2, true, api.HostnameSelector{MeshMultiZoneService: &api.LabelSelector{}}, "x.own.local"))
	check("of the zone's the older", many, "x.own.local by own-2; own-2: True Generated (x.own.local)")
	check("of the zone's the older", cart, "cart.east.mesh.local by plain; own: False Collision (x.own.local is the name of MeshMultiZoneService shop///many); plain: True Generated (cart.east.mesh.local)")

	// Another mesh is another world.
	other := *cart
	other.ID.Mesh = "else"
	d.PutService(&other)
	check("another mesh", &other, "x.own.local by own; cart.east.mesh.local by plain; own: True Generated (x.own.local); plain: True Generated (cart.east.mesh.local)")

	// Names of instances are made of the labels that each has.
	headless := generator("headless", 1, true, services(map[string]string{"headless": "true"}), `{{ label "pod" }}.{{ .DisplayName }}.mesh.local`)
	d.PutGenerator(headless)
	d.PutService(service(api.MeshServices, "db", 1, map[string]string{"headless": "true", "pod": "db-0"}))
	check("per instance", service(api.MeshServices, "db", 1, nil), "db-0.db.mesh.local by headless; db.east.mesh.local by plain; headless: True Generated (db-0.db.mesh.local); plain: True Generated (db.east.mesh.local)")
	d.PutService(service(api.MeshServices, "db", 1, map[string]string{"headless": "true"}))
	got := show(d.Of(service(api.MeshServices, "db", 1, nil).ID))
	if !strings.HasPrefix(got, `db.east.mesh.local by plain; headless: False TemplateError (template`) || !strings.Contains(got, `there is no label "pod"`) {
		t.Errorf("a label is missing: %s", got)
	}
	changed()

	// What says the same changes nothing.
	d.PutGenerator(headless)
	again := *cart
	again.Modified, again.Revision = at(100), 7
	d.PutService(&again)
	d.RemoveService(api.ID{Name: "never"})
	d.RemoveGenerator(api.ID{Name: "never"})
	if got := changed(); got != "" {
		t.Errorf("nothing changed %s", got)
	}
	for _, name := range []string{"own", "headless"} {
		d.RemoveGenerator(api.LocalID(api.HostnameGenerators, "", "", name, east))
	}
	check("without the generator", younger, "younger.east.mesh.local by plain; plain: True Generated (younger.east.mesh.local)")
}

// naive asks all generators for all services in order: what a directory must say.
func naive(generators []*api.Object[api.HostnameGenerator], list []*api.Meta) map[api.ID]string {
	slices.SortFunc(generators, func(a, b *api.Object[api.HostnameGenerator]) int {
		own := func(g *api.Object[api.HostnameGenerator]) int {
			if g.Label(api.LabelOrigin) == api.OriginZone {
				return 0
			}
			return 1
		}
		return cmp.Or(own(a)-own(b), a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(list, func(a, b *api.Meta) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	owner, out := map[string]*api.Meta{}, map[api.ID]string{}
	for _, g := range generators {
		for _, m := range list {
			sel := g.Spec.Selector.For(m.Kind)
			if sel == nil || !api.HasLabels(m.Labels, sel.MatchLabels) {
				continue
			}
			host := strings.ReplaceAll(g.Spec.Template, "{{ .DisplayName }}", m.Name)
			if first := owner[m.Mesh+" "+host]; first != nil && first != m {
				out[m.ID] += fmt.Sprintf("%s: taken by %s; ", g.Core, first.ID)
				continue
			}
			owner[m.Mesh+" "+host] = m
			out[m.ID] += fmt.Sprintf("%s: %s; ", g.Core, host)
		}
	}
	return out
}

// After any changes, in any order, a directory says what asking everything anew
// would, and who is not named as changed is unchanged.
func TestRandomDirectory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := hostname.New("east")
		generators, list, known := map[api.ID]*api.Object[api.HostnameGenerator]{}, map[api.ID]*api.Meta{}, map[api.ID]string{}
		labels := rapid.SampledFrom([]map[string]string{nil, {"app": "a"}, {"app": "b"}})
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		kind := rapid.SampledFrom(hostname.Kinds)
		t.Repeat(map[string]func(*rapid.T){
			"service": func(t *rapid.T) {
				m := service(kind.Draw(t, "kind"), name.Draw(t, "name"), rapid.IntRange(0, 3).Draw(t, "age"), labels.Draw(t, "labels"))
				list[m.ID] = m
				d.PutService(m)
			},
			"service goes": func(t *rapid.T) {
				id := service(kind.Draw(t, "kind"), name.Draw(t, "name"), 0, nil).ID
				delete(list, id)
				d.RemoveService(id)
			},
			"generator": func(t *rapid.T) {
				sel, of := api.HostnameSelector{}, &api.LabelSelector{MatchLabels: labels.Draw(t, "selector")}
				switch kind.Draw(t, "kind").Info().Name {
				case api.RefService:
					sel.MeshService = of
				case api.RefExternalService:
					sel.MeshExternalService = of
				default:
					sel.MeshMultiZoneService = of
				}
				g := generator(name.Draw(t, "name"), rapid.IntRange(0, 2).Draw(t, "age"), rapid.Bool().Draw(t, "own"), sel,
					rapid.SampledFrom([]string{"{{ .DisplayName }}.local", "x.local", "{{ .DisplayName }}.else"}).Draw(t, "template"))
				generators[g.ID] = g
				d.PutGenerator(g)
			},
			"generator goes": func(t *rapid.T) {
				id := generator(name.Draw(t, "name"), 0, rapid.Bool().Draw(t, "own"), services(nil), "x").ID
				delete(generators, id)
				d.RemoveGenerator(id)
			},
			"": func(t *rapid.T) {
				want, changed := naive(slices.Collect(maps.Values(generators)), slices.Collect(maps.Values(list))), d.Changed()
				for _, k := range hostname.Kinds {
					for _, n := range []string{"a", "b", "c"} {
						id := service(k, n, 0, nil).ID
						got := ""
						if h := d.Of(id); h != nil {
							addresses := h.Addresses
							for _, g := range h.Generators {
								if c := g.Conditions[0]; c.Status == "True" {
									got += fmt.Sprintf("%s: %s; ", g.Generator.CoreName, addresses[0].Hostname)
									addresses = addresses[1:]
								} else {
									_, owner, _ := strings.Cut(c.Message, "is the name of ")
									got += fmt.Sprintf("%s: taken by %s; ", g.Generator.CoreName, owner)
								}
							}
						}
						if got != want[id] {
							t.Fatalf("%s\ngot  %s\nwant %s", id, got, want[id])
						}
						if got != known[id] && !slices.Contains(changed, id) {
							t.Fatalf("%s changed from %q to %q, which was not told", id, known[id], got)
						}
						known[id] = got
					}
				}
			},
		})
	})
}

func BenchmarkDirectory(b *testing.B) {
	for _, n := range []int{100, 10000} {
		d := hostname.New("east")
		for _, row := range api.DefaultHostnameGenerators(east) {
			d.PutGenerator(row.(*api.Object[api.HostnameGenerator]))
		}
		for i := range n {
			d.PutService(service(api.MeshServices, fmt.Sprint("s", i), i, nil))
		}
		d.Changed()
		b.Run(fmt.Sprintf("one service among %d comes and goes", n), func(b *testing.B) {
			m := service(api.MeshServices, "one", 0, nil)
			for b.Loop() {
				d.PutService(m)
				d.RemoveService(m.ID)
				d.Changed()
			}
		})
	}
}
