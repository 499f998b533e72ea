package policy_test

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"sort"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"pgregory.net/rapid"
)

// The reference: the contract's tables, read out loud, one proxy at a time,
// without indexes, tiers or JSON.

type spec struct {
	TargetRef *api.TargetRef // nil: Mesh
	To        []policy.To[conf]
	Rules     []policy.Inbound[conf]
	Default   conf
}

func (s *spec) top() api.TargetRef {
	if s.TargetRef == nil {
		return api.TargetRef{Kind: "Mesh"}
	}
	return *s.TargetRef
}

type conf struct {
	A          *int     `json:"a,omitempty"`
	B          *http    `json:"b"` // no omitempty: absent encodes as null
	List       []string `json:"list,omitempty"`
	AppendList []string `json:"appendList,omitempty"`
}

type http struct {
	C *string `json:"c,omitempty"`
	D *uint64 `json:"d,omitempty"`
}

func top(s *spec) *api.TargetRef           { return s.TargetRef }
func tos(s *spec) []policy.To[conf]        { return s.To }
func rules(s *spec) []policy.Inbound[conf] { return s.Rules }
func single(s *spec) conf                  { return s.Default }
func setOf(ps []*api.Object[spec]) set     { return policy.NewSet(ps, top, false) }
func ref(kind string, pairs ...string) api.TargetRef {
	t := api.TargetRef{Kind: kind}
	for i := 0; i < len(pairs); i += 2 {
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		t.Labels[pairs[i]] = pairs[i+1]
	}
	return t
}

type set = *policy.Set[spec]

// oneTo is one element of one policy, with what it is ordered by.
type oneTo struct {
	p     *api.Object[spec]
	to    *policy.To[conf] // nil where the to list plays no part
	index int
}

func place(v string, in ...string) int { return slices.Index(in, v) }

func naiveLess(a, b oneTo) bool {
	by := func(o oneTo) []int {
		key := []int{place(o.p.Spec.top().Kind, "Mesh", "Dataplane")}
		if o.p.Spec.top().Kind == "Dataplane" && o.p.Spec.top().SectionName != "" {
			key = append(key, 1)
		} else {
			key = append(key, 0)
		}
		key = append(key, place(o.p.Labels[api.LabelOrigin], "global", "", "zone"))
		key = append(key, place(cmp.Or(o.p.Labels[api.LabelPolicyRole], "system"), "system", "producer", "consumer", "workload-owner"))
		if o.to != nil {
			key = append(key, place(o.to.TargetRef.Kind, "Mesh", "MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshHTTPRoute"))
			if o.to.TargetRef.Kind == "MeshService" && o.to.TargetRef.SectionName != "" {
				key = append(key, 1)
			} else {
				key = append(key, 0)
			}
		}
		return key
	}
	if c := slices.Compare(by(a), by(b)); c != 0 {
		return c < 0
	}
	if a.p.Name != b.p.Name {
		return a.p.Name > b.p.Name
	}
	if a.p.ID != b.p.ID {
		return a.p.ID.Key() > b.p.ID.Key()
	}
	return a.index < b.index
}

func naiveMatches(p *api.Object[spec], proxy policy.Proxy) bool {
	role := p.Labels[api.LabelPolicyRole]
	if p.Labels[api.LabelEffect] == "shadow" {
		return false
	}
	if p.Labels[api.LabelOrigin] == "zone" && role != "producer" && p.Labels[api.LabelZone] != proxy.Zone {
		return false
	}
	if (role == "consumer" || role == "workload-owner") && p.Labels[api.LabelNamespace] != proxy.Namespace {
		return false
	}
	if t := p.Spec.top(); t.Kind == "Dataplane" {
		for k, v := range t.Labels {
			if proxy.Labels[k] != v {
				return false
			}
		}
		return t.SectionName == "" || slices.Contains(proxy.Sections, t.SectionName)
	}
	return true
}

func naiveSelect(ps []*api.Object[spec], proxy policy.Proxy) []*api.Object[spec] {
	var all []oneTo
	for _, p := range ps {
		if naiveMatches(p, proxy) {
			all = append(all, oneTo{p: p})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return naiveLess(all[i], all[j]) })
	var out []*api.Object[spec]
	for _, o := range all {
		out = append(out, o.p)
	}
	return out
}

