package ir

// HealthCheck probes every endpoint of a cluster beside the traffic; those that do not answer are not used. Exactly one of
// HTTP, GRPC and TCP is set.
type HealthCheck struct {
	Interval              Duration   `json:"interval,omitzero"`
	Timeout               Duration   `json:"timeout,omitzero"`
	Unhealthy             uint32     `json:"unhealthy,omitempty"` // failed probes in a row until an endpoint is left out
	Healthy               uint32     `json:"healthy,omitempty"`   // good probes in a row until it is used again
	InitialJitter         Duration   `json:"initialJitter,omitzero"`
	IntervalJitter        Duration   `json:"intervalJitter,omitzero"`
	IntervalJitterPercent uint32     `json:"intervalJitterPercent,omitempty"`
	NoTrafficInterval     Duration   `json:"noTrafficInterval,omitzero"`
	EventLog              string     `json:"eventLog,omitempty"` // path of a file
	LogEveryFailure       bool       `json:"logEveryFailure,omitempty"`
	ReuseConnection       Switch     `json:"reuseConnection,omitempty"`
	FailOnPanic           bool       `json:"failOnPanic,omitempty"` // calls are refused while too few endpoints are healthy
	HTTP                  *HTTPCheck `json:"http,omitempty"`
	GRPC                  *GRPCCheck `json:"grpc,omitempty"`
	TCP                   *TCPCheck  `json:"tcp,omitempty"`
}

// HTTPCheck asks for a path.
type HTTPCheck struct {
	Path     string       `json:"path"`
	HTTP2    bool         `json:"http2,omitempty"`
	Headers  HeaderChange `json:"headers,omitzero"`
	Statuses []uint32     `json:"statuses,omitempty"` // good ones; empty: 200
}

// GRPCCheck calls grpc.health.v1.Health.
type GRPCCheck struct {
	Service   string `json:"service,omitempty"`
	Authority string `json:"authority,omitempty"`
}

// TCPCheck connects, sends and waits for what must be in the answer, in this order.
type TCPCheck struct {
	Send    string   `json:"send,omitempty"`
	Receive []string `json:"receive,omitempty"`
}
