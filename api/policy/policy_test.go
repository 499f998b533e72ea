package policy_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSelectEqualsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		want := naiveSelect(ps, proxy)
		var got []*api.Object[spec]
		for _, s := range setOf(ps).Select(proxy) {
			got = append(got, s.Policy)
			if s.Section != s.Policy.Spec.top().SectionName {
				t.Fatalf("%s selected for section %q", s.Policy.ID, s.Section)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", idsOf(got), idsOf(want))
		}
	})
}

func idsOf(ps []*api.Object[spec]) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.ID.Key())
	}
	return out
}

// What Keys leaves out cannot matter: proxies of one class get the same.
func TestClassesAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		s := setOf(ps)
		m := api.Meta{ID: api.ID{Mesh: "default", Name: "dp"}, Labels: map[string]string{api.LabelZone: proxy.Zone, api.LabelNamespace: proxy.Namespace}}
		for k, v := range proxy.Labels {
			m.Labels[k] = v
		}
		shuffled := slices.Clone(proxy.Sections)
		slices.Reverse(shuffled)
		class := policy.ProxyOf(&m, s.Keys(), proxy.Sections).Class()
		if other := policy.ProxyOf(&m, s.Keys(), shuffled).Class(); other != class {
			t.Fatalf("the order of sections makes two classes: %s, %s", class, other)
		}
		for key := range class.Proxy().Labels {
			if !slices.Contains(s.Keys(), key) {
				t.Fatalf("the class depends on label %s that no policy reads", key)
			}
		}
		if got, want := s.Select(class.Proxy()), s.Select(proxy); !slices.Equal(got, want) {
			t.Fatalf("class %s gets %v, the proxy %v", class, got, want)
		}
	})
}

func TestToRulesEqualTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		ids, resolve := drawResolve(t)
		got := policy.NewToRules(setOf(ps).Select(proxy), tos, resolve, policy.NewRule)

		var all []policy.Destination
		all = append(all, policy.Destination{})
		for _, id := range ids {
			for _, section := range append(sections, "") {
				all = append(all, policy.Destination{ID: id, Section: section})
			}
		}
		n := 0
		for _, d := range all {
			_, _, exists := naiveRule(ps, proxy, d, resolve)
			if exists {
				n++
			}
			// What a look-up has to find: the first level that has a rule.
			var want conf
			var from []policy.Source
			var at policy.Destination
			ok := false
			for _, at = range []policy.Destination{d, {ID: d.ID}, {}} {
				if want, from, ok = naiveRule(ps, proxy, at, resolve); ok {
					break
				}
			}
			rule, gotAt, gotOK := got.Lookup(d)
			if gotOK != ok || ok && gotAt != at {
				t.Fatalf("%v: found %v at %v, want %v at %v", d, gotOK, gotAt, ok, at)
			}
			if !ok {
				continue
			}
			if diff := cmp.Diff(asJSON(want), asJSON(rule.Conf)); diff != "" {
				t.Fatalf("%v: (-want +got)\n%s", d, diff)
			}
			if !slices.Equal(rule.Sources(), from) {
				t.Fatalf("%v: from %v, want %v", d, rule.Sources(), from)
			}
		}
		yielded := 0
		for d, rule := range got.All() {
			again, at, ok := got.Lookup(d)
			if !ok || at != d || !reflect.DeepEqual(again, rule) {
				t.Fatalf("All yields %v, Lookup finds %v", d, at)
			}
			yielded++
		}
		if yielded != n {
			t.Fatalf("All yields %d rules, want %d", yielded, n)
		}
	})
}

func TestInboundRulesEqualTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		section := rapid.SampledFrom(sections).Draw(t, "inbound")
		got := policy.InboundRules(setOf(ps).Select(proxy), section, rules)

		type rule struct {
			from  policy.Source
			match api.Match
			conf  string
		}
		var want [6][]rule // by how exact the match is
		var catchAll []conf
		for _, p := range naiveSelect(ps, proxy) {
			if s := p.Spec.top().SectionName; s != "" && s != section {
				continue
			}
			for i, r := range p.Spec.Rules {
				matches := r.Matches
				if len(matches) == 0 {
					matches = []api.Match{{}}
				}
				for _, m := range matches {
					class := map[string]int{"Exact": 0, "Prefix": 2, "": 4}[typeOf(m)]
					if m.SNI == nil {
						class++
					}
					if class == 5 {
						catchAll = append(catchAll, r.Default)
					}
					want[class] = append(want[class], rule{policy.Source{Policy: &p.Meta, Index: i}, m, asJSON(r.Default)})
				}
			}
		}
		var have []rule
		for _, r := range got {
			have = append(have, rule{r.Source, r.Match, asJSON(r.Conf)})
		}
		if flat := slices.Concat(want[:]...); !reflect.DeepEqual(have, flat) {
			t.Fatalf("got %v, want %v", have, flat)
		}
		all, ok := policy.CatchAll(got)
		if ok != (len(catchAll) > 0) || asJSON(all.Conf) != asJSON(naiveMerge(catchAll)) {
			t.Fatalf("catch-all %v %s, want %s", ok, asJSON(all.Conf), asJSON(naiveMerge(catchAll)))
		}
	})
}

func typeOf(m api.Match) string {
	if m.SpiffeID == nil {
		return ""
	}
	return string(m.SpiffeID.Type)
}

func TestSingleEqualsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		var confs []conf
		for _, p := range naiveSelect(ps, proxy) {
			confs = append(confs, p.Spec.Default)
		}
		rule, ok := policy.Single(setOf(ps).Select(proxy), single)
		if ok != (len(confs) > 0) || asJSON(rule.Conf) != asJSON(naiveMerge(confs)) {
			t.Fatalf("got %v %s, want %s", ok, asJSON(rule.Conf), asJSON(naiveMerge(confs)))
		}
	})
}

// Rows arrive in any order, on several instances in different ones.
func TestArrivalOrderIsNeverSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, proxy := drawPolicies(t), drawProxy(t)
		_, resolve := drawResolve(t)
		other := slices.Clone(ps)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		backwards := func(kind string, labels map[string]string) []api.ID {
			ids := resolve(kind, labels)
			slices.Reverse(ids)
			return ids
		}
		s, o := setOf(ps), setOf(other)
		if !s.Equal(o) || !slices.Equal(s.Keys(), o.Keys()) {
			t.Fatal("two orders of arrival make two sets")
		}
		mine, theirs := s.Select(proxy), o.Select(proxy)
		if !slices.Equal(mine, theirs) {
			t.Fatalf("%v is not %v", mine, theirs)
		}
		a, b := policy.NewToRules(mine, tos, resolve, policy.NewRule), policy.NewToRules(theirs, tos, backwards, policy.NewRule)
		if !a.Equal(b) {
			t.Fatal("two orders of arrival make two ToRules")
		}
		type found struct {
			d policy.Destination
			r policy.Rule[conf]
		}
		var as, bs []found
		for d, r := range a.All() {
			as = append(as, found{d, r})
		}
		for d, r := range b.All() {
			bs = append(bs, found{d, r})
		}
		if !reflect.DeepEqual(as, bs) {
			t.Fatalf("%v is not %v", as, bs)
		}
	})
}

func TestSetEqualSeesEveryRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.Custom(drawPolicies).Filter(func(ps []*api.Object[spec]) bool { return setOf(ps).Len() > 0 }).Draw(t, "ps")
		kept := slices.IndexFunc(ps, func(p *api.Object[spec]) bool { return p.Label(api.LabelEffect) != "shadow" })
		changed := slices.Clone(ps)
		row := *ps[kept]
		changed[kept] = &row
		if setOf(ps).Equal(setOf(changed)) || setOf(ps).Equal(setOf(slices.Delete(slices.Clone(ps), kept, kept+1))) {
			t.Fatal("a replaced or a missing row is not seen")
		}
	})
}

var nothing api.TargetRef