func naiveMerge(confs []conf) conf {
	var out conf
	for _, c := range confs {
		if c.A != nil {
			out.A = c.A
		}
		if c.B != nil {
			b := http{}
			if out.B != nil {
				b = *out.B
			}
			if c.B.C != nil {
				b.C = c.B.C
			}
			if c.B.D != nil {
				b.D = c.B.D
			}
			out.B = &b
		}
		if len(c.List) > 0 {
			out.List = c.List
		}
		out.AppendList = append(slices.Clone(out.AppendList), c.AppendList...)
	}
	return out
}

// naiveRule is the rule for exactly this destination, if some entry selects it.
func naiveRule(ps []*api.Object[spec], proxy policy.Proxy, d policy.Destination, resolve policy.Resolve) (c conf, from []policy.Source, ok bool) {
	var all []oneTo
	for _, p := range naiveSelect(ps, proxy) {
		for i := range p.Spec.To {
			t := &p.Spec.To[i]
			relevant, exact := false, false
			if t.TargetRef.Kind == "Mesh" {
				relevant, exact = true, d == policy.Destination{}
			} else if slices.Contains(resolve(t.TargetRef.Kind, t.TargetRef.Labels), d.ID) {
				exact = t.TargetRef.SectionName == d.Section
				relevant = exact || t.TargetRef.SectionName == ""
			}
			if relevant {
				all = append(all, oneTo{p, t, i})
			}
			ok = ok || exact
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return naiveLess(all[i], all[j]) })
	var confs []conf
	for _, o := range all {
		confs = append(confs, o.to.Default)
		from = append(from, policy.Source{Policy: &o.p.Meta, Index: o.index})
	}
	return naiveMerge(confs), from, ok
}

// asJSON compares confs as users see them: an empty list is an absent one.
func asJSON(v any) string {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(body)
}

// Generators. Pools are small, so that things meet.

var (
	zones      = []string{"east", "west"}
	namespaces = []string{"", "shop", "bank"}
	names      = []string{"a", "b", "c"}
	keys       = []string{"app", "team", "version"}
	values     = []string{"1", "2"}
	sections   = []string{"http", "admin", "8080"}
)

func drawLabels(t *rapid.T, atLeast int) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom(keys), rapid.SampledFrom(values), atLeast, len(keys)).Draw(t, "labels")
}

func drawConf(t *rapid.T) conf {
	var c conf
	if rapid.Bool().Draw(t, "a") {
		c.A = new(rapid.IntRange(0, 3).Draw(t, "a="))
	}
	if rapid.Bool().Draw(t, "b") {
		c.B = &http{}
		if rapid.Bool().Draw(t, "c") {
			c.B.C = new(rapid.SampledFrom(values).Draw(t, "c="))
		}
		if rapid.Bool().Draw(t, "d") {
			c.B.D = new(rapid.Uint64().Draw(t, "d="))
		}
	}
	c.List = rapid.SliceOfN(rapid.SampledFrom(values), 0, 2).Draw(t, "list")
	c.AppendList = rapid.SliceOfN(rapid.SampledFrom(values), 0, 2).Draw(t, "appendList")
	return c
}

func drawMatches(t *rapid.T) []api.Match {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) api.Match {
		var m api.Match
		if typ := rapid.SampledFrom([]string{"", "Exact", "Prefix"}).Draw(t, "spiffe"); typ != "" {
			m.SpiffeID = &api.SpiffeIDMatch{Type: typ, Value: rapid.SampledFrom(spiffeIDs).Draw(t, "id")}
		}
		if rapid.Bool().Draw(t, "sni") {
			m.SNI = &api.SNIMatch{Type: "Exact", Value: rapid.SampledFrom(snis).Draw(t, "sni=")}
		}
		return m
	}), 0, 3).Draw(t, "matches")
}

var (
	spiffeIDs = []string{"spiffe://east/ns/shop", "spiffe://east/ns/shop/sa/web", "spiffe://west/ns/shop/sa/web"}
	snis      = []string{"web.shop", "api.shop"}
)

