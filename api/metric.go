package api

import "regexp"

// MeshMetric says who gets the metrics of proxies and of the applications
// beside them: Prometheus reads them from a port of the proxy, or they are sent
// to a collector. Without it none are given out.
type MeshMetric struct {
	// The proxies that are configured; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Which metrics, and for whom; policies that select a proxy more exactly
	// win, value by value.
	Default MeshMetricConf `json:"default,omitzero"`
}

// MeshMetricConf leaves unset what it does not speak of.
type MeshMetricConf struct {
	// Which of Envoy's metrics are given out. Absent: those of profile Basic
	// that were counted.
	Sidecar *SidecarMetrics `json:"sidecar,omitempty"`
	// Where applications beside the proxy give out metrics of their own, which
	// are passed on together with Envoy's.
	Applications []ApplicationMetrics `json:"applications,omitzero"`
	// Who gets the metrics. Absent or []: nobody.
	Backends []MetricBackend `json:"backends,omitzero"`
}

// SidecarMetrics says which of Envoy's metrics are given out.
type SidecarMetrics struct {
	// Gives out what was never counted as well. Absent: false.
	IncludeUnused *bool `json:"includeUnused,omitempty"`
	// Which metrics by name. Absent: profile Basic.
	Profiles *MetricProfiles `json:"profiles,omitempty"`
}

// MetricProfiles: the broadest profile counts; Exclude takes from it, Include
// puts back.
type MetricProfiles struct {
	// Sets of metrics; those of all policies are collected and the broadest
	// counts. Absent: Basic.
	AppendProfiles []MetricProfile `json:"appendProfiles,omitzero"`
	// Takes metrics from the profile.
	Exclude []MetricSelector `json:"exclude,omitzero"`
	// Puts metrics back, whatever the profile and exclude say.
	Include []MetricSelector `json:"include,omitzero"`
}

// MetricProfile is a set of metrics by name.
type MetricProfile struct {
	// Basic is what dashboards and alerts use; None is for lists of your own,
	// with include.
	Name string `json:"name" req:"true" enum:"All,Basic,None"`
}

// MetricSelector selects metrics by their names.
type MetricSelector struct {
	// How the name is compared; Regex is RE2.
	Type string `json:"type" req:"true" enum:"Prefix,Regex,Exact,Contains"`
	// A name as Prometheus sees it, such as envoy_cluster_upstream_rq_total, or
	// a part of it, or an expression.
	Match string `json:"match" req:"true"`
}

// ApplicationMetrics is where an application gives out its own metrics.
type ApplicationMetrics struct {
	// Tells several applications beside one proxy apart. Absent: none.
	Name string `json:"name,omitempty"`
	// What is asked for by HTTP, in the format of Prometheus.
	Path string `json:"path" default:"/metrics"`
	// Where the application listens; absent: at the address of the Dataplane.
	Address string `json:"address,omitempty"`
	// The port of the application.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
}

// MetricBackend is who gets metrics; the member named by Type is set.
type MetricBackend struct {
	// Which of the members says who gets metrics.
	Type string `json:"type" req:"true" enum:"Prometheus,OpenTelemetry"`
	// Prometheus reads them from a port of the proxy.
	Prometheus *PrometheusMetrics `json:"prometheus,omitempty" when:"Prometheus"`
	// They are sent to a MeshOpenTelemetryBackend.
	OpenTelemetry *CollectorMetrics `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// PrometheusMetrics lets Prometheus read from the proxy.
type PrometheusMetrics struct {
	// The Prometheus that discovers the proxies of this backend, by the
	// client_id of its discovery configuration. Absent: any.
	ClientID string `json:"clientId,omitempty"`
	// The port that the proxy opens; it must be free on every host that is
	// selected.
	Port uint32 `json:"port,omitempty" min:"1" max:"65535" default:"5670"`
	// What Prometheus asks for.
	Path string `json:"path" default:"/metrics"`
	// How the port is protected; absent: not at all.
	TLS *PrometheusTLS `json:"tls,omitempty"`
}

// PrometheusTLS says which certificate Prometheus is shown. ActiveMTLSBackend
// is Disabled: there is no mesh-wide certificate any more.
type PrometheusTLS struct {
	// ProvidedTLS takes the certificate that the proxy was started with.
	// ActiveMTLSBackend is Disabled: there is no mesh-wide certificate any more.
	Mode string `json:"mode,omitempty" enum:"Disabled,ProvidedTLS,ActiveMTLSBackend" default:"Disabled"`
}

// CollectorMetrics sends metrics by OTLP.
type CollectorMetrics struct {
	// The MeshOpenTelemetryBackend that gets the metrics.
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// The older form: host:port of a collector that speaks gRPC. Use backendRef.
	Endpoint string `json:"endpoint,omitempty"`
	// Time between two deliveries.
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
