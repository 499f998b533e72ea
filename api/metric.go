package api

import "regexp"

// MeshMetric says who may read or gets the metrics of proxies and of the
// applications beside them.
type MeshMetric struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef     `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	Default   MeshMetricConf `json:"default,omitzero"`
}

// MeshMetricConf leaves unset what it does not speak of.
type MeshMetricConf struct {
	Sidecar      *SidecarMetrics      `json:"sidecar,omitempty"`
	Applications []ApplicationMetrics `json:"applications,omitzero"`
	Backends     []MetricBackend      `json:"backends,omitzero"`
}

// SidecarMetrics says which of Envoy's metrics are given out.
type SidecarMetrics struct {
	// IncludeUnused gives out what was never counted as well.
	IncludeUnused *bool           `json:"includeUnused,omitempty"`
	Profiles      *MetricProfiles `json:"profiles,omitempty"`
}

// MetricProfiles: the broadest profile counts; Exclude takes from it, Include
// puts back.
type MetricProfiles struct {
	AppendProfiles []MetricProfile  `json:"appendProfiles,omitzero"`
	Exclude        []MetricSelector `json:"exclude,omitzero"`
	Include        []MetricSelector `json:"include,omitzero"`
}

// MetricProfile is a set of metrics by name.
type MetricProfile struct {
	Name string `json:"name" req:"true" enum:"All,Basic,None"`
}

// MetricSelector selects metrics by their names.
type MetricSelector struct {
	Type  string `json:"type" req:"true" enum:"Prefix,Regex,Exact,Contains"`
	Match string `json:"match" req:"true"`
}

// ApplicationMetrics is where an application gives out its own metrics.
type ApplicationMetrics struct {
	Name string `json:"name,omitempty"`
	Path string `json:"path" default:"/metrics"`
	// Address empty is the address of the Dataplane.
	Address string `json:"address,omitempty"`
	Port    uint32 `json:"port" req:"true" min:"1" max:"65535"`
}

// MetricBackend is who gets metrics; the member named by Type is set.
type MetricBackend struct {
	Type          string             `json:"type" req:"true" enum:"Prometheus,OpenTelemetry"`
	Prometheus    *PrometheusMetrics `json:"prometheus,omitempty" when:"Prometheus"`
	OpenTelemetry *CollectorMetrics  `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// PrometheusMetrics lets Prometheus read from the proxy.
type PrometheusMetrics struct {
	// ClientID is who discovers the proxies of this backend; empty is all.
	ClientID string         `json:"clientId,omitempty"`
	Port     uint32         `json:"port,omitempty" min:"1" max:"65535" default:"5670"`
	Path     string         `json:"path" default:"/metrics"`
	TLS      *PrometheusTLS `json:"tls,omitempty"`
}

// PrometheusTLS says which certificate Prometheus is shown. ActiveMTLSBackend
// is Disabled: there is no mesh-wide certificate any more.
type PrometheusTLS struct {
	Mode string `json:"mode,omitempty" enum:"Disabled,ProvidedTLS,ActiveMTLSBackend" default:"Disabled"`
}

// CollectorMetrics sends metrics by OTLP.
type CollectorMetrics struct {
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// Endpoint is the older form, host:port of a collector that speaks gRPC.
	Endpoint        string   `json:"endpoint,omitempty"`
	RefreshInterval Duration `json:"refreshInterval,omitzero" above:"0" default:"1m"`
}

// MeshMetrics are written anywhere.
var MeshMetrics = newKind(Kind[MeshMetric]{
	Facts: Facts{
		Name: "MeshMetric", Plural: "meshmetrics", Short: "mm", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Single: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateMetric,
	Place: func(path string) string {
		return metricBackendPath.ReplaceAllString(path, "spec.default.backends.backend$1")
	},
})

// metricBackendPath is the path of a backend's member that is missing.
var metricBackendPath = regexp.MustCompile(`^spec\.default\.backends(\[\d+\]\.\w+)$`)

func validateMetric(_ *Meta, s *MeshMetric, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	r = r.At("default")
	if s.Default.Sidecar != nil && s.Default.Sidecar.Profiles != nil {
		at := r.At("sidecar.profiles")
		checkMetricSelectors("exclude", s.Default.Sidecar.Profiles.Exclude, at)
		checkMetricSelectors("include", s.Default.Sidecar.Profiles.Include, at)
	}
	for i, b := range s.Default.Backends {
		if o := b.OpenTelemetry; o != nil {
			checkCollector(o.BackendRef, o.Endpoint, r.Index("backends", i).At("openTelemetry"))
		}
	}
}

func checkMetricSelectors(field string, list []MetricSelector, r *Report) {
	for i, s := range list {
		if s.Type == "Regex" {
			checkRegex(s.Match, r.Index(field, i).At("match"))
		}
	}
}
