package inspect

import (
	"bytes"
	"encoding/json"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/policy"
)

// spec is what all policies have in common: the one model of what was written.
type spec struct {
	TargetRef *api.TargetRef              `json:"targetRef"`
	To        []toEntry                   `json:"to"`
	Rules     []policy.Inbound[rawObject] `json:"rules"`
	Default   rawObject                   `json:"default"`
}

// toEntry says something of a destination: a conf, or the rules of a route.
type toEntry struct {
	TargetRef api.TargetRef `json:"targetRef"`
	said
}

type said struct {
	Default rawObject   `json:"default"`
	Rules   []routeRule `json:"rules"`
}

type routeRule struct {
	Matches rawObject `json:"matches"`
	Default rawObject `json:"default"`
}

// rawObject is JSON that is passed on; absent is {} where it is shown.
type rawObject json.RawMessage

func (o rawObject) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("{}"), nil
	}
	return o, nil
}

func (o *rawObject) UnmarshalJSON(text []byte) error {
	*o = bytes.Clone(text)
	return nil
}

// isRoute reports whether the to entries of a kind are rules that are matched
// up by what they match.
func isRoute(info api.Facts) bool { return info.Name == "MeshHTTPRoute" || info.Name == "MeshTCPRoute" }

// read reads the spec of a policy of any kind.
func read(row api.Row) *api.Object[spec] {
	o := &api.Object[spec]{Meta: *row.Head()}
	body, err := json.Marshal(row.Body())
	if err == nil {
		err = json.Unmarshal(body, &o.Spec)
	}
	if err != nil {
		panic("inspect: " + row.Head().ID.String() + " does not encode: " + err.Error()) // specs are plain structs
	}
	return o
}

func top(s *spec) *api.TargetRef { return s.TargetRef }

// view is the policies of one kind in the mesh of a proxy.
type view struct {
	info api.Facts
	q    *question
	set  *policy.Set[spec]
}

func viewOf(q *question, k api.AnyKind) view {
	var all []*api.Object[spec]
	for row := range k.Rows(q.snap, q.dp.Mesh) {
		all = append(all, read(row))
	}
	return view{k.Info(), q, policy.NewSet(all, top, q.shadow)}
}

// views are the kinds of a shape of which the mesh has policies.
func views(q *question, shape func(api.Facts) bool) []view {
	var out []view
	for _, k := range policyKinds() {
		if !shape(k.Info()) {
			continue
		}
		if v := viewOf(q, k); v.set.Len() > 0 {
			out = append(out, v)
		}
	}
	return out
}

func isSingle(info api.Facts) bool   { return info.Policy.Single }
func isInbound(info api.Facts) bool  { return info.Policy.Rules }
func isOutbound(info api.Facts) bool { return info.Policy.To && !isRoute(info) }

// selected are the policies that the proxy gets, for one section or as a whole.
func (v view) selected(sections ...string) []policy.Selected[spec] {
	return v.set.Select(policy.Of(v.q.dp, v.set.Keys(), sections))
}

// single is the conf for the proxy as such.
func (v view) single() (policy.Rule[rawObject], bool) {
	return policy.Single(v.selected(), func(s *spec) rawObject { return s.Default })
}

// inbound is the rules of an inbound or listener, in the order of the proxy.
func (v view) inbound(section string) []policy.InboundRule[rawObject] {
	return policy.InboundRules(v.selected(section), section, func(s *spec) []policy.Inbound[rawObject] { return s.Rules })
}

// outcome is what a kind says of a destination: a rule, or routes.
type outcome struct {
	rule   policy.Rule[rawObject]
	routes []route
	from   []policy.Source // later over earlier
}

type route = policy.KeyedRule[rawObject, rawObject]

// outbound is what the kind says of all that the proxy calls.
func (v view) outbound() *policy.ToRules[outcome] {
	to := func(s *spec) []policy.To[said] {
		out := make([]policy.To[said], len(s.To))
		for i, e := range s.To {
			out[i] = policy.To[said]{TargetRef: e.TargetRef, Default: e.said}
		}
		return out
	}
	merge := mergeConfs
	if isRoute(v.info) {
		merge = mergeRoutes
	}
	return policy.NewToRules(v.selected(), to, resolver(v.q.snap, v.q.dp.Mesh), merge)
}

func mergeConfs(steps []policy.Step[said]) outcome {
	confs := make([]policy.Step[rawObject], len(steps))
	for i, s := range steps {
		confs[i] = policy.Step[rawObject]{Source: s.Source, Conf: s.Conf.Default}
	}
	rule := policy.NewRule(confs)
	return outcome{rule: rule, from: rule.Sources()}
}

func mergeRoutes(steps []policy.Step[said]) outcome {
	var out outcome
	lists := make([]policy.Step[[]policy.Keyed[rawObject, rawObject]], len(steps))
	for i, s := range steps {
		lists[i].Source = s.Source
		for _, r := range s.Conf.Rules {
			lists[i].Conf = append(lists[i].Conf, policy.Keyed[rawObject, rawObject]{Key: r.Matches, Conf: r.Default})
		}
		out.from = append(out.from, s.Source)
	}
	out.routes = policy.MergeKeyed(lists)
	return out
}

// resolver finds what the targetRef of a to entry selects.
func resolver(r db.Reader, mesh string) policy.Resolve {
	return func(kind string, labels map[string]string) []api.ID {
		k, ok := api.ByName(kind)
		if !ok {
			return nil
		}
		var ids []api.ID
		for row := range k.RowsLabelled(r, mesh, labels) {
			ids = append(ids, row.Head().ID)
		}
		return ids
	}
}

// sections are the names of what a proxy listens on.
func sections(dp *api.Object[api.Dataplane]) []string {
	var out []string
	for _, in := range dp.Spec.Networking.Inbound {
		out = append(out, in.Section())
	}
	for _, l := range dp.Spec.Networking.Listeners {
		out = append(out, l.Section())
	}
	return out
}