// drawMeta draws the head of a policy; at makes its ID unlike all others.
func drawMeta(t *rapid.T, kind string, used map[api.ID]bool) api.Meta {
	m := api.Meta{ID: api.ID{Kind: kind, Mesh: "default"}, Labels: map[string]string{}}
	add := func(key string, from ...string) string {
		v := rapid.SampledFrom(from).Draw(t, key)
		if v != "" {
			m.Labels[key] = v
		}
		return v
	}
	if add(api.LabelOrigin, "global", "", "zone") == "zone" {
		m.Zone = add(api.LabelZone, zones...)
	}
	m.Namespace = add(api.LabelNamespace, namespaces...)
	add(api.LabelPolicyRole, "", "system", "producer", "consumer", "workload-owner")
	add(api.LabelEffect, "", "", "", "shadow")
	for m.Name = rapid.SampledFrom(names).Draw(t, "name"); used[m.ID]; {
		m.Name += "x"
	}
	used[m.ID] = true
	return m
}

func drawTop(t *rapid.T) *api.TargetRef {
	switch rapid.IntRange(0, 3).Draw(t, "top") {
	case 0:
		return nil
	case 1:
		return &api.TargetRef{Kind: "Mesh"}
	}
	r := api.TargetRef{Kind: "Dataplane", Labels: drawLabels(t, 0)}
	if rapid.Bool().Draw(t, "section") {
		r.SectionName = rapid.SampledFrom(sections).Draw(t, "section=")
	}
	return &r
}

func drawPolicies(t *rapid.T) []*api.Object[spec] {
	used := map[api.ID]bool{}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *api.Object[spec] {
		p := &api.Object[spec]{Meta: drawMeta(t, "MeshTest", used)}
		p.Spec.TargetRef = drawTop(t)
		p.Spec.Default = drawConf(t)
		for range rapid.IntRange(0, 3).Draw(t, "to") {
			e := policy.To[conf]{TargetRef: api.TargetRef{Kind: rapid.SampledFrom(targetKinds).Draw(t, "kind")}, Default: drawConf(t)}
			if e.TargetRef.Kind != "Mesh" {
				e.TargetRef.Labels = drawLabels(t, 1)
				if e.TargetRef.Kind != "MeshHTTPRoute" && rapid.Bool().Draw(t, "port") {
					e.TargetRef.SectionName = rapid.SampledFrom(sections).Draw(t, "port=")
				}
			}
			p.Spec.To = append(p.Spec.To, e)
		}
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			p.Spec.Rules = append(p.Spec.Rules, policy.Inbound[conf]{Matches: drawMatches(t), Default: drawConf(t)})
		}
		return p
	}), 0, 12).Draw(t, "policies")
}

var targetKinds = []string{"Mesh", "MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshHTTPRoute"}

func drawProxy(t *rapid.T) policy.Proxy {
	return policy.Proxy{
		Mesh: "default", Zone: rapid.SampledFrom(zones).Draw(t, "zone"), Namespace: rapid.SampledFrom(namespaces).Draw(t, "namespace"),
		Labels: drawLabels(t, 0), Sections: rapid.SliceOfDistinct(rapid.SampledFrom(sections), rapid.ID).Draw(t, "sections"),
	}
}

// drawResolve draws a world of labelled resources.
func drawResolve(t *rapid.T) ([]api.ID, policy.Resolve) {
	type resource struct {
		id     api.ID
		labels map[string]string
	}
	var world []resource
	var ids []api.ID
	for _, kind := range targetKinds[1:] {
		for _, name := range names[:2] {
			r := resource{api.ID{Kind: kind, Mesh: "default", Name: name}, drawLabels(t, 1)}
			world, ids = append(world, r), append(ids, r.id)
		}
	}
	return ids, func(kind string, labels map[string]string) []api.ID {
		var out []api.ID
		for _, r := range world {
			if r.id.Kind == kind && subset(labels, r.labels) {
				out = append(out, r.id)
			}
		}
		return out
	}
}

func subset(want, have map[string]string) bool {
	both := map[string]string{}
	for k := range want {
		if v, ok := have[k]; ok {
			both[k] = v
		}
	}
	return reflect.DeepEqual(both, want)
}
