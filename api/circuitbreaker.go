package api

import "strings"

// MeshCircuitBreaker bounds how much is open towards a destination at once
// (connectionLimits), and takes endpoints that fail out of use for a while
// (outlierDetection). Use it to keep one slow or broken service from dragging
// its callers down.
type MeshCircuitBreaker struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are configured; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Limits on calls that the proxies make, by destination.
	To []MeshCircuitBreakerTo `json:"to,omitempty"`
	// Limits on what the proxies pass to their own application.
	Rules []MeshCircuitBreakerRule `json:"rules,omitempty"`
}

// MeshCircuitBreakerTo is about calls to a destination.
type MeshCircuitBreakerTo struct {
	// The destination: all of them (Mesh) or services. Each proxy counts for
	// itself.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// The limits; entries that say more exactly which destination they mean win,
	// value by value.
	Default MeshCircuitBreakerConf `json:"default,omitzero"`
}

// MeshCircuitBreakerRule is about calls from anybody.
type MeshCircuitBreakerRule struct {
	// The limits, for all callers together.
	Default MeshCircuitBreakerConf `json:"default,omitzero"`
}

// MeshCircuitBreakerConf leaves unset what it does not speak of.
type MeshCircuitBreakerConf struct {
	// Bounds of what is open at the same time; beyond them Envoy answers 503 at
	// once, with the response flag UO.
	ConnectionLimits *ConnectionLimits `json:"connectionLimits,omitempty"`
	// Watches the calls to each endpoint and ejects endpoints that fail. Absent:
	// none are ejected.
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
}

// ConnectionLimits bounds what is open at the same time.
type ConnectionLimits struct {
	// TCP connections to all endpoints together. Absent: 1024.
	MaxConnections *uint32 `json:"maxConnections,omitempty" above:"0"`
	// Connection pools at once; matters only where pools are made per request.
	// Absent: no limit.
	MaxConnectionPools *uint32 `json:"maxConnectionPools,omitempty" above:"0"`
	// Requests that wait for a connection. Absent: 1024.
	MaxPendingRequests *uint32 `json:"maxPendingRequests,omitempty" above:"0"`
	// Retries under way at once, against storms of them. Absent: 3.
	MaxRetries *uint32 `json:"maxRetries,omitempty" above:"0"`
	// Requests under way at once, to all endpoints together. Absent: 1024.
	MaxRequests *uint32 `json:"maxRequests,omitempty" above:"0"`
}

// OutlierDetection takes endpoints out of use for a while that the detectors
// find.
type OutlierDetection struct {
	// Switches ejection off, where a wider policy switches it on.
	Disabled *bool `json:"disabled,omitempty"`
	// Time between two sweeps, which compare endpoints and let them return.
	// Absent: 10s.
	Interval *Duration `json:"interval,omitempty" above:"0"`
	// How long an endpoint stays out the first time; every time it goes again it
	// is longer by as much. Absent: 30s.
	BaseEjectionTime *Duration `json:"baseEjectionTime,omitempty" above:"0"`
	// The share of the endpoints that may be out at once. Absent: 10.
	MaxEjectionPercent *uint32 `json:"maxEjectionPercent,omitempty" range:"0,100"`
	// Counts errors of the network (timeouts, resets, refused connections) apart
	// from answers of the endpoint, for localOriginFailures and the rates.
	// Absent: they count together.
	SplitExternalAndLocalErrors *bool `json:"splitExternalAndLocalErrors,omitempty"`
	// What counts as failing; a detector that is absent is off.
	Detectors *Detectors `json:"detectors,omitempty"`
	// When fewer percent of the endpoints than this are healthy, Envoy uses all,
	// healthy or not; 0 never does. Absent: 50.
	HealthyPanicThreshold *IntOrString `json:"healthyPanicThreshold,omitempty" range:"0,100"`
}

// Detectors are the signs of an endpoint that fails; at least one.
type Detectors struct {
	// Answers with a 5xx in a row, and failures of the network unless these are
	// counted apart.
	TotalFailures *ConsecutiveFailures `json:"totalFailures,omitempty"`
	// Answers with 502, 503 or 504 in a row.
	GatewayFailures *ConsecutiveFailures `json:"gatewayFailures,omitempty"`
	// Failures of the network in a row; only if splitExternalAndLocalErrors is
	// true.
	LocalOriginFailures *ConsecutiveFailures `json:"localOriginFailures,omitempty"`
	// A success rate far below that of the other endpoints.
	SuccessRate *SuccessRate `json:"successRate,omitempty"`
	// A fixed share of failures.
	FailurePercentage *FailurePercentage `json:"failurePercentage,omitempty"`
}

// ConsecutiveFailures is a number of failures in a row.
type ConsecutiveFailures struct {
	// Failures in a row before the endpoint goes. Absent: 5.
	Consecutive *uint32 `json:"consecutive,omitempty" above:"0"`
}

// SuccessRate compares an endpoint with the others.
type SuccessRate struct {
	// How many endpoints must have had enough requests for a comparison to mean
	// anything. Absent: 5.
	MinimumHosts *uint32 `json:"minimumHosts,omitempty" above:"0"`
	// How many requests in one interval are enough for an endpoint to be judged.
	// Absent: 100.
	RequestVolume *uint32 `json:"requestVolume,omitempty" above:"0"`
	// An endpoint goes when its rate is below the mean by so many standard
	// deviations, such as "1.9", which is what absence means.
	StandardDeviationFactor *IntOrString `json:"standardDeviationFactor,omitempty" above:"0"`
}

// FailurePercentage is a share of failures.
type FailurePercentage struct {
	// How many endpoints must have had enough requests for any to go. Absent: 5.
	MinimumHosts *uint32 `json:"minimumHosts,omitempty" above:"0"`
	// How many requests in one interval are enough for an endpoint to be judged.
	// Absent: 50.
	RequestVolume *uint32 `json:"requestVolume,omitempty" above:"0"`
	// An endpoint goes when at least so many percent of its requests failed.
	// Absent: 85.
	Threshold *uint32 `json:"threshold,omitempty" range:"0,100"`
}

// MeshCircuitBreakers are written anywhere.
var MeshCircuitBreakers = newKind(Kind[MeshCircuitBreaker]{
	Facts: Facts{
		Name: "MeshCircuitBreaker", Plural: "meshcircuitbreakers", Short: "mcb", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true, Rules: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateCircuitBreaker,
	Place:    func(path string) string { return strings.Replace(path, "spec.rules[", "spec.from[", 1) },
})

func validateCircuitBreaker(_ *Meta, s *MeshCircuitBreaker, r *Report) {
	checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
	if len(s.To) == 0 && len(s.Rules) == 0 {
		r.Add("at least one of 'to' or 'rules' has to be defined")
	}
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
	for i, rule := range s.Rules {
		rule.Default.check(r.Index("rules", i).At("default"))
	}
}

func (c *MeshCircuitBreakerConf) check(r *Report) {
	if c.ConnectionLimits == nil && c.OutlierDetection == nil {
		r.Add("at least one of: 'connectionLimits' or 'outlierDetection' should be configured")
	}
	if c.OutlierDetection == nil {
		return
	}
	at := r.At("outlierDetection.detectors")
	switch d := c.OutlierDetection.Detectors; {
	case d == nil:
		at.Add("must be defined")
	case *d == Detectors{}:
		at.Add("must have at least one defined: totalFailures, gatewayFailures, localOriginFailures, successRate, failurePercentage")
	}
}
