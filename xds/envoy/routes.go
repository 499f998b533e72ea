package envoy

import (
	"iter"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// Routes is the Envoy route configuration of c, to be delivered by itself.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route.proto
func Routes(c ir.RouteConfig) (*routev3.RouteConfiguration, error) {
	w := new(work)
	if c.Name == "" {
		w.fail("no name")
	}
	for _, f := range configForwards(c) {
		if len(f.Peers) > 0 {
			// The chain must note who the peer is; only a chain that contains its routes can know that it has to.
			w.fail("timeouts per peer need routes inside the listener")
			break
		}
	}
	out := w.routes(c)
	return finish(w, c.Name, c.Patches, out)
}

// forwards yields every forwarding route inside c.
func forwards(c ir.Chain) iter.Seq[*ir.Forward] {
	return func(yield func(*ir.Forward) bool) {
		if c.HTTP == nil || c.HTTP.Routes == nil {
			return
		}
		for _, f := range configForwards(*c.HTTP.Routes) {
			if !yield(f) {
				return
			}
		}
	}
}

func configForwards(c ir.RouteConfig) []*ir.Forward {
	var out []*ir.Forward
	for _, h := range c.Hosts {
		for _, r := range h.Routes {
			if r.Forward != nil {
				out = append(out, r.Forward)
			}
		}
	}
	return out
}

// defaultBody is how large a body may be that Envoy answers by itself, if nothing else is said.
const defaultBody = 4096

func (w *work) routes(c ir.RouteConfig) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{
		Name:                   c.Name,
		RequestHeadersToRemove: c.RemoveRequestHeaders,
		// A route may name a cluster that the next message brings.
		ValidateClusters: wrapperspb.Bool(false),
	}
	if len(c.Hosts) == 0 {
		w.fail("routes %q: no host", c.Name)
	}
	for _, h := range c.Hosts {
		host := &routev3.VirtualHost{Name: h.Name, Domains: h.Domains}
		if len(h.Domains) == 0 {
			host.Domains = []string{"*"}
		}
		for _, r := range h.Routes {
			host.Routes = append(host.Routes, w.route(r)...)
			if r.Respond != nil && len(r.Respond.Body) > max(defaultBody, int(out.MaxDirectResponseBodySizeBytes.GetValue())) {
				out.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(uint32(len(r.Respond.Body)))
			}
		}
		out.VirtualHosts = append(out.VirtualHosts, host)
	}
	return out
}

// route makes the Envoy routes of r: two if a prefix of whole segments has to be told apart from the path itself; and for
// each of them one in front per condition that Envoy can only look at while it chooses a route.
//
//	/x (prefix)  ─▶  [500 for the share of absent backends] [per peer …] path: /x
//	                 [500 for the share of absent backends] [per peer …] prefix: /x/
func (w *work) route(r ir.Route) []*routev3.Route {
	var out []*routev3.Route
	for _, p := range w.paths(r) {
		plain := w.matched(r, p)
		switch {
		case !exactlyOne(r.Forward != nil, r.Redirect != nil, r.Respond != nil):
			w.fail("route %q: exactly one of forward, redirect and respond must be set", r.Name)
		case r.Respond != nil:
			plain.Action = respond(*r.Respond)
		case r.Redirect != nil:
			plain.Action = w.redirect(r.Name, *r.Redirect, p)
		default:
			if lost := w.absent(r, p); lost != nil {
				out = append(out, lost)
			}
			for _, peer := range r.Forward.Peers {
				clone := w.matched(r, p)
				clone.Match.FilterState = w.peerState(peer.Peer)
				clone.Action = w.forward(r, p, peer.Timeout.Or(r.Forward.Timeout), peer.IdleTimeout.Or(r.Forward.IdleTimeout))
				out = append(out, clone)
			}
			plain.Action = w.forward(r, p, r.Forward.Timeout, r.Forward.IdleTimeout)
		}
		out = append(out, plain)
	}
	return out
}

// path is one way to compare a path in Envoy, and how to replace what it matched.
type path struct {
	set    func(*routev3.RouteMatch)
	prefix bool // replacing the matched part is replacing a true prefix, which ends in a slash
	whole  bool // the matched part is all of the path
}

func (w *work) paths(r ir.Route) []path {
	m := r.Match.Path
	prefix := func(s string) path {
		return path{prefix: true, set: func(out *routev3.RouteMatch) { out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: s} }}
	}
	exact := func(s string, whole bool) path {
		return path{whole: whole, set: func(out *routev3.RouteMatch) { out.PathSpecifier = &routev3.RouteMatch_Path{Path: s} }}
	}
	switch m.Match {
	case "":
		return []path{prefix("/")}
	case ir.Exact:
		return []path{exact(m.Value, false)}
	case ir.Prefix:
		segments := strings.TrimSuffix(m.Value, "/")
		if segments == "" {
			return []path{prefix("/")}
		}
		return []path{exact(segments, true), prefix(segments + "/")}
	case ir.Regex:
		return []path{{set: func(out *routev3.RouteMatch) {
			out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Value)}
		}}}
	}
	w.fail("route %q: path match %q", r.Name, m.Match)
	return nil
}

