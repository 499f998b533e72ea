package api

import "strings"

// MeshOpenTelemetryBackend is a collector that policies send traces, logs and
// metrics to. The empty spec is valid: a collector beside the proxy.
type MeshOpenTelemetryBackend struct {
	Endpoint *TelemetryEndpoint `json:"endpoint,omitempty"`
	Protocol string             `json:"protocol,omitempty" enum:"grpc,http" default:"grpc"`
	Env      *TelemetryEnv      `json:"env,omitempty"`
}

// TelemetryEndpoint is where the collector listens.
type TelemetryEndpoint struct {
	// Address nil is the node of the proxy: its HOST_IP, else 127.0.0.1.
	Address *string `json:"address,omitempty" minLen:"1"`
	Port    int32   `json:"port,omitempty" min:"1" max:"65535" default:"4317"`
	// Path is put before /v1/traces, /v1/logs and /v1/metrics (HTTP only).
	Path string `json:"path,omitempty"`
}

// TelemetryEnv says what the environment variables OTEL_EXPORTER_OTLP_* of the
// proxy's keeper may decide.
type TelemetryEnv struct {
	Mode       string `json:"mode,omitempty" enum:"Disabled,Optional,Required" default:"Optional"`
	Precedence string `json:"precedence,omitempty" enum:"EnvFirst,ExplicitFirst" default:"EnvFirst"`
	// AllowSignalOverrides nil is true.
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
