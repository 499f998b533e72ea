package api

// MeshHealthCheck has proxies ask the endpoints that they call whether they are
// well.
type MeshHealthCheck struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef          `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshHealthCheckTo `json:"to,omitempty"`
}

// MeshHealthCheckTo is about calls to a destination.
type MeshHealthCheckTo struct {
	TargetRef TargetRef           `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshHealthCheckConf `json:"default,omitzero"`
}

// MeshHealthCheckConf leaves unset what it does not speak of. The protocol of
// the destination says which of the checks is made.
type MeshHealthCheckConf struct {
	_ struct{} `gone:"healthyPanicThreshold" use:"outlierDetection.healthyPanicThreshold of a MeshCircuitBreaker"`

	Interval           *Duration `json:"interval,omitempty" above:"0"`
	Timeout            *Duration `json:"timeout,omitempty" above:"0"`
	UnhealthyThreshold *int32    `json:"unhealthyThreshold,omitempty" above:"0"`
	HealthyThreshold   *int32    `json:"healthyThreshold,omitempty" above:"0"`
	// InitialJitter delays the first check, IntervalJitter and
	// IntervalJitterPercent every other, at random up to so much.
	InitialJitter         *Duration `json:"initialJitter,omitempty" above:"0"`
	IntervalJitter        *Duration `json:"intervalJitter,omitempty" above:"0"`
	IntervalJitterPercent *int32    `json:"intervalJitterPercent,omitempty" range:"0,100"`
	// NoTrafficInterval is the interval for what was never called.
	NoTrafficInterval            *Duration        `json:"noTrafficInterval,omitempty" above:"0"`
	EventLogPath                 *string          `json:"eventLogPath,omitempty"`
	AlwaysLogHealthCheckFailures *bool            `json:"alwaysLogHealthCheckFailures,omitempty"`
	ReuseConnection              *bool            `json:"reuseConnection,omitempty"`
	FailTrafficOnPanic           *bool            `json:"failTrafficOnPanic,omitempty"`
	TCP                          *TCPHealthCheck  `json:"tcp,omitempty"`
	HTTP                         *HTTPHealthCheck `json:"http,omitempty"`
	GRPC                         *GRPCHealthCheck `json:"grpc,omitempty"`
}

// TCPHealthCheck connects; with Send and Receive it also speaks.
type TCPHealthCheck struct {
	Disabled *bool    `json:"disabled,omitempty"`
	Send     *string  `json:"send,omitempty"`
	Receive  []string `json:"receive,omitzero"`
}

// HTTPHealthCheck asks for a path. ExpectedStatuses empty is 200.
type HTTPHealthCheck struct {
	Disabled            *bool           `json:"disabled,omitempty"`
	Path                *string         `json:"path,omitempty"`
	RequestHeadersToAdd *HeaderAddition `json:"requestHeadersToAdd,omitempty"`
	ExpectedStatuses    []int32         `json:"expectedStatuses,omitzero"`
}

// GRPCHealthCheck calls grpc.health.v1.Health.
type GRPCHealthCheck struct {
	Disabled    *bool   `json:"disabled,omitempty"`
	ServiceName *string `json:"serviceName,omitempty"`
	Authority   *string `json:"authority,omitempty"`
}

// MeshHealthChecks are written anywhere.
var MeshHealthChecks = newKind(Kind[MeshHealthCheck]{
	Facts: Facts{
		Name: "MeshHealthCheck", Plural: "meshhealthchecks", Short: "mhc", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateHealthCheck,
})

func validateHealthCheck(_ *Meta, s *MeshHealthCheck, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
}

func (c *MeshHealthCheckConf) check(r *Report) {
	if c.HTTP == nil && c.TCP == nil && c.GRPC == nil {
		r.Add("must have at least one defined: http, tcp, grpc")
	}
	if c.HTTP == nil {
		return
	}
	at := r.At("http")
	if c.HTTP.Path != nil && *c.HTTP.Path == "" {
		at.At("path").Add("must not be empty")
	}
	for i, status := range c.HTTP.ExpectedStatuses {
		if status < 100 || status > 599 {
			at.Index("expectedStatuses", i).Add("must be in inclusive range [100, 599]")
		}
	}
}
