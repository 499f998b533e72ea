package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// http is the connection manager of a chain. Its HTTP filters are in the order in which a request meets them.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto
func (w *work) http(l ir.Listener, c ir.Chain) *listenerv3.Filter {
	h := c.HTTP
	out := &hcmv3.HttpConnectionManager{
		StatPrefix:            statName(orElse(h.StatName, l.Name)),
		StreamIdleTimeout:     span(h.StreamIdleTimeout),
		RequestHeadersTimeout: span(h.RequestHeadersTimeout),
		AccessLog:             w.accessLogs(l.Name, c, requestDenied()),
		Tracing:               w.tracing(h.Tracing),
	}
	if h.IdleTimeout.Set {
		out.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: span(h.IdleTimeout)}
	}
	byPath := c.Permissions != nil && comparesPaths(*c.Permissions)
	if h.NormalizePath || byPath {
		out.NormalizePath = wrapperspb.Bool(true)
	}
	if byPath {
		// What is judged is what the application gets, however it decodes paths.
		out.MergeSlashes = true
		out.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	}
	if h.ForwardPeer {
		// Whatever a caller claims about itself is replaced by what its certificate says.
		out.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		out.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	}
	if len(h.InternalCIDRs) > 0 {
		out.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{CidrRanges: w.ranges(h.InternalCIDRs)}
	}

	switch {
	case (h.Routes == nil) == (h.RouteName == ""):
		w.fail("chain %q: exactly one of routes and route name must be set", c.Name)
	case h.Routes != nil:
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: w.routes(*h.Routes)}
	default:
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: h.RouteName}}
	}

	if byPath {
		out.HttpFilters = append(out.HttpFilters, w.notePath())
	}
	if c.Permissions != nil {
		out.HttpFilters = append(out.HttpFilters, w.permitRequests(*c.Permissions))
		if replies := w.deniedReplies(*c.Permissions); len(replies.Mappers) > 0 {
			out.LocalReplyConfig = replies
		}
	}
	for _, limit := range h.Limits {
		out.HttpFilters = append(out.HttpFilters, w.limitRequests(limit))
	}
	for _, fault := range h.Faults {
		out.HttpFilters = append(out.HttpFilters, w.fault(fault))
	}
	if h.GRPC {
		out.HttpFilters = append(out.HttpFilters, w.httpFilter("envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{EmitFilterState: true}))
	}
	out.HttpFilters = append(out.HttpFilters, w.httpFilter("envoy.filters.http.router", &routerv3.Router{}))
	return w.networkFilter("envoy.filters.network.http_connection_manager", out)
}

func (w *work) httpFilter(name string, config message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: w.pack(config)}}
}

func (w *work) ranges(cidrs []string) []*corev3.CidrRange {
	var out []*corev3.CidrRange
	for _, text := range cidrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			w.fail("address range: %w", err)
			continue
		}
		out = append(out, &corev3.CidrRange{
			AddressPrefix: prefix.Addr().String(),
			PrefixLen:     wrapperspb.UInt32(uint32(prefix.Bits())),
		})
	}
	return out
}
