package bootstrap

import (
	"path"

	"github.com/atoll-mesh/atoll/api"
)

// What the program next to Envoy has to know and may change while it runs, comes
// to it through Envoy: a listener at a socket in the work directory answers GET
// with it, as JSON, and an ETag.

// DynamicSocketName is the name of that socket in the work directory.
const DynamicSocketName = "kuma-mesh-metric-config.sock"

// DynamicSocket is the socket under a work directory.
func DynamicSocket(workdir string) string { return path.Join(workdir, DynamicSocketName) }

// Paths of that listener. What is not there is not wanted.
const (
	DNSPath       = "/dns"
	CollectorPath = "/otel"
)

// DNSConfig is the names that are answered on the host of a proxy.
type DNSConfig struct {
	Records []DNSRecord `json:"records"` // sorted by name
	// TTL of the answers, in seconds.
	TTL uint32 `json:"ttl"`
	// ExtraLabels are for metrics of who answers.
	ExtraLabels map[string]string `json:"extraLabels,omitempty"`
}

// DNSRecord is a name, without the dot at its end, and its addresses of both
// families.
type DNSRecord struct {
	Name string   `json:"name"`
	IPs  []string `json:"ips"`
}

// CollectorConfig is the collectors of OpenTelemetry that Envoy sends to by way of
// the program next to it.
type CollectorConfig struct {
	Backends []CollectorBackend `json:"backends"` // sorted by name
}

// CollectorBackend is one of them.
type CollectorBackend struct {
	Name string `json:"name"`
	// SocketPath is where Envoy sends to, by gRPC; relative to the work directory if
	// Envoy runs in it.
	SocketPath string `json:"socketPath"`
	// Endpoint is host:port of the collector. Without a host it is on the node.
	Endpoint string `json:"endpoint"`
	// UseHTTP: OTLP over HTTP, else gRPC; UseHTTPS: with TLS.
	UseHTTP  bool `json:"useHTTP"`
	UseHTTPS bool `json:"useHTTPS"`
	// Path stands before /v1/traces, /v1/logs and /v1/metrics.
	Path string          `json:"path,omitempty"`
	Env  CollectorPolicy `json:"envPolicy"`

	Traces  *CollectorSignal `json:"traces,omitempty"`
	Logs    *CollectorSignal `json:"logs,omitempty"`
	Metrics *CollectorSignal `json:"metrics,omitempty"`
}

// CollectorPolicy is what the environment of the program may decide, in the words
// of a MeshOpenTelemetryBackend.
type CollectorPolicy struct {
	Mode                 string `json:"mode"`
	Precedence           string `json:"precedence"`
	AllowSignalOverrides bool   `json:"allowSignalOverrides"`
}

// CollectorSignal says whether a collector gets a signal.
type CollectorSignal struct {
	Enabled bool `json:"enabled"`
	// RefreshInterval is the time between two deliveries of metrics, for programs
	// that are not told it at [MetricsPath].
	RefreshInterval api.Duration `json:"refreshInterval,omitzero"`
}
