package bootstrap

import "github.com/atoll-mesh/atoll/api"

// MetricsPath is where the program next to Envoy asks for its [MetricsDocument],
// and where it gives out metrics to Envoy.
const MetricsPath = "/meshmetric"

// MetricsDocument is what the program next to Envoy shall do about metrics. The
// JSON names are those of the existing ecosystem.
type MetricsDocument struct {
	Observability struct {
		Metrics Metrics `json:"metrics"`
	} `json:"observability"`
}

// Metrics is whose metrics are given out, and to whom.
type Metrics struct {
	Applications []MetricsApplication `json:"applications,omitempty"`
	Backends     []MetricsBackend     `json:"backends,omitempty"`
	// Sidecar is which of Envoy's; nil: those of profile Basic that were counted.
	Sidecar *api.SidecarMetrics `json:"sidecar,omitempty"`
	// ExtraLabels are added to all.
	ExtraLabels map[string]string `json:"extraLabels,omitempty"`
}

// MetricsApplication is where an application gives out its own. Without an
// Address that is the one of the Dataplane.
type MetricsApplication struct {
	Name    string `json:"name,omitempty"`
	Path    string `json:"path"`
	Address string `json:"address,omitempty"`
	Port    uint32 `json:"port"`
}

// MetricsBackend is who gets metrics: Prometheus, which asks for them, or
// OpenTelemetry, which they are sent to.
type MetricsBackend struct {
	Type          string            `json:"type"`
	Name          string            `json:"name,omitempty"`
	OpenTelemetry *MetricsCollector `json:"openTelemetry,omitempty"`
}

// MetricsCollector takes OTLP over gRPC on the Unix socket Endpoint.
type MetricsCollector struct {
	Endpoint        string       `json:"endpoint"`
	RefreshInterval api.Duration `json:"refreshInterval,omitzero"`
}

// MetricsSocketName is [MetricsSocket] for an Envoy that runs in the work
// directory, see [FeatureInWorkDir].
const MetricsSocketName = "metrics.sock"

// MetricsSocket is where the program next to Envoy gives out metrics.
func MetricsSocket(workdir, name, mesh string) string {
	return socket(workdir, "kuma-mh-"+name+"-"+mesh)
}

// PushSocket is where Envoy takes metrics of the program next to it for the
// collector of the name, where that program does not send them itself.
func PushSocket(workdir, name string) string { return socket(workdir, "kuma-mm-"+name) }
