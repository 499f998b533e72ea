package inspect

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
)

type rulesBody struct {
	Resource    meta         `json:"resource"`
	HTTPMatches []hashedRule `json:"httpMatches"`
	Rules       []kindRules  `json:"rules"`
}

// kindRules is what the policies of one kind say of a proxy.
type kindRules struct {
	Type            string         `json:"type"`
	ToResourceRules []resourceRule `json:"toResourceRules"`
	InboundRules    []inboundRules `json:"inboundRules"`
	ProxyRule       *proxyRule     `json:"proxyRule,omitempty"`
	Warnings        []string       `json:"warnings"`
}

type resourceRule struct {
	Resource meta     `json:"resourceMeta"`
	Section  string   `json:"resourceSectionName,omitempty"`
	Conf     []any    `json:"conf"`
	Origin   []origin `json:"origin"`
}

type origin struct {
	Resource meta `json:"resourceMeta"`
	Index    int  `json:"ruleIndex"`
}

type inboundRules struct {
	Inbound inboundName   `json:"inbound"`
	Rules   []inboundRule `json:"rules"`
}

type inboundName struct {
	Name string            `json:"name,omitempty"`
	Port uint32            `json:"port"`
	Tags map[string]string `json:"tags"`
}

type inboundRule struct {
	Conf   []any      `json:"conf"`
	Match  *api.Match `json:"match,omitempty"`
	Origin []origin   `json:"origin"`
}

type proxyRule struct {
	Conf   any    `json:"conf"`
	Origin []meta `json:"origin"`
}

// routeConf is the conf of a route: its rules, the most important first.
type routeConf struct {
	Rules []routeRuleBody `json:"rules"`
}

type routeRuleBody struct {
	Matches any `json:"matches,omitempty"`
	Default any `json:"default"`
}

// matchesOf is what requests that take a route match; nil: all do.
func matchesOf(r route) any {
	if len(r.Key) == 0 {
		return nil
	}
	return r.Key
}

// rules is everything that policies say of the proxy, by kind.
func rules(q *question) (rulesBody, error) {
	body := rulesBody{Resource: metaOf(&q.dp.Meta), HTTPMatches: []hashedRule{}, Rules: []kindRules{}}
	hashes := map[string]rawObject{}
	for _, v := range views(q, func(api.Facts) bool { return true }) {
		one := kindRules{Type: v.info.Name, ToResourceRules: []resourceRule{}, InboundRules: []inboundRules{}, Warnings: []string{}}
		if v.info.Policy.To {
			for at, out := range v.outbound().All() {
				one.ToResourceRules = append(one.ToResourceRules, resourceRule{
					Resource: q.destination(at), Section: at.Section, Conf: []any{out.conf()}, Origin: origins(out.from),
				})
				for _, r := range out.routes {
					if v.info.Name == api.RefHTTPRoute {
						hashes[hashOf(r.Key)] = r.Key
					}
				}
			}
			one.Warnings = v.idle()
		}
		if v.info.Policy.Rules {
			one.InboundRules = v.inboundRules()
			for _, p := range v.selected(sections(q.dp)...) {
				shared, err := sharedCallers(q.snap, p.Policy.ID)
				if err != nil {
					return rulesBody{}, err
				}
				for _, text := range shared {
					one.Warnings = append(one.Warnings, kri(p.Policy.ID, "")+": "+text)
				}
			}
		}
		if v.info.Policy.Single {
			if rule, ok := v.single(); ok {
				one.ProxyRule = &proxyRule{Conf: rule.Conf, Origin: policies(rule.Sources(), metaOf)}
			}
		}
		if len(one.ToResourceRules)+len(one.InboundRules)+len(one.Warnings) > 0 || one.ProxyRule != nil {
			body.Rules = append(body.Rules, one)
		}
	}
	for hash, match := range hashes {
		body.HTTPMatches = append(body.HTTPMatches, hashedRule{hash, match})
	}
	slices.SortFunc(body.HTTPMatches, func(a, b hashedRule) int { return cmp.Compare(a.Hash, b.Hash) })
	return body, nil
}

