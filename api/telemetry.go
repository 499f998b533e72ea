package api

import "strings"

// MeshOpenTelemetryBackend is a collector that MeshTrace, MeshMetric and
// MeshAccessLog send to, by reference, so that its address stands in one place.
// The empty spec is valid: a collector on the node of each proxy.
type MeshOpenTelemetryBackend struct {
	// Where the collector listens; absent: as its fields say.
	Endpoint *TelemetryEndpoint `json:"endpoint,omitempty"`
	// How OTLP is spoken; https is http with port 443.
	Protocol string `json:"protocol,omitempty" enum:"grpc,http" default:"grpc"`
	// What the environment of each proxy may decide; absent: as its fields say.
	Env *TelemetryEnv `json:"env,omitempty"`
}

// TelemetryEndpoint is where the collector listens.
type TelemetryEndpoint struct {
	// An IP address or a DNS name. Absent: the node of the proxy, its HOST_IP,
	// else 127.0.0.1.
	Address *string `json:"address,omitempty" minLen:"1"`
	// The port of the collector.
	Port int32 `json:"port,omitempty" min:"1" max:"65535" default:"4317"`
	// What is put before /v1/traces, /v1/logs and /v1/metrics, such as /otlp;
	// with protocol http only.
	Path string `json:"path,omitempty"`
}

// TelemetryEnv says what the environment variables OTEL_EXPORTER_OTLP_* of the
// proxy's keeper may decide.
type TelemetryEnv struct {
	// Whether OTEL_EXPORTER_OTLP_* of the proxy's environment is ignored, used
	// if it is there, or needed: without it nothing is sent.
	Mode string `json:"mode,omitempty" enum:"Disabled,Optional,Required" default:"Optional"`
	// Which of the two counts where both say something: the environment, or this
	// resource.
	Precedence string `json:"precedence,omitempty" enum:"EnvFirst,ExplicitFirst" default:"EnvFirst"`
	// Whether variables of one signal, such as
	// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, count too. Absent: true.
	AllowSignalOverrides *bool `json:"allowSignalOverrides,omitempty"`
}

// MeshOpenTelemetryBackends are written anywhere.
var MeshOpenTelemetryBackends = newKind(Kind[MeshOpenTelemetryBackend]{
	Facts: Facts{
		Name: "MeshOpenTelemetryBackend", Plural: "meshopentelemetrybackends", Short: "motb", Scope: MeshScope, Flow: Down | Up,
	},
	Validate: func(_ *Meta, s *MeshOpenTelemetryBackend, r *Report) {
		e := s.Endpoint
		if e == nil {
			return
		}
		at := r.At("endpoint")
		if e.Address != nil {
			checkHost(*e.Address, at.At("address"))
		}
		switch {
		case e.Path == "":
		case s.Protocol != "http":
			at.At("path").Add("can only be set with protocol http")
		case !strings.HasPrefix(e.Path, "/") || strings.ContainsAny(e.Path, "?#"):
			at.At("path").Add("must start with '/' and must not contain '?' or '#'")
		}
	},
})
