package plan

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// catchAllRoute is the name of the route that forwards what no rule matches:
// the base64 SHA-256 of its matches, as existing dashboards know it.
const catchAllRoute = "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="

var httpRouteSet = newPolicySet("http-routes", api.MeshHTTPRoutes, func(s *api.MeshHTTPRoute) *api.TargetRef { return s.TargetRef })

type routeRules = []policy.Keyed[[]api.HTTPMatch, api.HTTPRouteConf]

// httpRoutesTo is the routes of a class, by destination.
var httpRoutesTo = incr.NewQuery("http-routes-to", func(r *incr.Run, c policy.Class) *httpRules {
	return policy.NewToRules(httpRouteSet.selected(r, c), func(s *api.MeshHTTPRoute) []policy.To[routeRules] {
		out := make([]policy.To[routeRules], len(s.To))
		for i, t := range s.To {
			out[i].TargetRef = t.TargetRef
			for _, rule := range t.Rules {
				out[i].Default = append(out[i].Default, policy.Keyed[[]api.HTTPMatch, api.HTTPRouteConf]{Key: rule.Matches, Conf: rule.Default})
			}
		}
		return out
	}, resolver(r, c.Proxy().Mesh), policy.MergeKeyed)
}, (*httpRules).Equal)

type httpRules = policy.ToRules[[]httpRule]

// httpRulesFor is the rules of a class for a port; nil when no policy speaks of
// it. It is a query so that a policy for one service ends here for all others.
var httpRulesFor = incr.NewQuery("http-rules-for", func(r *incr.Run, k callsKey) []httpRule {
	rules, _, _ := httpRoutesTo.Get(r, k.Class).Lookup(k.Port.destination())
	return rules
}, func(a, b []httpRule) bool {
	return slices.EqualFunc(a, b, func(a, b httpRule) bool { return reflect.DeepEqual(a, b) })
})

type httpRule = policy.KeyedRule[[]api.HTTPMatch, api.HTTPRouteConf]

// routesKey is the routes of a class towards a port, for what is spoken to it.
type routesKey struct {
	Class policy.Class
	To    target
}

func (k routesKey) calls() callsKey { return callsKey{Class: k.Class, Port: k.To.Port} }

// routes is the variant that the policies of a class come to, see [cluster].
var routes = incr.NewQuery("routes", func(r *incr.Run, k routesKey) *wire.Resource {
	return routesVariant.Get(r, routeSettingsOf(r, k)).take(r)
}, sameBytes)

// routeSettings is all that decides a route resource. Rules come before the
// catch-all.
type routeSettings struct {
	Port            Port
	Rules           word[[]ir.Route]
	Request, Stream ir.Duration
	Retry           word[*ir.Retry]
	Patches         word[[]ir.Patch]
	Hash            word[[]ir.Hash]
	Direct          bool // to a service outside of the mesh, which is asked for by its own name
}

func routeSettingsOf(r *incr.Run, k routesKey) routeSettings {
	said := callsTo.Get(r, k.calls())
	out := routeSettings{
		Port: k.To.Port, Request: said.Timeouts.Request, Stream: said.Timeouts.StreamIdle,
		Retry: said.Retries.of(k.To.Protocol), Hash: said.Balance.Hash,
		Direct: isDirect(r, k.To.Port),
	}
	out.Patches = patchWord(routePatches(r, k.Class, ir.OriginOutbound, k.To.Port.Name()))
	rules := httpRulesFor.Get(r, k.calls())
	if len(rules) == 0 {
		return out
	}
	b := newRouteBuilder(r, k)
	var list []sortableRoute
	for i, merged := range rules {
		for _, match := range merged.Key {
			list = append(list, sortableRoute{b.route(merged, match), match, i})
		}
	}
	slices.SortStableFunc(list, compareRoutes)
	sorted := make([]ir.Route, len(list))
	for i := range list {
		sorted[i] = list[i].route
	}
	out.Rules = wordOf(sorted)
	return out
}

// routeBackends lists the ports that the routes to a port forward and mirror to.
func routeBackends(r *incr.Run, k routesKey) []target {
	rules := httpRulesFor.Get(r, k.calls())
	if len(rules) == 0 {
		return nil
	}
	b := newRouteBuilder(r, k)
	var out []target
	add := func(ref api.BackendRef) {
		if to := b.backend(ref); to != (target{}) && !slices.Contains(out, to) {
			out = append(out, to)
		}
	}
	for _, rule := range rules {
		if len(rule.Key) == 0 {
			continue // it matches nothing
		}
		for _, ref := range rule.Conf.BackendRefs {
			if weightOf(ref) > 0 {
				add(ref)
			}
		}
		for _, filter := range rule.Conf.Filters {
			if filter.Type == "RequestMirror" {
				add(filter.RequestMirror.BackendRef)
			}
		}
	}
	return out
}