// idle names the entries that speak of nothing: it may be what their author
// looks for.
func (v view) idle() []string {
	out := []string{}
	find := resolver(v.q.snap, v.q.dp.Mesh)
	for _, p := range v.selected() {
		for i, to := range p.Policy.Spec.To {
			if ref := to.TargetRef; ref.Kind != api.RefMesh && len(find(ref.Kind, ref.Labels)) == 0 {
				out = append(out, fmt.Sprintf("%s: spec.to[%d].targetRef selects no %s", kri(p.Policy.ID, ""), i, ref.Kind))
			}
		}
	}
	return out
}

func (v view) inboundRules() []inboundRules {
	out := []inboundRules{}
	add := func(name, section string, port uint32) {
		one := inboundRules{Inbound: inboundName{name, port, map[string]string{}}}
		for _, rule := range v.inbound(section) {
			body := inboundRule{Conf: []any{rule.Conf}, Origin: origins([]policy.Source{rule.Source})}
			if rule.Match != (api.Match{}) {
				body.Match = &rule.Match
			}
			one.Rules = append(one.Rules, body)
		}
		if len(one.Rules) > 0 {
			out = append(out, one)
		}
	}
	for _, in := range v.q.dp.Spec.Networking.Inbound {
		add(in.Name, in.Section(), in.Port)
	}
	for _, l := range v.q.dp.Spec.Networking.Listeners {
		add(l.Name, l.Section(), l.Port)
	}
	return out
}

// destination names what a rule is about; the zero destination is the mesh.
func (q *question) destination(d policy.Destination) meta {
	if d == (policy.Destination{}) {
		mesh, ok := api.Meshes.Named(q.snap, "", q.dp.Mesh)
		if !ok {
			return meta{Type: api.RefMesh, Name: q.dp.Mesh, Labels: map[string]string{}}
		}
		return metaOf(&mesh.Meta)
	}
	k, _ := api.ByName(d.ID.Kind) // it was resolved
	row, _ := k.Row(q.snap, d.ID)
	return metaOf(row.Head())
}

// conf is the outcome as it is shown.
func (o outcome) conf() any {
	if o.routes == nil {
		return o.rule.Conf
	}
	out := routeConf{}
	for _, r := range o.routes {
		out.Rules = append(out.Rules, routeRuleBody{matchesOf(r), r.Conf})
	}
	return out
}

func origins(from []policy.Source) []origin {
	out := make([]origin, len(from))
	for i, s := range from {
		out[i] = origin{metaOf(s.Policy), s.Index}
	}
	return out
}

// policies lists the policies of the sources, each once, in their order.
func policies[T any](from []policy.Source, show func(*api.Meta) T) []T {
	out := []T{}
	seen := map[api.ID]bool{}
	for _, s := range from {
		if !seen[s.Policy.ID] {
			seen[s.Policy.ID] = true
			out = append(out, show(s.Policy))
		}
	}
	return out
}

// hashedRule is the matches of a route with the short name that statistics and
// other tools know them by.
type hashedRule struct {
	Hash  string `json:"hash"`
	Match any    `json:"match"`
}

// hashOf is the base64 SHA-256 of the matches as the existing ecosystem encodes
// them: it has the value of a path before its type.
func hashOf(matches rawObject) string {
	type path struct {
		Value string `json:"value"`
		Type  string `json:"type"`
	}
	type match struct {
		Path        *path             `json:"path,omitempty"`
		Method      string            `json:"method,omitempty"`
		QueryParams []api.QueryMatch  `json:"queryParams,omitempty"`
		Headers     []api.HeaderMatch `json:"headers,omitempty"`
	}
	var list []match
	err := json.Unmarshal(matches, &list)
	text, err2 := json.Marshal(list)
	if err = cmp.Or(err, err2); err != nil {
		panic("inspect: matches of a route: " + err.Error()) // they came out of their encoder
	}
	sum := sha256.Sum256(text)
	return base64.StdEncoding.EncodeToString(sum[:])
}
