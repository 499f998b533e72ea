package api

import (
	"net/http"
	"slices"
	"strconv"
)

// MeshRetry says when a call that failed is made again, how often and after
// which wait. Use it for calls that may safely be repeated; together with
// timeouts, which count all tries.
type MeshRetry struct {
	// The proxies that call; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Retries, by destination.
	To []MeshRetryTo `json:"to,omitempty"`
}

// MeshRetryTo is about calls to a destination.
type MeshRetryTo struct {
	// The destination: all of them (Mesh), services, or requests that take a
	// MeshHTTPRoute.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// The retries; entries that say more exactly which destination they mean
	// win, value by value.
	Default MeshRetryConf `json:"default,omitzero"`
}

// MeshRetryConf is by protocol; what is unset is not spoken of.
type MeshRetryConf struct {
	// For ports that speak tcp.
	TCP *RetryTCP `json:"tcp,omitempty"`
	// For ports that speak http or http2.
	HTTP *RetryHTTP `json:"http,omitempty"`
	// For ports that speak grpc.
	GRPC *RetryGRPC `json:"grpc,omitempty"`
}

// RetryTCP is about connections.
type RetryTCP struct {
	// How often connecting is tried altogether, the first time included, each
	// time to another endpoint if there is one. Absent: 1.
	MaxConnectAttempt *uint32 `json:"maxConnectAttempt,omitempty"`
}

// RetryHTTP is about requests; NumRetries 0 switches retries off.
type RetryHTTP struct {
	// Tries after the first one; 0 switches retries off. Absent: 1.
	NumRetries *uint32 `json:"numRetries,omitempty"`
	// How long one try may take before it counts as failed; less than
	// http.requestTimeout of MeshTimeout, which is about all tries. Absent: only
	// that.
	PerTryTimeout *Duration `json:"perTryTimeout,omitempty"`
	// How long to wait before the next try.
	BackOff *BackOff `json:"backOff,omitempty"`
	// How long to wait when the answer itself says it; then in place of backOff.
	RateLimitedBackOff *RateLimitedBackOff `json:"rateLimitedBackOff,omitempty"`
	// What counts as failed: 5xx, GatewayError (502, 503, 504), Reset,
	// ConnectFailure, RefusedStream, Retriable4xx (409), EnvoyRatelimited,
	// Http3PostConnectFailure, or a status such as "503". HttpMethodGet and the
	// like narrow it to these methods. Absent: GatewayError, ConnectFailure,
	// RefusedStream.
	RetryOn []string `json:"retryOn,omitempty"`
	// Headers of a response any of which makes it count as failed.
	RetriableResponseHeaders []HeaderMatch `json:"retriableResponseHeaders,omitempty"`
	// Only requests with any of these headers, or a method that retryOn names,
	// are tried again. Absent: all, or those with the methods.
	RetriableRequestHeaders []HeaderMatch `json:"retriableRequestHeaders,omitempty"`
	// Which endpoints a retry avoids. Absent: none.
	HostSelection []HostPredicate `json:"hostSelection,omitempty"`
	// How often another endpoint is drawn when one should be avoided, before it
	// is taken after all. Absent: 1.
	HostSelectionMaxAttempts *int `json:"hostSelectionMaxAttempts,omitempty"`
}

// RetryGRPC is about gRPC calls; NumRetries 0 switches retries off.
type RetryGRPC struct {
	// Tries after the first one; 0 switches retries off. Absent: 1.
	NumRetries *uint32 `json:"numRetries,omitempty"`
	// How long one try may take before it counts as failed; less than
	// http.requestTimeout of MeshTimeout, which is about all tries. Absent: only
	// that.
	PerTryTimeout *Duration `json:"perTryTimeout,omitempty"`
	// How long to wait before the next try.
	BackOff *BackOff `json:"backOff,omitempty"`
	// How long to wait when the answer itself says it; then in place of backOff.
	RateLimitedBackOff *RateLimitedBackOff `json:"rateLimitedBackOff,omitempty"`
	// Statuses of gRPC that count as failed. Absent: Canceled,
	// ResourceExhausted, Unavailable, and failures of the connection and gateway
	// errors.
	RetryOn []string `json:"retryOn,omitempty" items:"Canceled,DeadlineExceeded,Internal,ResourceExhausted,Unavailable"`
}

// BackOff is how long to wait before the next try.
type BackOff struct {
	// The wait is random, below this the first time and below twice as much each
	// further time. Absent: 25ms.
	BaseInterval *Duration `json:"baseInterval,omitempty"`
	// The longest wait. Absent: ten times baseInterval.
	MaxInterval *Duration `json:"maxInterval,omitempty"`
}

// RateLimitedBackOff is how long to wait when the server says how long.
type RateLimitedBackOff struct {
	// Headers of the response that may say when to come back; the first that is
	// there counts.
	ResetHeaders []ResetHeader `json:"resetHeaders,omitempty"`
	// A longer wait than this is not believed: then backOff counts. Absent: 5m.
	MaxInterval *Duration `json:"maxInterval,omitempty"`
}

// ResetHeader is the header in which the server says when to come back.
type ResetHeader struct {
	// The header, such as retry-after.
	Name string `json:"name" req:"true"`
	// Whether its value is a number of seconds to wait, or the time as seconds
	// since 1970.
	Format string `json:"format" req:"true" enum:"Seconds,UnixTimestamp"`
}

