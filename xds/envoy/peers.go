package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setfilterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// Envoy's routes cannot look at a certificate. So the chain notes who the peer is when the handshake is done, under these
// keys, and routes look there.
const (
	spiffeIDKey = "kuma.mesh_timeout.match.spiffe_id"
	sniKey      = "kuma.mesh_timeout.match.sni"
)

// comparesPeers reports whether some route of c depends on who the peer is.
func comparesPeers(c ir.Chain) bool {
	for f := range forwards(c) {
		if len(f.Peers) > 0 {
			return true
		}
	}
	return false
}

// notePeer writes the notes. What is unknown is not noted, so that it matches nothing.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/set_filter_state/v3/set_filter_state.proto
func (w *work) notePeer() *listenerv3.Filter {
	note := func(key, operator string) *statev3.FilterStateValue {
		return &statev3.FilterStateValue{
			Key:         &statev3.FilterStateValue_ObjectKey{ObjectKey: key},
			FactoryKey:  "envoy.string",
			Value:       &statev3.FilterStateValue_FormatString{FormatString: textFormat(operator)},
			SkipIfEmpty: true,
		}
	}
	return w.networkFilter("envoy.filters.network.set_filter_state", &setfilterstatev3.Config{
		OnDownstreamTlsHandshake: []*statev3.FilterStateValue{
			note(spiffeIDKey, "%DOWNSTREAM_PEER_URI_SAN%"),
			note(sniKey, "%REQUESTED_SERVER_NAME%"),
		},
	})
}

// peerState is the condition m on the notes.
func (w *work) peerState(m ir.PeerMatch) []*matcherv3.FilterStateMatcher {
	var out []*matcherv3.FilterStateMatcher
	add := func(key string, match *matcherv3.StringMatcher) {
		out = append(out, &matcherv3.FilterStateMatcher{Key: key, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: match}})
	}
	if m.IsZero() || m.SpiffeID != "" && m.SpiffeIDPrefix != "" {
		w.fail("timeouts per peer: a peer needs one of SPIFFE ID, SPIFFE ID prefix and SNI, and only one SPIFFE ID")
	}
	if m.SpiffeID != "" {
		add(spiffeIDKey, exactly(m.SpiffeID))
	}
	if m.SpiffeIDPrefix != "" {
		add(spiffeIDKey, startingWith(m.SpiffeIDPrefix))
	}
	if m.SNI != "" {
		add(sniKey, exactly(m.SNI))
	}
	return out
}
