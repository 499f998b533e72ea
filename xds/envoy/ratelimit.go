package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httplimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networklimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// limitRequests has its bucket in the filter: one of a route would be filled for each of the routes that requests are told
// apart by for other reasons.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto
func (w *work) limitRequests(l ir.RequestLimit) *hcmv3.HttpFilter {
	always := func(key string) *corev3.RuntimeFractionalPercent {
		share := fraction(ir.All)
		share.RuntimeKey = key
		return share
	}
	out := &httplimitv3.LocalRateLimit{
		StatPrefix:           "rate_limit",
		TokenBucket:          bucket(l.Rate),
		FilterEnabled:        always("local_rate_limit_enabled"),
		FilterEnforced:       always("local_rate_limit_enforced"),
		ResponseHeadersToAdd: headersToAdd(l.Headers),
	}
	if _, known := typev3.StatusCode_name[int32(l.Status)]; known && l.Status != 0 {
		out.Status = &typev3.HttpStatus{Code: typev3.StatusCode(l.Status)}
	}
	const name = "envoy.filters.http.local_ratelimit"
	return w.forCallers(l.Callers, name, name, out)
}

// limitConnections closes what is beyond the rate before a byte of it is read.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/local_ratelimit/v3/local_rate_limit.proto
func (w *work) limitConnections(r ir.Rate) *listenerv3.Filter {
	return w.networkFilter("envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", &networklimitv3.LocalRateLimit{
		StatPrefix: "tcp_rate_limit", TokenBucket: bucket(r),
	})
}

func bucket(r ir.Rate) *typev3.TokenBucket {
	return &typev3.TokenBucket{MaxTokens: r.Num, TokensPerFill: wrapperspb.UInt32(r.Num), FillInterval: span(r.Interval)}
}
