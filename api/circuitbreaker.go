package api

import "strings"

// MeshCircuitBreaker limits how much a destination gets, and takes endpoints
// out that fail.
type MeshCircuitBreaker struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef               `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshCircuitBreakerTo   `json:"to,omitempty"`
	Rules     []MeshCircuitBreakerRule `json:"rules,omitempty"`
}

// MeshCircuitBreakerTo is about calls to a destination.
type MeshCircuitBreakerTo struct {
	TargetRef TargetRef              `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshCircuitBreakerConf `json:"default,omitzero"`
}

// MeshCircuitBreakerRule is about calls from anybody.
type MeshCircuitBreakerRule struct {
	Default MeshCircuitBreakerConf `json:"default,omitzero"`
}

// MeshCircuitBreakerConf leaves unset what it does not speak of.
type MeshCircuitBreakerConf struct {
	ConnectionLimits *ConnectionLimits `json:"connectionLimits,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
}

// ConnectionLimits bounds what is open at the same time.
type ConnectionLimits struct {
	MaxConnections     *uint32 `json:"maxConnections,omitempty" above:"0"`
	MaxConnectionPools *uint32 `json:"maxConnectionPools,omitempty" above:"0"`
	MaxPendingRequests *uint32 `json:"maxPendingRequests,omitempty" above:"0"`
	MaxRetries         *uint32 `json:"maxRetries,omitempty" above:"0"`
	MaxRequests        *uint32 `json:"maxRequests,omitempty" above:"0"`
}

// OutlierDetection takes endpoints out for a while that the detectors find.
type OutlierDetection struct {
	Disabled *bool `json:"disabled,omitempty"`
	// Interval is the time between two looks, BaseEjectionTime how long an
	// endpoint stays out, times how often it went.
	Interval         *Duration `json:"interval,omitempty" above:"0"`
	BaseEjectionTime *Duration `json:"baseEjectionTime,omitempty" above:"0"`
	// MaxEjectionPercent is how many of the endpoints may be out.
	MaxEjectionPercent          *uint32    `json:"maxEjectionPercent,omitempty" range:"0,100"`
	SplitExternalAndLocalErrors *bool      `json:"splitExternalAndLocalErrors,omitempty"`
	Detectors                   *Detectors `json:"detectors,omitempty"`
	// HealthyPanicThreshold is the percentage of healthy endpoints below which
	// all are used.
	HealthyPanicThreshold *IntOrString `json:"healthyPanicThreshold,omitempty" range:"0,100"`
}

// Detectors are the signs of an endpoint that fails; at least one.
type Detectors struct {
	TotalFailures       *ConsecutiveFailures `json:"totalFailures,omitempty"`
	GatewayFailures     *ConsecutiveFailures `json:"gatewayFailures,omitempty"`
	LocalOriginFailures *ConsecutiveFailures `json:"localOriginFailures,omitempty"`
	SuccessRate         *SuccessRate         `json:"successRate,omitempty"`
	FailurePercentage   *FailurePercentage   `json:"failurePercentage,omitempty"`
}

// ConsecutiveFailures is a number of failures in a row.
type ConsecutiveFailures struct {
	Consecutive *uint32 `json:"consecutive,omitempty" above:"0"`
}

// SuccessRate compares an endpoint with the others.
type SuccessRate struct {
	MinimumHosts            *uint32      `json:"minimumHosts,omitempty" above:"0"`
	RequestVolume           *uint32      `json:"requestVolume,omitempty" above:"0"`
	StandardDeviationFactor *IntOrString `json:"standardDeviationFactor,omitempty" above:"0"`
}

// FailurePercentage is a share of failures.
type FailurePercentage struct {
	MinimumHosts  *uint32 `json:"minimumHosts,omitempty" above:"0"`
	RequestVolume *uint32 `json:"requestVolume,omitempty" above:"0"`
	Threshold     *uint32 `json:"threshold,omitempty" range:"0,100"`
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
