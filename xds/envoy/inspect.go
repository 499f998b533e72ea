package envoy

import (
	"slices"
	"strconv"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// inspectors are what must be known of a connection before a chain is chosen: where it was made to, then what the client
// says in its first bytes.
func (w *work) inspectors(l ir.Listener) []*listenerv3.ListenerFilter {
	var out []*listenerv3.ListenerFilter
	add := func(name string, config message) *listenerv3.ListenerFilter {
		out = append(out, &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: w.pack(config)}})
		return out[len(out)-1]
	}
	tls, plain := slices.ContainsFunc(l.Chains, looksIntoTLS), slices.ContainsFunc(l.Chains, looksIntoHTTP)
	if (tls || plain) && l.Transparent {
		// Envoy adds this by itself, but last: those that follow depend on the port.
		add("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{})
	}
	if tls || plain {
		add("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}).FilterDisabled = ports(l.ServerFirst)
	}
	if plain {
		add("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}).FilterDisabled = ports(l.ServerFirst)
	}
	return out
}

func looksIntoHTTP(c ir.Chain) bool {
	return c.Match.Transport == "raw_buffer" && len(c.Match.ALPN) > 0
}

// ports is the condition that a connection was made to one of the ports; nil for none.
func ports(list []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var any []*listenerv3.ListenerFilterChainMatchPredicate
	for _, port := range list {
		any = append(any, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(port), End: int32(port) + 1},
		}})
	}
	if len(any) < 2 {
		return append(any, nil)[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: any},
	}}
}

// firstMatch chooses the first chain whose condition holds. Envoy's own choice by filter_chain_match goes by one property
// after the other and never turns back: a chain for an address would hide those for a server name or for HTTP.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/listener/v3/listener.proto (filter_chain_matcher)
func (w *work) firstMatch(chains []ir.Chain) *xdsmatcherv3.Matcher {
	list := new(xdsmatcherv3.Matcher_MatcherList)
	for _, c := range chains {
		if c.Name == "" || c.Match.IsZero() {
			w.fail("chain %q: chains of an ordered listener have a name and a condition", c.Name)
			continue
		}
		list.Matchers = append(list.Matchers, &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: w.connection(c.Match),
			OnMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
				Name: c.Name, TypedConfig: w.pack(chainName{wrapperspb.String(c.Name)}),
			}}},
		})
	}
	return &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: list}}
}

// chainName is how Envoy wants a chain named by a matcher. It has no rules.
type chainName struct{ *wrapperspb.StringValue }

func (chainName) ValidateAll() error { return nil }

// connection is the conjunction of what m sets.
func (w *work) connection(m ir.ChainMatch) *predicate {
	var all []*predicate
	is := func(text string) *xdsmatcherv3.StringMatcher {
		return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: text}}
	}
	if m.Port != 0 {
		all = append(all, w.predicate("envoy.matching.inputs.destination_port", &networkinputsv3.DestinationPortInput{}, is(strconv.Itoa(int(m.Port)))))
	}
	if len(m.Ranges) > 0 {
		all = append(all, w.within(m.Ranges))
	}
	if m.Transport != "" {
		all = append(all, w.predicate("envoy.matching.inputs.transport_protocol", &networkinputsv3.TransportProtocolInput{}, is(m.Transport)))
	}
	var names, protocols []*predicate
	for _, name := range m.SNI {
		match := is(name)
		if suffix, wildcard := strings.CutPrefix(name, "*"); wildcard {
			match = &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Suffix{Suffix: suffix}}
		}
		names = append(names, w.predicate("envoy.matching.inputs.server_name", &networkinputsv3.ServerNameInput{}, match))
	}
	for _, protocol := range m.ALPN {
		// The input is a list of names in quotes.
		protocols = append(protocols, w.predicate("envoy.matching.inputs.application_protocol", &networkinputsv3.ApplicationProtocolInput{},
			&xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Contains{Contains: "'" + protocol + "'"}}))
	}
	for _, any := range [][]*predicate{names, protocols} {
		if len(any) > 0 {
			all = append(all, oneHolds(any))
		}
	}
	return allHold(all)
}

// within is the condition that the destination is in one of the ranges.
func (w *work) within(cidrs []string) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscorev3.TypedExtensionConfig{Name: "envoy.matching.inputs.destination_ip", TypedConfig: w.pack(&networkinputsv3.DestinationIPInput{})},
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{CustomMatch: &xdscorev3.TypedExtensionConfig{
				Name: "envoy.matching.matchers.ip", TypedConfig: w.pack(&ipv3.Ip{CidrRanges: w.ranges(cidrs), StatPrefix: "destination"}),
			}},
		},
	}}
}
