package api

// MeshHealthCheck has proxies probe the endpoints that they call, beside the
// traffic, and leave out those that do not answer. Use it for services whose
// failures their own zone does not notice; each proxy probes each endpoint,
// which adds up.
type MeshHealthCheck struct {
	// The proxies that probe; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Probes, by destination.
	To []MeshHealthCheckTo `json:"to,omitempty"`
}

// MeshHealthCheckTo is about calls to a destination.
type MeshHealthCheckTo struct {
	// The destination: all of them (Mesh) or services.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// How it is probed; entries that say more exactly which destination they
	// mean win, value by value.
	Default MeshHealthCheckConf `json:"default,omitzero"`
}

// MeshHealthCheckConf leaves unset what it does not speak of. The protocol of
// the destination's port chooses the check: http and http2 that of http, grpc
// that of grpc, tcp that of tcp; where its own is there but disabled, that of
// tcp.
type MeshHealthCheckConf struct {
	_ struct{} `gone:"healthyPanicThreshold" use:"outlierDetection.healthyPanicThreshold of a MeshCircuitBreaker"`

	// Time between two probes of an endpoint. Absent: 1m.
	Interval *Duration `json:"interval,omitempty" above:"0"`
	// How long an answer may take before the probe counts as failed. Absent:
	// 15s.
	Timeout *Duration `json:"timeout,omitempty" above:"0"`
	// Failed probes in a row before an endpoint is left out; one is enough for
	// an unexpected status of HTTP. Absent: 5.
	UnhealthyThreshold *int32 `json:"unhealthyThreshold,omitempty" above:"0"`
	// Good probes in a row before an endpoint is used again. Absent: 1.
	HealthyThreshold *int32 `json:"healthyThreshold,omitempty" above:"0"`
	// The first probe is delayed at random up to so much. Absent: not at all.
	InitialJitter *Duration `json:"initialJitter,omitempty" above:"0"`
	// Every interval is longer at random by up to so much, so that proxies do
	// not probe in step. Absent: by nothing.
	IntervalJitter *Duration `json:"intervalJitter,omitempty" above:"0"`
	// The same as a share of the interval; both may be set and add up.
	IntervalJitterPercent *int32 `json:"intervalJitterPercent,omitempty" range:"0,100"`
	// The interval for destinations that were never called. Absent: 60s, Envoy's
	// own.
	NoTrafficInterval *Duration `json:"noTrafficInterval,omitempty" above:"0"`
	// A file beside the proxy in which Envoy notes changes of health, one JSON
	// object a line. Absent: none.
	EventLogPath *string `json:"eventLogPath,omitempty"`
	// Notes every failed probe in it, not only the first. Absent: false.
	AlwaysLogHealthCheckFailures *bool `json:"alwaysLogHealthCheckFailures,omitempty"`
	// Keeps one connection for all probes of an endpoint. Absent: true.
	ReuseConnection *bool `json:"reuseConnection,omitempty"`
	// When too few endpoints are healthy (the panic threshold of
	// MeshCircuitBreaker), refuses calls rather than use all endpoints. Absent:
	// false.
	FailTrafficOnPanic *bool `json:"failTrafficOnPanic,omitempty"`
	// The check of destinations that speak tcp.
	TCP *TCPHealthCheck `json:"tcp,omitempty"`
	// The check of destinations that speak http or http2.
	HTTP *HTTPHealthCheck `json:"http,omitempty"`
	// The check of destinations that speak grpc.
	GRPC *GRPCHealthCheck `json:"grpc,omitempty"`
}

// TCPHealthCheck connects; with Send and Receive it also speaks.
type TCPHealthCheck struct {
	// Switches the check off, where a wider policy switches it on.
	Disabled *bool `json:"disabled,omitempty"`
	// Text that is sent after connecting, as it is written here. Absent:
	// connecting is the whole probe.
	Send *string `json:"send,omitempty"`
	// Texts that must all be in the answer, in this order, as they are written
	// here. Absent: any answer is good.
	Receive []string `json:"receive,omitzero"`
}

// HTTPHealthCheck asks for a path. ExpectedStatuses empty is 200.
type HTTPHealthCheck struct {
	// Switches the check off, where a wider policy switches it on; a tcp check,
	// if there is one, takes its place.
	Disabled *bool `json:"disabled,omitempty"`
	// What is asked for with GET, such as /healthz. Absent: /.
	Path *string `json:"path,omitempty"`
	// Headers of the probes.
	RequestHeadersToAdd *HeaderAddition `json:"requestHeadersToAdd,omitempty"`
	// Statuses that are good. Absent: only 200.
	ExpectedStatuses []int32 `json:"expectedStatuses,omitzero"`
}

// GRPCHealthCheck calls grpc.health.v1.Health.
type GRPCHealthCheck struct {
	// Switches the check off, where a wider policy switches it on; a tcp check,
	// if there is one, takes its place.
	Disabled *bool `json:"disabled,omitempty"`
	// The service in the request of grpc.health.v1.Health. Absent: the server as
	// a whole.
	ServiceName *string `json:"serviceName,omitempty"`
	// The :authority of the request. Absent: the name of the Envoy cluster.
	Authority *string `json:"authority,omitempty"`
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
