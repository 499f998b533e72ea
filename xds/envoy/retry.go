package envoy

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// retryPolicy names the conditions that its own fields need: Envoy looks at statuses and headers only if it is told to.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-retrypolicy
func (w *work) retryPolicy(route ir.Route, r *ir.Retry) *routev3.RetryPolicy {
	if r == nil {
		return nil
	}
	on := slices.Clone(r.On)
	if len(r.Statuses) > 0 {
		on = append(on, "retriable-status-codes")
	}
	if len(r.ResponseHeaders) > 0 {
		on = append(on, "retriable-headers")
	}
	if len(on) == 0 {
		w.fail("route %q: retries on nothing", route.Name)
	}
	out := &routev3.RetryPolicy{
		RetryOn:                       strings.Join(on, ","),
		NumRetries:                    number(r.Times),
		PerTryTimeout:                 span(r.PerTry),
		RetriableStatusCodes:          r.Statuses,
		RetriableHeaders:              w.headers(route, r.ResponseHeaders),
		RetriableRequestHeaders:       w.headers(route, r.Requests),
		HostSelectionRetryMaxAttempts: int64(r.Draws),
	}
	if r.BackOff != (ir.BackOff{}) {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: span(r.BackOff.Base), MaxInterval: span(r.BackOff.Max)}
	}
	if len(r.Resets) > 0 {
		out.RateLimitedRetryBackOff = &routev3.RetryPolicy_RateLimitedRetryBackOff{MaxInterval: span(r.ResetMax)}
		for _, h := range r.Resets {
			reset := &routev3.RetryPolicy_ResetHeader{Name: h.Header, Format: routev3.RetryPolicy_SECONDS}
			if h.Unix {
				reset.Format = routev3.RetryPolicy_UNIX_TIMESTAMP
			}
			out.RateLimitedRetryBackOff.ResetHeaders = append(out.RateLimitedRetryBackOff.ResetHeaders, reset)
		}
	}
	if r.AvoidTried {
		out.RetryHostPredicate = append(out.RetryHostPredicate, w.avoid("envoy.retry_host_predicates.previous_hosts", &previoushostsv3.PreviousHostsPredicate{}))
	}
	for _, tags := range r.AvoidTags {
		out.RetryHostPredicate = append(out.RetryHostPredicate, w.avoid("envoy.retry_host_predicates.omit_host_metadata", &omitmetadatav3.OmitHostMetadataConfig{
			MetadataMatch: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{balancerKey: textStruct(tags)}},
		}))
	}
	if r.AvoidPriorities > 0 {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: w.pack(&previousprioritiesv3.PreviousPrioritiesConfig{
				UpdateFrequency: int32(r.AvoidPriorities),
			})},
		}
	}
	return out
}

func (w *work) avoid(name string, config message) *routev3.RetryPolicy_RetryHostPredicate {
	return &routev3.RetryPolicy_RetryHostPredicate{
		Name: name, ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: w.pack(config)},
	}
}