// HostPredicate says to which hosts a retry does not go.
type HostPredicate struct {
	// OmitPreviousHosts avoids endpoints that were tried, OmitHostsWithTags
	// those with the tags, OmitPreviousPriorities the priorities (zones) that
	// were tried.
	Predicate string `json:"predicate" req:"true" enum:"OmitPreviousHosts,OmitHostsWithTags,OmitPreviousPriorities"`
	// Tags of endpoints to avoid, all of them; for OmitHostsWithTags.
	Tags map[string]string `json:"tags,omitempty"`
	// After how many tries the priorities are looked at anew; for
	// OmitPreviousPriorities.
	UpdateFrequency int32 `json:"updateFrequency,omitempty" default:"2"`
}

// MeshRetries are written anywhere.
var MeshRetries = newKind(Kind[MeshRetry]{
	Facts: Facts{
		Name: "MeshRetry", Plural: "meshretries", Short: "mr", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateRetry,
})

func validateRetry(_ *Meta, s *MeshRetry, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService, RefHTTPRoute}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(at.At("default.conf")) // the segment is part of the contract
	}
}

func (c *MeshRetryConf) check(r *Report) {
	if c.TCP == nil && c.HTTP == nil && c.GRPC == nil {
		r.Add("at least one of the 'tcp', 'http', 'grpc' must be specified")
	}
	if t := c.TCP; t != nil {
		switch at := r.At("tcp"); {
		case t.MaxConnectAttempt == nil:
			at.Add("must not be empty")
		case *t.MaxConnectAttempt == 0:
			at.At("maxConnectAttempt").Add("must be greater than 0")
		}
	}
	if c.HTTP != nil {
		c.HTTP.check(r.At("http"))
	}
	if g := c.GRPC; g != nil {
		at := r.At("grpc")
		if g.NumRetries == nil && g.PerTryTimeout == nil && g.BackOff == nil && g.RateLimitedBackOff == nil && g.RetryOn == nil {
			at.Add("must not be empty")
		}
		checkAttempts(g.PerTryTimeout, g.BackOff, g.RateLimitedBackOff, at)
	}
}

func (h *RetryHTTP) check(r *Report) {
	if h.NumRetries == nil && h.PerTryTimeout == nil && h.BackOff == nil && h.RateLimitedBackOff == nil && h.RetryOn == nil &&
		h.RetriableResponseHeaders == nil && h.RetriableRequestHeaders == nil && h.HostSelection == nil {
		r.Add("must not be empty")
	}
	checkAttempts(h.PerTryTimeout, h.BackOff, h.RateLimitedBackOff, r)
	for i, item := range h.RetryOn {
		if !isHTTPRetryReason(item) {
			r.Index("retryOn", i).Add("unknown item '%s'", item)
		}
	}
	checkHeaderMatches("retriableResponseHeaders", h.RetriableResponseHeaders, r)
	checkHeaderMatches("retriableRequestHeaders", h.RetriableRequestHeaders, r)
	priorities := 0
	for i, p := range h.HostSelection {
		at := r.Index("hostSelection", i)
		switch {
		case p.Predicate == "OmitHostsWithTags" && len(p.Tags) == 0:
			at.At("tags").Add("must be defined")
		case p.Predicate == "OmitPreviousPriorities":
			if priorities++; priorities > 1 {
				at.At("predicate").Add("OmitPreviousPriorities must be used only once")
			}
			if p.UpdateFrequency <= 0 {
				at.At("updateFrequency").Add("must be greater than 0")
			}
		}
	}
}

// checkAttempts judges what HTTP and gRPC have in common.
func checkAttempts(perTry *Duration, wait *BackOff, limited *RateLimitedBackOff, r *Report) {
	checkPositive(perTry, r.At("perTryTimeout"))
	if wait != nil {
		at := r.At("backOff")
		if wait.BaseInterval == nil && wait.MaxInterval == nil {
			at.Add("must have at least one defined: baseInterval, maxInterval")
		}
		checkPositive(wait.BaseInterval, at.At("baseInterval"))
		checkPositive(wait.MaxInterval, at.At("maxInterval"))
	}
	if limited != nil {
		at := r.At("rateLimitedBackOff")
		if len(limited.ResetHeaders) == 0 {
			at.At("resetHeaders").Add("must be defined")
		}
		for i, h := range limited.ResetHeaders {
			if h.Name == "" {
				at.Index("resetHeaders", i).At("name").Add("must not be empty")
			}
		}
		checkPositive(limited.MaxInterval, at.At("maxInterval"))
	}
}

// httpRetryReasons are the names that MeshRetry's http.retryOn may list, beside
// status codes.
var httpRetryReasons = []string{
	"5xx", "GatewayError", "Reset", "Retriable4xx", "ConnectFailure", "EnvoyRatelimited", "RefusedStream", "Http3PostConnectFailure",
	"HttpMethodConnect", "HttpMethodDelete", "HttpMethodGet", "HttpMethodHead", "HttpMethodOptions", "HttpMethodPatch",
	"HttpMethodPost", "HttpMethodPut", "HttpMethodTrace",
}

func isHTTPRetryReason(item string) bool {
	code, err := strconv.Atoi(item)
	return slices.Contains(httpRetryReasons, item) || err == nil && http.StatusText(code) != ""
}