func weightOf(ref api.BackendRef) uint32 {
	if ref.Weight == nil {
		return 1
	}
	return uint32(*ref.Weight)
}

type routeBuilder struct {
	r    *incr.Run
	key  routesKey
	mesh string
}

func newRouteBuilder(r *incr.Run, k routesKey) routeBuilder {
	return routeBuilder{r, k, k.Class.Proxy().Mesh}
}

// route is one match of one merged rule. It is named after the most important
// policy that contributes to it.
func (b *routeBuilder) route(rule httpRule, match api.HTTPMatch) ir.Route {
	from := routeSource(rule)
	out := ir.Route{Name: api.MeshHTTPRoutes.KRI(from.ID, from.Section), Match: routeMatch(match)}
	f := &ir.Forward{}
	said := callsTo.Get(b.r, callsKey{b.key.Class, b.key.To.Port, from})
	f.Timeout, f.IdleTimeout = said.Timeouts.Request, said.Timeouts.StreamIdle
	f.Retry = said.Retries.of(b.key.To.Protocol).value()
	f.Hash = said.Balance.Hash.value()
	direct := b.backends(f, rule.Conf)
	for _, filter := range rule.Conf.Filters {
		b.filter(&out, f, filter)
	}
	if direct && f.Rewrite.Host == "" {
		f.Rewrite.AutoHost = true
	}
	switch {
	case out.Redirect != nil:
	case len(f.Backends) == 0:
		out.Respond = &ir.Respond{Status: 500}
	default:
		out.Forward = f
	}
	return out
}

// routeSource is the rule of a policy that a merged rule goes by.
func routeSource(rule httpRule) policy.Destination {
	from := rule.Steps[len(rule.Steps)-1].Source
	return policy.Destination{ID: from.Policy.ID, Section: "rule_" + strconv.Itoa(from.Index)}
}

// backends fills in where requests go; direct: some to a service outside of the mesh,
// which is to be asked for by its own name.
func (b *routeBuilder) backends(f *ir.Forward, conf api.HTTPRouteConf) (direct bool) {
	if len(conf.BackendRefs) == 0 {
		f.Backends = []ir.Backend{{Cluster: b.key.To.Port.Name(), Weight: 100}}
		return isDirect(b.r, b.key.To.Port)
	}
	for _, ref := range conf.BackendRefs {
		weight := weightOf(ref)
		if weight == 0 {
			continue
		}
		if to := b.backend(ref); to != (target{}) {
			f.Backends = append(f.Backends, ir.Backend{Cluster: to.Port.Name(), Weight: weight})
			direct = direct || isDirect(b.r, to.Port)
		} else {
			f.Unresolved += weight
		}
	}
	return direct
}

func (b *routeBuilder) backend(ref api.BackendRef) target { return backendOf(b.r, b.mesh, ref) }

func backendOf(r *incr.Run, mesh string, ref api.BackendRef) target {
	return resolve.Get(r, Backend{Kind: ref.Kind, Mesh: mesh, Labels: encodeLabels(ref.Labels), Port: ref.Port, Section: ref.SectionName, First: ref.Older != nil})
}

func (b *routeBuilder) filter(out *ir.Route, f *ir.Forward, filter api.HTTPFilter) {
	switch filter.Type {
	case "RequestHeaderModifier":
		out.RequestHeaders = headerChange(filter.RequestHeaderModifier)
	case "ResponseHeaderModifier":
		out.ResponseHeaders = headerChange(filter.ResponseHeaderModifier)
	case "RequestRedirect":
		d := filter.RequestRedirect
		out.Redirect = &ir.Redirect{Scheme: d.Scheme, Host: d.Hostname, Port: d.Port, Status: d.StatusCode, Path: pathRewrite(d.Path)}
	case "URLRewrite":
		f.Rewrite = ir.Rewrite{Host: filter.URLRewrite.Hostname, AutoHost: filter.URLRewrite.HostToBackendHostname, Path: pathRewrite(filter.URLRewrite.Path)}
	case "RequestMirror":
		to := b.backend(filter.RequestMirror.BackendRef)
		if to == (target{}) {
			return
		}
		share := ir.All
		if p := filter.RequestMirror.Percentage; p != nil {
			share = ir.Share(p.Decimal() * 10_000)
		}
		f.Mirrors = append(f.Mirrors, ir.Mirror{Cluster: to.Port.Name(), Share: share})
	}
}

