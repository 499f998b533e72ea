package envoy

import (
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// Cluster is the Envoy cluster of c.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/cluster.proto
func Cluster(c ir.Cluster) (*clusterv3.Cluster, error) {
	w := new(work)
	out := &clusterv3.Cluster{Name: c.Name, ConnectTimeout: span(c.ConnectTimeout)}
	if c.AsAddressed {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		out.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	} else if len(c.Static) > 0 {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		if slices.ContainsFunc(c.Static, named) {
			out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
			out.DnsLookupFamily = clusterv3.Cluster_ALL // AUTO takes IPv6 alone where both exist
		}
		out.LoadAssignment = assignment(c.Name, c.Static)
	} else {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	}
	if options := w.upstreamHTTP(c); options != nil {
		out.TypedExtensionProtocolOptions = map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": w.pack(options),
		}
	}
	switch {
	case c.TLS != nil && c.Outside != nil:
		w.fail("only one of TLS to proxies and to servers outside may be set")
	case c.TLS != nil:
		out.TransportSocket = w.clientTLS(*c.TLS)
	case c.Outside != nil:
		out.TransportSocket = w.outsideTLS(*c.Outside)
	}
	if c.SourceAddress != "" {
		out.UpstreamBindConfig = &corev3.BindConfig{SourceAddress: address(ir.Address{Host: c.SourceAddress}).GetSocketAddress()}
	}
	out.CircuitBreakers = circuitBreakers(c.Breaker.Limits, c.TrackRemaining)
	out.OutlierDetection = outlierDetection(c.Breaker.Outliers)
	out.CommonLbConfig = commonLB(c)
	w.balance(out, c.Balancer)
	if c.HealthCheck != nil {
		out.HealthChecks = []*corev3.HealthCheck{w.healthCheck(*c.HealthCheck)}
	}
	return finish(w, c.Name, c.Patches, out)
}

// named says whether an endpoint has a host name, which Envoy then resolves.
func named(l ir.Locality) bool {
	return slices.ContainsFunc(l.Endpoints, func(e ir.Endpoint) bool {
		return e.Address.Host != "" && !isIP(e.Address.Host)
	})
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// upstreamHTTP is nil for clusters that speak bytes.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/upstreams/http/v3/http_protocol_options.proto
func (w *work) upstreamHTTP(c ir.Cluster) *upstreamhttpv3.HttpProtocolOptions {
	explicit := new(upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig)
	switch c.Protocol {
	case ir.Bytes:
		return nil
	case ir.HTTP1:
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		}
	case ir.HTTP2:
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}
	case ir.AsCalled:
	default:
		w.fail("protocol %q", c.Protocol)
		return nil
	}
	out := &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
	if c.Protocol == ir.AsCalled {
		out.UpstreamProtocolOptions = &upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
			},
		}
	}
	if c.IdleTimeout.Set || c.MaxStream.Set || c.MaxConnection.Set {
		out.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
			IdleTimeout:           span(c.IdleTimeout),
			MaxStreamDuration:     span(c.MaxStream),
			MaxConnectionDuration: span(c.MaxConnection),
		}
	}
	return out
}

// Endpoints is the Envoy assignment of e. One without localities is valid: it says that there is nobody.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/endpoint/v3/endpoint.proto
func Endpoints(e ir.Endpoints) (*endpointv3.ClusterLoadAssignment, error) {
	out := assignment(e.Cluster, e.Localities)
	if e.Spill > 0 {
		out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: number(e.Spill)}
	}
	return finish(new(work), e.Cluster, nil, out)
}

func assignment(cluster string, localities []ir.Locality) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	for _, l := range localities {
		group := &endpointv3.LocalityLbEndpoints{Priority: l.Priority, LoadBalancingWeight: number(l.Weight)}
		if l.Region != "" || l.Zone != "" || l.SubZone != "" {
			group.Locality = &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
		}
		for _, e := range l.Endpoints {
			group.LbEndpoints = append(group.LbEndpoints, member(e))
		}
		out.Endpoints = append(out.Endpoints, group)
	}
	return out
}

// balancerKey is where load balancing finds an endpoint's tags in its metadata.
const balancerKey = "envoy.lb"

func member(e ir.Endpoint) *endpointv3.LbEndpoint {
	out := &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(e.Address)}},
		LoadBalancingWeight: number(e.Weight),
	}
	if len(e.Tags) > 0 {
		out.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			balancerKey:                    textStruct(e.Tags),
			"envoy.transport_socket_match": textStruct(e.Tags),
		}}
	}
	return out
}
