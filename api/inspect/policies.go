package inspect

import (
	"slices"
	"strconv"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// effective is what a kind says of one thing.
type effective struct {
	Kind    string       `json:"kind"`
	Conf    any          `json:"conf,omitempty"`
	Rules   []rule       `json:"rules,omitempty"`
	Origins []identified `json:"origins"`
	Fields  []field      `json:"fields,omitempty"`
}

type rule struct {
	KRI     string  `json:"kri"`
	Matches any     `json:"matches,omitempty"`
	Conf    any     `json:"conf"`
	Fields  []field `json:"fields,omitempty"`
}

type identified struct {
	KRI string `json:"kri"`
}

// field is where a value was written, by include=fields.
type field struct {
	Path  string `json:"path"`
	Value any    `json:"value"`
	KRI   string `json:"kri"`
	Index int    `json:"index"`
}

func identify(m *api.Meta) identified { return identified{kri(m.ID, "")} }

func (q *question) explain(r policy.Rule[rawObject]) []field {
	if !q.fields {
		return nil
	}
	var out []field
	for _, f := range r.Explain() {
		out = append(out, field{f.Path, f.Value, kri(f.Policy.ID, ""), f.Index})
	}
	return out
}

func (q *question) effective(kind string, r policy.Rule[rawObject]) effective {
	return effective{Kind: kind, Conf: r.Conf, Origins: policies(r.Sources(), identify), Fields: q.explain(r)}
}

type policiesBody struct {
	Policies []effective `json:"policies"`
}

type routesBody struct {
	Routes []effective `json:"routes"`
}

// ruleKRI names the entry of a policy as the proxy's statistics do: by its
// position in the list of the policy.
func ruleKRI(s policy.Source) string { return kri(s.Policy.ID, "rule_"+strconv.Itoa(s.Index)) }

// proxyPolicies is what is said of the proxy as such.
func proxyPolicies(q *question) (*policiesBody, error) {
	out := &policiesBody{[]effective{}}
	for _, v := range views(q, isSingle) {
		if r, ok := v.single(); ok {
			out.Policies = append(out.Policies, q.effective(v.info.Name, r))
		}
	}
	return out, nil
}

// inboundPolicies is what is said of an inbound or listener.
func inboundPolicies(q *question) (*policiesBody, error) {
	name, err := identifier(q, "kri")
	if err != nil {
		return nil, err
	}
	all := sections(q.dp)
	at := slices.IndexFunc(all, func(section string) bool { return kri(q.dp.ID, section) == name })
	if at < 0 {
		return nil, rest.NotFound(titlePolicy)
	}
	out := &policiesBody{[]effective{}}
	for _, v := range views(q, isInbound) {
		rules := v.inbound(all[at])
		if len(rules) == 0 {
			continue
		}
		one := effective{Kind: v.info.Name}
		var from []policy.Source
		for _, r := range rules {
			one.Rules = append(one.Rules, rule{KRI: ruleKRI(r.Source), Conf: r.Conf})
			from = append(from, r.Source)
		}
		one.Origins = policies(from, identify)
		out.Policies = append(out.Policies, one)
	}
	return out, nil
}

// calling finds the outbound of the proxy that the path names.
func calling(q *question) (plan.Calling, error) {
	name, err := identifier(q, "kri")
	if err != nil {
		return plan.Calling{}, err
	}
	l, err := layoutOf(q)
	if err != nil {
		return plan.Calling{}, err
	}
	for _, c := range l.Outbounds {
		if c.To.Name() == name {
			return c, nil
		}
	}
	return plan.Calling{}, rest.NotFound(titlePolicy)
}

func destinationOf(c plan.Calling) policy.Destination {
	return policy.Destination{ID: c.To.Service(), Section: c.To.Section()}
}

// outboundPolicies is what is said of calls to a destination.
func outboundPolicies(q *question) (*policiesBody, error) {
	to, err := calling(q)
	if err != nil {
		return nil, err
	}
	return q.towards(destinationOf(to)), nil
}

// towards is what is said of calls to the first of the destinations.
func (q *question) towards(to ...policy.Destination) *policiesBody {
	out := &policiesBody{[]effective{}}
	for _, v := range views(q, isOutbound) {
		if found, _, ok := v.outbound().Lookup(to...); ok {
			out.Policies = append(out.Policies, q.effective(v.info.Name, found.rule))
		}
	}
	return out
}

// outboundRoutes is where calls to a destination go.
func outboundRoutes(q *question) (*routesBody, error) {
	to, err := calling(q)
	if err != nil {
		return nil, err
	}
	out := &routesBody{[]effective{}}
	for v, found := range routesTo(q, to) {
		one := effective{Kind: v.info.Name, Origins: policies(found.from, identify)}
		for _, r := range found.routes {
			one.Rules = append(one.Rules, rule{KRI: routeKRI(r), Matches: matchesOf(r), Conf: r.Conf, Fields: q.explain(r.Rule)})
		}
		out.Routes = append(out.Routes, one)
	}
	return out, nil
}

// routesTo yields the kinds of routes that lead to the destination. Those of
// requests say nothing where requests cannot be told apart.
func routesTo(q *question, to plan.Calling) func(yield func(view, outcome) bool) {
	return func(yield func(view, outcome) bool) {
		for _, v := range views(q, isRoute) {
			if v.info.Name == api.RefHTTPRoute && to.Protocol == "tcp" {
				continue
			}
			found, _, ok := v.outbound().Lookup(destinationOf(to))
			if ok && !yield(v, found) {
				return
			}
		}
	}
}

// routeSource is the policy after which the proxy's route is named: the most
// important one.
func routeSource(r route) policy.Source { return r.Steps[len(r.Steps)-1].Source }

func routeKRI(r route) string { return ruleKRI(routeSource(r)) }

// routePolicies is what is said of calls that take a route.
func routePolicies(q *question) (*policiesBody, error) {
	to, err := calling(q)
	if err != nil {
		return nil, err
	}
	name, err := identifier(q, "route")
	if err != nil {
		return nil, err
	}
	for _, found := range routesTo(q, to) {
		for _, r := range found.routes {
			if routeKRI(r) == name {
				from := routeSource(r)
				return q.towards(policy.Destination{ID: from.Policy.ID, Section: "rule_" + strconv.Itoa(from.Index)}, destinationOf(to)), nil
			}
		}
	}
	return nil, rest.NotFound(titlePolicy)
}

// Layout is what a proxy listens on and calls, as the API answers.
type Layout struct {
	KRI       string            `json:"kri"`
	Labels    map[string]string `json:"labels"`
	Inbounds  []Port            `json:"inbounds"`
	Outbounds []Port            `json:"outbounds"`
	Listeners []Port            `json:"listeners"`
	SPIFFE    string            `json:"spiffeId,omitempty"`
}

// Port is a port on which a proxy listens, or that it calls.
type Port struct {
	KRI      string `json:"kri"`
	Type     string `json:"type,omitempty"`
	Port     uint32 `json:"port"`
	Protocol string `json:"protocol,omitempty"`
	// Name is that of the listener in Envoy.
	Name string `json:"proxyResourceName"`
}

// layout is what the proxy listens on and calls.
func layout(q *question) (*Layout, error) {
	l, err := layoutOf(q)
	if err != nil {
		return nil, err
	}
	body := &Layout{
		KRI: kri(q.dp.ID, ""), Labels: metaOf(&q.dp.Meta).Labels, Inbounds: []Port{}, Outbounds: []Port{}, Listeners: []Port{}, SPIFFE: l.SPIFFE,
	}
	for _, in := range l.Inbounds {
		body.Inbounds = append(body.Inbounds, Port{KRI: kri(q.dp.ID, in.Section), Port: in.Port, Protocol: in.Protocol, Name: in.Name})
	}
	for _, in := range l.Listeners {
		body.Listeners = append(body.Listeners, Port{KRI: kri(q.dp.ID, in.Section), Type: in.Type, Port: in.Port, Name: in.Name})
	}
	for _, out := range l.Outbounds {
		body.Outbounds = append(body.Outbounds, Port{KRI: out.To.Name(), Port: out.Address.Port, Protocol: out.Protocol, Name: out.Name})
	}
	return body, nil
}