// matched is a route with the conditions of r, without action.
func (w *work) matched(r ir.Route, p path) *routev3.Route {
	match := new(routev3.RouteMatch)
	p.set(match)
	if r.Match.Method != "" {
		match.Headers = append(match.Headers, stringHeader(":method", exactly(r.Match.Method)))
	}
	match.Headers = append(match.Headers, w.headers(r, r.Match.Headers)...)
	for _, q := range r.Match.Query {
		match.QueryParameters = append(match.QueryParameters, w.query(r, q))
	}
	return &routev3.Route{
		Name:                    r.Name,
		Match:                   match,
		RequestHeadersToAdd:     headersToAdd(r.RequestHeaders),
		RequestHeadersToRemove:  r.RequestHeaders.Remove,
		ResponseHeadersToAdd:    headersToAdd(r.ResponseHeaders),
		ResponseHeadersToRemove: r.ResponseHeaders.Remove,
	}
}

func (w *work) headers(r ir.Route, list []ir.HeaderMatch) []*routev3.HeaderMatcher {
	var out []*routev3.HeaderMatcher
	for _, h := range list {
		out = append(out, w.header(r, h))
	}
	return out
}

func (w *work) header(r ir.Route, h ir.HeaderMatch) *routev3.HeaderMatcher {
	present := func(is bool) *routev3.HeaderMatcher {
		return &routev3.HeaderMatcher{Name: h.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: is}}
	}
	switch h.Match {
	case ir.Exact:
		return stringHeader(h.Name, exactly(h.Value))
	case ir.Regex:
		return stringHeader(h.Name, fitting(h.Value))
	case ir.Prefix:
		if h.Value == "" {
			return present(true)
		}
		return stringHeader(h.Name, startingWith(h.Value))
	case ir.Present, ir.Absent:
		return present(h.Match == ir.Present)
	}
	w.fail("route %q: header %s: match %q", r.Name, h.Name, h.Match)
	return nil
}

func stringHeader(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

func (w *work) query(r ir.Route, q ir.QueryMatch) *routev3.QueryParameterMatcher {
	var m *matcherv3.StringMatcher
	switch q.Match {
	case ir.Exact:
		m = exactly(q.Value)
	case ir.Regex:
		m = fitting(q.Value)
	default:
		w.fail("route %q: query parameter %s: match %q", r.Name, q.Name, q.Match)
	}
	return &routev3.QueryParameterMatcher{
		Name:                         q.Name,
		QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: m},
	}
}

// forward is the action that sends a request on. Without a timeout Envoy would give it 15 seconds; unset is none here.
func (w *work) forward(r ir.Route, p path, timeout, idle ir.Duration) *routev3.Route_Route {
	action := &routev3.RouteAction{
		Timeout:     durationpb.New(timeout.Span),
		IdleTimeout: span(idle),
		RetryPolicy: w.retryPolicy(r, r.Forward.Retry),
		HashPolicy:  w.hashes(r.Forward.Hash),
	}
	switch backends := weighted(r.Forward.Backends); len(backends) {
	case 0:
		w.fail("route %q: no backend", r.Name)
	case 1:
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: backends[0].Cluster}
	default:
		split := new(routev3.WeightedCluster)
		for _, b := range backends {
			split.Clusters = append(split.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: b.Cluster, Weight: wrapperspb.UInt32(b.Weight)})
		}
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: split}
	}
	w.rewrite(action, r, p)
	for _, m := range r.Forward.Mirrors {
		action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         m.Cluster,
			RuntimeFraction: fraction(m.Share),
		})
	}
	return &routev3.Route_Route{Route: action}
}

// absent answers 500 to the share of requests whose backend does not exist; nil if all exist.
func (w *work) absent(r ir.Route, p path) *routev3.Route {
	if r.Forward.Unresolved == 0 {
		return nil
	}
	total := uint64(r.Forward.Unresolved)
	for _, b := range r.Forward.Backends {
		total += uint64(b.Weight)
	}
	out := w.matched(r, p)
	// Half is added to round: three equal parts are 333,333 millionths each.
	out.Match.RuntimeFraction = fraction(ir.Share((uint64(r.Forward.Unresolved)*uint64(ir.All) + total/2) / total))
	out.Action = respond(ir.Respond{Status: 500})
	return out
}

// fraction uses the smallest of Envoy's three denominators that is exact, since people read it.
func fraction(s ir.Share) *corev3.RuntimeFractionalPercent {
	p := &typev3.FractionalPercent{Numerator: uint32(s), Denominator: typev3.FractionalPercent_MILLION}
	switch {
	case s%10_000 == 0:
		p.Numerator, p.Denominator = uint32(s/10_000), typev3.FractionalPercent_HUNDRED
	case s%100 == 0:
		p.Numerator, p.Denominator = uint32(s/100), typev3.FractionalPercent_TEN_THOUSAND
	}
	return &corev3.RuntimeFractionalPercent{DefaultValue: p}
}

func respond(r ir.Respond) *routev3.Route_DirectResponse {
	out := &routev3.DirectResponseAction{Status: r.Status}
	if r.Body != "" {
		out.Body = inlineString(r.Body)
	}
	return &routev3.Route_DirectResponse{DirectResponse: out}
}

func exactlyOne(all ...bool) bool {
	n := 0
	for _, is := range all {
		if is {
			n++
		}
	}
	return n == 1
}
