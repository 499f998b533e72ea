package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// balance sets how out picks an endpoint.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/load_balancers
func (w *work) balance(out *clusterv3.Cluster, b ir.Balancer) {
	switch b.Algorithm {
	case ir.InTurn:
	case ir.Random:
		out.LbPolicy = clusterv3.Cluster_RANDOM
	case ir.LeastRequest:
		out.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		config := &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: number(b.Choices)}
		if b.Bias != nil {
			config.ActiveRequestBias = &corev3.RuntimeDouble{DefaultValue: *b.Bias, RuntimeKey: "least_request_active_request_bias"}
		}
		out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: config}
	case ir.RingHash:
		out.LbPolicy = clusterv3.Cluster_RING_HASH
		config := &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: number64(b.MinRing), MaximumRingSize: number64(b.MaxRing)}
		if b.Murmur {
			config.HashFunction = clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2
		}
		out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: config}
	case ir.Maglev:
		out.LbPolicy = clusterv3.Cluster_MAGLEV
		out.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: number64(b.Table)}}
	default:
		w.fail("load balancer %q", b.Algorithm)
	}
}

func number64(n uint32) *wrapperspb.UInt64Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt64(uint64(n))
}

// hashes is https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-routeaction-hashpolicy.
func (w *work) hashes(list []ir.Hash) []*routev3.RouteAction_HashPolicy {
	var out []*routev3.RouteAction_HashPolicy
	for _, h := range list {
		one := &routev3.RouteAction_HashPolicy{Terminal: h.Terminal}
		if !exactlyOne(h.Header != "", h.Cookie != "", h.Query != "", h.State != "", h.SourceIP) {
			w.fail("hash: exactly one of header, cookie, query, state and source IP must be set")
		}
		switch {
		case h.Header != "":
			one.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
		case h.Cookie != "":
			one.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{
				Name: h.Cookie, Ttl: span(h.CookieTTL), Path: h.CookiePath,
			}}
		case h.Query != "":
			one.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query}}
		case h.State != "":
			one.PolicySpecifier = &routev3.RouteAction_HashPolicy_FilterState_{FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: h.State}}
		default:
			one.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
			}
		}
		out = append(out, one)
	}
	return out
}

// connectionHash is what a connection is hashed by; Envoy takes one part at most.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/type/v3/hash_policy.proto
func (w *work) connectionHash(h *ir.Hash) []*typev3.HashPolicy {
	switch {
	case h == nil:
		return nil
	case h.SourceIP:
		return []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	case h.State != "":
		return []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_FilterState_{FilterState: &typev3.HashPolicy_FilterState{Key: h.State}}}}
	}
	w.fail("hash: a connection has a source IP and state, and nothing else")
	return nil
}