// named makes a policy; options are label pairs.
func named(name string, top api.TargetRef, labels ...string) *api.Object[spec] {
	m := api.Meta{ID: api.ID{Kind: "MeshTest", Mesh: "default", Name: name}, Labels: ref("", labels...).Labels}
	p := &api.Object[spec]{Meta: m}
	if top.Kind != "" {
		p.Spec.TargetRef = &top
	}
	return p
}

func section(t api.TargetRef, name string) api.TargetRef {
	t.SectionName = name
	return t
}

// The ladder: each policy outweighs all above it, whatever its name.
func TestOrder(t *testing.T) {
	mesh, dp := ref("Mesh"), ref("Dataplane", "app", "web")
	zone := []string{api.LabelOrigin, "zone", api.LabelZone, "east"}
	role := func(r string) []string {
		return append(slices.Clone(zone), api.LabelPolicyRole, r, api.LabelNamespace, "shop")
	}
	ladder := []*api.Object[spec]{
		named("m1", mesh, api.LabelOrigin, "global"),
		named("m0", nothing, api.LabelOrigin, "global"), // the smaller name wins
		named("m2", mesh),
		named("m3", mesh, zone...),
		named("m4", mesh, role("producer")...),
		named("m5", mesh, role("consumer")...),
		named("m6", mesh, role("workload-owner")...),
		named("m8", ref("Dataplane"), api.LabelOrigin, "global"),
		named("m7", dp, api.LabelOrigin, "global"), // the number of labels says nothing
		named("m9", dp, role("workload-owner")...),
		named("z1", section(ref("Dataplane"), "http"), api.LabelOrigin, "global"),
		named("z2", section(dp, "http"), zone...),
	}
	proxy := policy.Proxy{Mesh: "default", Zone: "east", Namespace: "shop", Labels: map[string]string{"app": "web"}, Sections: []string{"http"}}
	backwards := slices.Clone(ladder)
	slices.Reverse(backwards)
	var got []*api.Object[spec]
	for _, s := range setOf(backwards).Select(proxy) {
		got = append(got, s.Policy)
	}
	if diff := cmp.Diff(idsOf(ladder), idsOf(got)); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func TestMatches(t *testing.T) {
	proxy := policy.Proxy{Mesh: "default", Zone: "east", Namespace: "shop", Labels: map[string]string{"app": "web", api.LabelDisplayName: "web-1"}, Sections: []string{"http", "8080"}}
	ns := func(role, namespace string) []string {
		return []string{api.LabelPolicyRole, role, api.LabelNamespace, namespace}
	}
	for _, c := range []struct {
		name string
		p    *api.Object[spec]
		want bool
	}{
		{"no targetRef", named("p", nothing), true},
		{"mesh", named("p", ref("Mesh")), true},
		{"every proxy", named("p", ref("Dataplane")), true},
		{"labels", named("p", ref("Dataplane", "app", "web")), true},
		{"display name", named("p", ref("Dataplane", api.LabelDisplayName, "web-1")), true},
		{"other value", named("p", ref("Dataplane", "app", "api")), false},
		{"one label more", named("p", ref("Dataplane", "app", "web", "v", "1")), false},
		{"section", named("p", section(ref("Dataplane"), "http")), true},
		{"section by port", named("p", section(ref("Dataplane"), "8080")), true},
		{"no such section", named("p", section(ref("Dataplane"), "grpc")), false},
		{"own zone", named("p", ref("Mesh"), api.LabelOrigin, "zone", api.LabelZone, "east"), true},
		{"other zone", named("p", ref("Mesh"), api.LabelOrigin, "zone", api.LabelZone, "west"), false},
		{"other zone's producer", named("p", ref("Mesh"), api.LabelOrigin, "zone", api.LabelZone, "west", api.LabelPolicyRole, "producer"), true},
		{"global with a zone label", named("p", ref("Mesh"), api.LabelOrigin, "global", api.LabelZone, "west"), true},
		{"own namespace's consumer", named("p", ref("Mesh"), ns("consumer", "shop")...), true},
		{"other namespace's consumer", named("p", ref("Mesh"), ns("consumer", "bank")...), false},
		{"other namespace's owner", named("p", ref("Mesh"), ns("workload-owner", "bank")...), false},
		{"other namespace's producer", named("p", ref("Mesh"), ns("producer", "bank")...), true},
		{"system policy in a namespace", named("p", ref("Mesh"), ns("system", "kuma-system")...), true},
		{"shadow", named("p", ref("Mesh"), api.LabelEffect, "shadow"), false},
		{"a form of old", named("p", ref("MeshSubset", "app", "web")), false},
	} {
		if got := len(setOf([]*api.Object[spec]{c.p}).Select(proxy)) == 1; got != c.want {
			t.Errorf("%s: selected %v, want %v", c.name, got, c.want)
		}
	}
	shadow := []*api.Object[spec]{named("p", ref("Mesh"), api.LabelEffect, "shadow")}
	if len(policy.NewSet(shadow, top, true).Select(proxy)) != 1 {
		t.Error("asked for shadow policies, got none")
	}
	foreign := named("p", ref("Mesh"))
	foreign.Mesh = "other"
	if len(setOf([]*api.Object[spec]{foreign}).Select(proxy)) != 0 {
		t.Error("a policy of another mesh is selected")
	}
}

func TestLookupOrder(t *testing.T) {
	service := api.ID{Kind: "MeshService", Mesh: "default", Name: "api"}
	route := api.ID{Kind: "MeshHTTPRoute", Mesh: "default", Name: "split"}
	resolve := func(kind string, labels map[string]string) []api.ID {
		for _, id := range []api.ID{service, route} {
			if id.Kind == kind && labels[api.LabelDisplayName] == id.Name {
				return []api.ID{id}
			}
		}
		return nil
	}
	toService, toRoute := ref("MeshService", api.LabelDisplayName, "api"), ref("MeshHTTPRoute", api.LabelDisplayName, "split")
	p := named("p", ref("Mesh"))
	p.Spec.To = []policy.To[conf]{
		{TargetRef: toRoute, Default: conf{AppendList: []string{"route"}}},
		{TargetRef: section(toService, "http"), Default: conf{AppendList: []string{"port"}}},
		{TargetRef: ref("MeshService", api.LabelDisplayName, "gone"), Default: conf{AppendList: []string{"gone"}}},
		{TargetRef: toService, Default: conf{AppendList: []string{"service"}}},
		{TargetRef: ref("Mesh"), Default: conf{AppendList: []string{"mesh"}}},
	}
	rules := policy.NewToRules(setOf([]*api.Object[spec]{p}).Select(policy.Proxy{Mesh: "default"}), tos, resolve, policy.NewRule)
	port, grpc := policy.Destination{ID: service, Section: "http"}, policy.Destination{ID: service, Section: "grpc"}
	for _, c := range []struct {
		ask  []policy.Destination
		at   policy.Destination
		want string
	}{
		{[]policy.Destination{port}, port, "mesh service port"},
		{[]policy.Destination{grpc}, policy.Destination{ID: service}, "mesh service"},
		{[]policy.Destination{{ID: route, Section: "rule_0"}, port}, policy.Destination{ID: route}, "mesh route"},
		{[]policy.Destination{{ID: api.ID{Kind: "MeshHTTPRoute", Name: "other"}, Section: "rule_0"}, port}, port, "mesh service port"},
		{[]policy.Destination{{ID: api.ID{Kind: "MeshService", Name: "web"}, Section: "http"}}, policy.Destination{}, "mesh"},
		{nil, policy.Destination{}, "mesh"},
	} {
		rule, at, ok := rules.Lookup(c.ask...)
		if got := strings.Join(rule.Conf.AppendList, " "); !ok || at != c.at || got != c.want {
			t.Errorf("%v: %q at %v, want %q at %v", c.ask, got, at, c.want, c.at)
		}
	}
}

// Merging costs what is asked for, once.
func TestMergeIsLazyAndOnce(t *testing.T) {
	services := make([]api.ID, 100)
	for i := range services {
		services[i] = api.ID{Kind: "MeshService", Mesh: "default", Name: fmt.Sprint("s", i)}
	}
	var ps []*api.Object[spec]
	for i := range 10 {
		p := named(fmt.Sprint("p", i), ref("Mesh"))
		p.Spec.To = []policy.To[conf]{{TargetRef: ref("Mesh")}, {TargetRef: ref("MeshService", "app", "shop")}}
		ps = append(ps, p)
	}
	merges := 0
	rules := policy.NewToRules(setOf(ps).Select(policy.Proxy{Mesh: "default"}), tos,
		func(string, map[string]string) []api.ID { return services },
		func(steps []policy.Step[conf]) policy.Rule[conf] { merges++; return policy.NewRule(steps) })
	if merges != 0 {
		t.Fatalf("%d merges before anything is asked", merges)
	}
	for range 3 {
		rules.Lookup(policy.Destination{ID: services[0], Section: "http"})
		rules.Lookup(policy.Destination{ID: services[1], Section: "http"})
		rules.Lookup()
	}
	if merges != 3 {
		t.Fatalf("%d merges for three results", merges)
	}
}

// Queries of one round look the same rule up at once.
func TestLookupFromManyGoroutines(t *testing.T) {
	p, q := named("p", ref("Mesh")), named("q", ref("Mesh"))
	p.Spec.To = []policy.To[conf]{{TargetRef: ref("Mesh"), Default: conf{A: new(1)}}}
	q.Spec.To = p.Spec.To
	rules := policy.NewToRules(setOf([]*api.Object[spec]{p, q}).Select(policy.Proxy{Mesh: "default"}), tos, nil, policy.NewRule)
	got := make(chan policy.Rule[conf])
	for range 8 {
		go func() {
			r, _, _ := rules.Lookup()
			got <- r
		}()
	}
	first := <-got
	for range 7 {
		if r := <-got; r.Conf.A != first.Conf.A {
			t.Error("two goroutines got two values")
		}
	}
}

// A thousand policies for one workload each, a proxy that meets one of them.
func BenchmarkSelect(b *testing.B) {
	var ps []*api.Object[spec]
	for i := range 1000 {
		ps = append(ps, named(fmt.Sprint("p", i), ref("Dataplane", "app", fmt.Sprint(i), "team", "shop")))
	}
	s := setOf(ps)
	proxy := policy.Proxy{Mesh: "default", Labels: map[string]string{"app": "500", "team": "shop"}}
	b.ReportAllocs()
	for b.Loop() {
		if len(s.Select(proxy)) != 1 {
			b.Fatal("want one")
		}
	}
}

func BenchmarkNewSet(b *testing.B) {
	var ps []*api.Object[spec]
	for i := range 1000 {
		ps = append(ps, named(fmt.Sprint("p", i), ref("Dataplane", "app", fmt.Sprint(i), "team", "shop")))
	}
	b.ReportAllocs()
	for b.Loop() {
		setOf(ps)
	}
}

// A thousand mesh-wide policies: the worst that a class can meet.
func BenchmarkToRules(b *testing.B) {
	var ps []*api.Object[spec]
	for i := range 1000 {
		p := named(fmt.Sprint("p", i), ref("Mesh"))
		p.Spec.To = []policy.To[conf]{{TargetRef: ref("MeshService", "app", fmt.Sprint(i)), Default: conf{A: new(i)}}}
		ps = append(ps, p)
	}
	s := setOf(ps)
	ids := map[string][]api.ID{}
	for i := range 1000 {
		ids[fmt.Sprint(i)] = []api.ID{{Kind: "MeshService", Mesh: "default", Name: fmt.Sprint(i)}}
	}
	resolve := func(_ string, labels map[string]string) []api.ID { return ids[labels["app"]] }
	b.ReportAllocs()
	for b.Loop() {
		policy.NewToRules(s.Select(policy.Proxy{Mesh: "default"}), tos, resolve, policy.NewRule)
	}
}