func headerChange(m *api.HeaderModifier) ir.HeaderChange {
	list := func(from []api.HeaderKeyValue) []ir.Header {
		var out []ir.Header
		for _, h := range from {
			out = append(out, ir.Header{Name: h.Name, Value: h.Value})
		}
		return out
	}
	return ir.HeaderChange{Set: list(m.Set), Add: list(m.Add), Remove: m.Remove}
}

func pathRewrite(p *api.PathRewrite) ir.PathRewrite {
	switch {
	case p == nil:
		return ir.PathRewrite{}
	case p.Type == "ReplaceFullPath":
		return ir.PathRewrite{Kind: ir.ReplaceFull, Value: p.ReplaceFullPath}
	}
	return ir.PathRewrite{Kind: ir.ReplacePrefix, Value: p.ReplacePrefixMatch}
}

func routeMatch(m api.HTTPMatch) ir.RouteMatch {
	out := ir.RouteMatch{Method: m.Method}
	if m.Path != nil {
		out.Path = ir.PathMatch{Match: matchType(m.Path.Type), Value: m.Path.Value}
	}
	seen := map[string]bool{}
	for _, h := range m.Headers {
		if !seen[h.Name] { // of several with one name the first counts
			seen[h.Name] = true
			out.Headers = append(out.Headers, headerMatch(h))
		}
	}
	for _, q := range m.QueryParams {
		out.Query = append(out.Query, ir.QueryMatch{Name: q.Name, Match: matchType(q.Type), Value: q.Value})
	}
	return out
}

func headerMatch(h api.HeaderMatch) ir.HeaderMatch {
	return ir.HeaderMatch{Name: h.Name, Match: matchType(h.Type), Value: h.Value}
}

func matchType(t string) ir.Match {
	switch t {
	case "PathPrefix", "Prefix":
		return ir.Prefix
	case "RegularExpression":
		return ir.Regex
	case "Present":
		return ir.Present
	case "Absent":
		return ir.Absent
	}
	return ir.Exact
}

// sortableRoute is a route with what decides its place among the others.
type sortableRoute struct {
	route ir.Route
	match api.HTTPMatch
	rank  int
}

// compareRoutes puts the more specific match first: kind of path, its length,
// method, number of headers, number of query parameters, importance.
func compareRoutes(a, b sortableRoute) int {
	path := func(m api.HTTPMatch) (kind, length int) {
		switch {
		case m.Path == nil:
			return 3, 0
		case m.Path.Type == "PathPrefix":
			return 1, -len(m.Path.Value)
		case m.Path.Type == "RegularExpression":
			return 2, -len(m.Path.Value)
		}
		return 0, 0
	}
	method := func(m api.HTTPMatch) int {
		if m.Method != "" {
			return 0
		}
		return 1
	}
	ak, al := path(a.match)
	bk, bl := path(b.match)
	return cmp.Or(cmp.Compare(ak, bk), cmp.Compare(al, bl), cmp.Compare(method(a.match), method(b.match)),
		cmp.Compare(len(b.match.Headers), len(a.match.Headers)), cmp.Compare(len(b.match.QueryParams), len(a.match.QueryParams)),
		cmp.Compare(a.rank, b.rank))
}

func (k routeSettings) config() ir.RouteConfig {
	name := k.Port.Name()
	list := k.Rules.value()
	if !slices.ContainsFunc(list, func(x ir.Route) bool { return x.Match.IsZero() || catchesAll(x.Match) }) {
		list = append(list, ir.Route{Name: catchAllRoute, Forward: &ir.Forward{
			Backends: []ir.Backend{{Cluster: name, Weight: 100}}, Timeout: k.Request, IdleTimeout: k.Stream,
			Retry: k.Retry.value(), Hash: k.Hash.value(), Rewrite: ir.Rewrite{AutoHost: k.Direct},
		}})
	}
	return ir.RouteConfig{
		Name: name, Origin: ir.OriginOutbound, Hosts: []ir.VirtualHost{{Name: name, Routes: list}}, Patches: k.Patches.value(),
	}
}

func catchesAll(m ir.RouteMatch) bool {
	return m.Path == ir.PathMatch{Match: ir.Prefix, Value: "/"} && m.Method == "" && len(m.Headers) == 0 && len(m.Query) == 0
}

var routesVariant = incr.NewQuery("encode.routes", func(_ *incr.Run, k routeSettings) variant {
	c := k.config()
	return encoded(wire.Route, c.Name, envoy.Routes, c)
}, sameVariant)
