package plan

import (
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var retrySet = newPolicySet("retries", api.MeshRetries, func(s *api.MeshRetry) *api.TargetRef { return s.TargetRef })

var retriesTo = newToPolicy("retries-to", retrySet, func(s *api.MeshRetry) []policy.To[api.MeshRetryConf] {
	return convert(s.To, func(t api.MeshRetryTo) policy.To[api.MeshRetryConf] { return policy.To[api.MeshRetryConf](t) })
}, retriesOf)

// retries is what is tried again, by what is spoken. Here a retry does what its
// documentation says where upstream configures what Envoy ignores or refuses:
// destinations that speak http2 have those of http, headers of a response count as
// a reason, a canceled gRPC call has the name that Envoy knows, methods alone leave
// the usual reasons, and every wait has a base.
type retries struct {
	Connects   uint32 // how often connecting is tried altogether; 0: once
	HTTP, GRPC word[*ir.Retry]
}

// of is the retries of requests; the zero word where there are none.
func (r retries) of(protocol string) word[*ir.Retry] {
	if protocol == "grpc" {
		return r.GRPC
	}
	return r.HTTP
}

func retriesOf(c api.MeshRetryConf) retries {
	var out retries
	if t := c.TCP; t != nil {
		out.Connects = value(t.MaxConnectAttempt)
	}
	if h := c.HTTP; h != nil && !isNone(h.NumRetries) {
		out.HTTP = wordOf(httpRetry(h))
	}
	if g := c.GRPC; g != nil && !isNone(g.NumRetries) {
		r := &ir.Retry{Times: value(g.NumRetries), PerTry: duration(g.PerTryTimeout), BackOff: backOff(g.BackOff)}
		for _, reason := range g.RetryOn {
			r.On = append(r.On, grpcReasons[reason])
		}
		if len(r.On) == 0 {
			r.On = []string{"cancelled", "connect-failure", "gateway-error", "refused-stream", "reset", "resource-exhausted", "unavailable"}
		}
		r.Resets, r.ResetMax = resets(g.RateLimitedBackOff)
		out.GRPC = wordOf(r)
	}
	return out
}

func isNone(times *uint32) bool { return times != nil && *times == 0 }

var grpcReasons = map[string]string{
	"Canceled": "cancelled", "DeadlineExceeded": "deadline-exceeded", "Internal": "internal",
	"ResourceExhausted": "resource-exhausted", "Unavailable": "unavailable",
}

var httpReasons = map[string]string{
	"5xx": "5xx", "GatewayError": "gateway-error", "Reset": "reset", "Retriable4xx": "retriable-4xx", "ConnectFailure": "connect-failure",
	"EnvoyRatelimited": "envoy-ratelimited", "RefusedStream": "refused-stream", "Http3PostConnectFailure": "http3-post-connect-failure",
}

func httpRetry(h *api.RetryHTTP) *ir.Retry {
	r := &ir.Retry{
		Times: value(h.NumRetries), PerTry: duration(h.PerTryTimeout), BackOff: backOff(h.BackOff),
		ResponseHeaders: headerMatches(h.RetriableResponseHeaders), Draws: uint32(max(0, value(h.HostSelectionMaxAttempts))),
	}
	r.Resets, r.ResetMax = resets(h.RateLimitedBackOff)
	for _, reason := range h.RetryOn {
		if method, ok := strings.CutPrefix(reason, "HttpMethod"); ok {
			r.Requests = append(r.Requests, ir.HeaderMatch{Name: ":method", Match: ir.Exact, Value: strings.ToUpper(method)})
		} else if status, err := strconv.ParseUint(reason, 10, 16); err == nil {
			r.Statuses = append(r.Statuses, uint32(status))
		} else {
			r.On = append(r.On, httpReasons[reason])
		}
	}
	if len(r.On) == 0 && len(r.Statuses) == 0 { // methods alone are no reason
		r.On = []string{"gateway-error", "connect-failure", "refused-stream"}
	}
	r.Requests = append(r.Requests, headerMatches(h.RetriableRequestHeaders)...)
	for _, p := range h.HostSelection {
		switch p.Predicate {
		case "OmitPreviousHosts":
			r.AvoidTried = true
		case "OmitHostsWithTags":
			r.AvoidTags = append(r.AvoidTags, p.Tags)
		case "OmitPreviousPriorities":
			r.AvoidPriorities = uint32(max(1, p.UpdateFrequency))
		}
	}
	return r
}

// backOff has a base wherever there is one, which Envoy insists on, and none above
// the longest wait, which may be another policy's.
func backOff(b *api.BackOff) ir.BackOff {
	if b == nil {
		return ir.BackOff{}
	}
	out := ir.BackOff{Base: duration(b.BaseInterval).Or(ir.Span(25 * time.Millisecond)), Max: duration(b.MaxInterval)}
	if out.Max.Set {
		out.Base.Span = min(out.Base.Span, out.Max.Span)
	}
	return out
}

func resets(l *api.RateLimitedBackOff) ([]ir.Reset, ir.Duration) {
	if l == nil {
		return nil, ir.Duration{}
	}
	return convert(l.ResetHeaders, func(h api.ResetHeader) ir.Reset {
		return ir.Reset{Header: h.Name, Unix: h.Format == "UnixTimestamp"}
	}), duration(l.MaxInterval)
}

func headerMatches(list []api.HeaderMatch) []ir.HeaderMatch {
	return convert(list, func(h api.HeaderMatch) ir.HeaderMatch {
		return ir.HeaderMatch{Name: h.Name, Match: matchType(h.Type), Value: h.Value}
	})
}
