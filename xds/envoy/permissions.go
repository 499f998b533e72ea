package envoy

import (
	"fmt"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	setfilterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// The names under which the filters run; under its own the first leaves the deciding policy in a request's metadata.
const (
	httpRBAC    = "envoy.filters.http.rbac"
	networkRBAC = "envoy.filters.network.rbac"
)

// permitRequests decides on every request, since a policy may change while a connection is open.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/http/rbac/v3/rbac.proto
func (w *work) permitRequests(p ir.Permissions) *hcmv3.HttpFilter {
	return w.httpFilter(httpRBAC, &httprbacv3.RBAC{Matcher: w.decision(p, true, false), ShadowMatcher: w.shadow(p, true)})
}

// DelayRouteSelection is the runtime feature that must be true in the bootstrap of every proxy (Envoy 1.39 or later, where
// it is off by default). With it a TCP chain picks its cluster only after the TLS handshake, by what [work.admit] noted
// then. Without it the network RBAC filter alone refuses, when the caller's first byte arrives: what a server says unasked
// before, such as a greeting, reaches every caller whom TLS let in.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/listeners/network_filters/tcp_proxy_filter
const DelayRouteSelection = "envoy.reloadable_features.tcp_proxy_delay_route_selection"

// clusterKey is where Envoy's TCP proxy looks for the cluster of one connection.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/advanced/well_known_filter_state
const clusterKey = "envoy.tcp_proxy.cluster"

// admit decides when the handshake is done, before the TCP proxy connects to the server: who may gets the cluster; who may
// not gets one that does not exist, whose name is the reason of the denial. So a refused caller is closed at once, learns
// nothing that the server says, and the server never hears of it; and a caller who is let in need not speak first.
//
// The conditions are written from the last to the first, each over what is there, so that the first that holds has the
// last word. What is written first holds for everybody. An expression that fails leaves "-", which is no cluster either.
// Each condition is an expression of its own, since Envoy limits how long and how nested one may be.
//
// CEL sees the first URI of a certificate and the RBAC filter all of them; a SPIFFE certificate has exactly one
// (https://spiffe.io/docs/latest/spiffe-specs/x509-svid/, section 2), and of any other both filters must approve before
// the caller's first byte passes.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/set_filter_state/v3/set_filter_state.proto
func (w *work) admit(p ir.Permissions, cluster string) *listenerv3.Filter {
	write := func(expression string) *statev3.FilterStateValue {
		return &statev3.FilterStateValue{
			Key:         &statev3.FilterStateValue_ObjectKey{ObjectKey: clusterKey},
			Value:       &statev3.FilterStateValue_FormatString{FormatString: textFormat("%CEL(" + expression + ")%")},
			SkipIfEmpty: true,
		}
	}
	target := func(e entry) string {
		if e.action == rbacv3.RBAC_ALLOW {
			return celText(cluster)
		}
		return celText(deniedPrefix + e.Policy + "]")
	}
	entries, otherwise := ordered(p, false, false)
	values := []*statev3.FilterStateValue{write(target(otherwise))}
	for _, e := range slices.Backward(entries) {
		values = append(values, write(peerExpression(e.Peer)+" ? "+target(e)+" : ''"))
	}
	return w.networkFilter("envoy.filters.network.set_filter_state", &setfilterstatev3.Config{OnDownstreamTlsHandshake: values})
}

// peerExpression is [work.peerPredicate] in CEL. What is unknown equals nothing, instead of making the expression fail.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/attributes
func peerExpression(m ir.PeerMatch) string {
	var all []string
	add := func(attribute, how, text string) {
		all = append(all, "has(connection."+attribute+") && connection."+attribute+fmt.Sprintf(how, celText(text)))
	}
	if m.SpiffeID != "" {
		add("uri_san_peer_certificate", " == %s", m.SpiffeID)
	}
	if m.SpiffeIDPrefix != "" {
		add("uri_san_peer_certificate", ".startsWith(%s)", m.SpiffeIDPrefix)
	}
	if m.SNI != "" {
		add("requested_server_name", " == %s", m.SNI)
	}
	return strings.Join(all, " && ")
}

// celText is s as a CEL string that means nothing to what surrounds it: a format operator ends at the next ")%".
func celText(s string) string {
	var out strings.Builder
	for _, r := range s {
		if plain(r) {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\U%08x`, r)
		}
	}
	return "'" + out.String() + "'"
}

// celBytes is s as CEL bytes, which is what CEL sees of a connection's state.
func celBytes(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if plain(rune(b)) {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, `\x%02x`, b)
		}
	}
	return "b'" + out.String() + "'"
}

func plain(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-./:[] ", r)
}

// permitConnections decides once more, when the caller's first byte arrives, which is the earliest that Envoy's filter can.
// It counts who was let in and whom AllowShadowDeny would refuse, and is all that decides where [DelayRouteSelection] is
// off. Whom [work.admit] refused does not come this far: the TCP proxy counts them, as downstream_cx_no_route.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/rbac/v3/rbac.proto
func (w *work) permitConnections(listener string, p ir.Permissions) *listenerv3.Filter {
	return w.networkFilter(networkRBAC, &networkrbacv3.RBAC{
		Matcher:       w.decision(p, false, false),
		ShadowMatcher: w.shadow(p, false),
		StatPrefix:    statName(listener) + ".",
	})
}

// shadow is what would be decided if every AllowShadowDeny were a Deny; nil where there is none. It refuses nobody and
// only counts, of all who come this far, exactly those who would be refused then.
func (w *work) shadow(p ir.Permissions, requests bool) *xdsmatcherv3.Matcher {
	if len(p.AllowShadowDeny) == 0 {
		return nil
	}
	return w.decision(p, requests, true)
}

// decision is the list of all conditions, denials first, of which the first that holds decides. A condition that always
// holds ends the list: Envoy has no matcher for it, and nothing behind it could be reached.
func (w *work) decision(p ir.Permissions, requests, shadow bool) *xdsmatcherv3.Matcher {
	entries, otherwise := ordered(p, requests, shadow)
	out := &xdsmatcherv3.Matcher{OnNoMatch: w.verdict(otherwise.Policy, otherwise.action)}
	if len(entries) == 0 {
		return out
	}
	list := new(xdsmatcherv3.Matcher_MatcherList)
	if requests && comparesPaths(p) {
		list.Matchers = append(list.Matchers, w.refuseTreacherous())
	}
	for _, e := range entries {
		list.Matchers = append(list.Matchers, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: w.callPredicate(e),
			OnMatch:   w.verdict(e.Policy, e.action),
		})
	}
	out.MatcherType = &xdsmatcherv3.Matcher_MatcherList_{MatcherList: list}
	return out
}

// entry is a permission and what it says.
type entry struct {
	ir.Permission
	action rbacv3.RBAC_Action
}

// ordered is the list of conditions that can be reached, and what holds when none of them does. Where requests are not
// seen, conditions on them are met to deny and not met to allow.
func ordered(p ir.Permissions, requests, shadow bool) (entries []entry, otherwise entry) {
	softly := rbacv3.RBAC_ALLOW
	if shadow {
		softly = rbacv3.RBAC_DENY
	}
	add := func(action rbacv3.RBAC_Action, permissions []ir.Permission) {
		for _, permission := range permissions {
			if !requests && !permission.Request.IsZero() {
				if action == rbacv3.RBAC_ALLOW {
					continue
				}
				permission.Request = ir.RouteMatch{}
			}
			if action == rbacv3.RBAC_DENY && permission.Request.Path == (ir.PathMatch{Match: ir.Prefix, Value: "/"}) {
				permission.Request.Path = ir.PathMatch{} // also what is no path: *
			}
			entries = append(entries, entry{permission, action})
		}
	}
	add(rbacv3.RBAC_DENY, p.Deny)
	if shadow {
		add(softly, p.AllowShadowDeny)
		add(rbacv3.RBAC_ALLOW, p.Allow)
	} else {
		add(rbacv3.RBAC_ALLOW, p.Allow)
		add(softly, p.AllowShadowDeny)
	}

	otherwise = entry{ir.Permission{Policy: ir.DefaultPermission}, rbacv3.RBAC_DENY}
	if i := slices.IndexFunc(entries, entry.IsZero); i >= 0 {
		entries, otherwise = entries[:i], entries[i]
	}
	return entries, otherwise
}

// deniers are the names under which some request can be refused, each once.
func deniers(p ir.Permissions) []string {
	entries, otherwise := ordered(p, true, false)
	var out []string
	for _, e := range slices.Concat(entries, []entry{otherwise}) {
		if e.action == rbacv3.RBAC_DENY && !slices.Contains(out, e.Policy) {
			out = append(out, e.Policy)
		}
	}
	return out
}

// verdict carries the policy's name to whoever is told: statistics, the answer to a refused request, the access log.
func (w *work) verdict(policy string, action rbacv3.RBAC_Action) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
		Name:        "envoy.filters.rbac.action",
		TypedConfig: w.pack(&rbacv3.Action{Name: policy, Action: action}),
	}}}
}

// callPredicate is the conjunction of what e asks of the peer and of the request.
func (w *work) callPredicate(e entry) *predicate {
	all := w.requestPredicates(e)
	if !e.Peer.IsZero() {
		all = append([]*predicate{w.peerPredicate(e.Policy, e.Peer)}, all...)
	}
	return allHold(all)
}

// peerPredicate is the conjunction of what m sets.
func (w *work) peerPredicate(policy string, m ir.PeerMatch) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	var all []*xdsmatcherv3.Matcher_MatcherList_Predicate
	if m.SpiffeID != "" && m.SpiffeIDPrefix != "" {
		w.fail("%s: SPIFFE ID both exact and as prefix", policy)
	}
	uriSAN := func(match *xdsmatcherv3.StringMatcher) {
		all = append(all, w.predicate("envoy.matching.inputs.uri_san", &sslinputsv3.UriSanInput{}, match))
	}
	if m.SpiffeID != "" {
		uriSAN(equal(m.SpiffeID))
	}
	if m.SpiffeIDPrefix != "" {
		uriSAN(&xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Prefix{Prefix: m.SpiffeIDPrefix}})
	}
	if m.SNI != "" {
		all = append(all, w.predicate("envoy.matching.inputs.server_name", &networkinputsv3.ServerNameInput{}, equal(m.SNI)))
	}
	return allHold(all)
}

func (w *work) predicate(name string, input message, match *xdsmatcherv3.StringMatcher) *xdsmatcherv3.Matcher_MatcherList_Predicate {
	return &xdsmatcherv3.Matcher_MatcherList_Predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input:   &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: w.pack(input)},
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: match},
		},
	}}
}
