package api

import (
	"encoding/json"
	"time"
)

// DataplaneInsight is what a zone knows of the proxy of a Dataplane: its
// connections, what it took and refused, its certificate and its versions.
type DataplaneInsight struct {
	// Connections of the proxy, the newest last; only the last few are kept.
	Subscriptions []DataplaneSubscription `json:"subscriptions,omitempty"`
	// The certificate that the proxy has; absent: none.
	MTLS *DataplaneMTLS `json:"mTLS,omitempty"`
	// The node metadata that Envoy sent, as it is.
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// Which telemetry backends the proxy sends to.
	OpenTelemetry *OpenTelemetryInfo `json:"openTelemetry,omitempty"`
	// Statements about the proxy, such as why it has no identity.
	Conditions []Condition `json:"conditions,omitempty"`
	// What Envoy refuses at the moment, and why.
	Rejected []RejectedResource `json:"rejected,omitempty"`
}

// RejectedResource is a resource that Envoy, or a control plane, did not take.
type RejectedResource struct {
	// The type of the resource: a type URL of xDS, or a kind.
	Type string `json:"type"`
	// The name of the resource. Absent: not known, the answer named none.
	Name string `json:"name,omitempty"`
	// The version that was refused.
	Version string `json:"version,omitempty"`
	// What the receiver said.
	Reason string `json:"reason,omitempty"`
}

// DataplaneSubscription is one connection of a proxy. It is online while it has
// a ConnectTime and no DisconnectTime.
type DataplaneSubscription struct {
	// Unique to the connection.
	ID string `json:"id"`
	// The instance of the control plane that it is connected to.
	ControlPlaneInstanceID string `json:"controlPlaneInstanceId,omitempty"`
	// When the connection was opened.
	ConnectTime *time.Time `json:"connectTime,omitempty"`
	// When the connection ended; absent: it is open.
	DisconnectTime *time.Time `json:"disconnectTime,omitempty"`
	// Grows with every change of the subscription at its instance.
	Generation uint32 `json:"generation,omitempty"`
	// What was sent over the connection, and what came back.
	Status DataplaneDiscoveryStatus `json:"status,omitzero"`
	// What runs next to the workload.
	Version *DataplaneVersion `json:"version,omitempty"`
}

// Online reports whether the connection is open.
func (s DataplaneSubscription) Online() bool { return s.ConnectTime != nil && s.DisconnectTime == nil }

// DataplaneDiscoveryStatus counts what was sent, by type.
type DataplaneDiscoveryStatus struct {
	// When any count changed last.
	LastUpdateTime *time.Time `json:"lastUpdateTime,omitempty"`
	// All types together.
	Total DiscoveryStats `json:"total,omitzero"`
	// Clusters.
	CDS DiscoveryStats `json:"cds,omitzero"`
	// Endpoints.
	EDS DiscoveryStats `json:"eds,omitzero"`
	// Listeners.
	LDS DiscoveryStats `json:"lds,omitzero"`
	// Routes.
	RDS DiscoveryStats `json:"rds,omitzero"`
}

// DiscoveryStats counts responses.
type DiscoveryStats struct {
	// Messages that were sent.
	ResponsesSent Uint64 `json:"responsesSent,omitempty"`
	// Messages that the receiver took.
	ResponsesAcknowledged Uint64 `json:"responsesAcknowledged,omitempty"`
	// Messages that the receiver refused.
	ResponsesRejected Uint64 `json:"responsesRejected,omitempty"`
}

// DataplaneVersion is what runs next to the workload.
type DataplaneVersion struct {
	// The program that keeps Envoy running.
	KumaDP *KumaDPVersion `json:"kumaDp,omitempty"`
	// Envoy itself.
	Envoy *EnvoyVersion `json:"envoy,omitempty"`
	// Versions of what else runs beside them, such as the DNS server, by name.
	Dependencies map[string]string `json:"dependencies,omitempty"`
}

// KumaDPVersion is the version of the proxy's keeper.
type KumaDPVersion struct {
	// The release, such as 2.14.3.
	Version string `json:"version,omitempty"`
	// The tag that it was built from.
	GitTag string `json:"gitTag,omitempty"`
	// The commit that it was built from.
	GitCommit string `json:"gitCommit,omitempty"`
	// When it was built, as text.
	BuildDate string `json:"buildDate,omitempty"`
	// Whether it may be used with this control plane.
	KumaCPCompatible bool `json:"kumaCpCompatible,omitempty"`
}

// EnvoyVersion is the version of Envoy.
type EnvoyVersion struct {
	// The release, such as 1.40.0.
	Version string `json:"version,omitempty"`
	// The commit and the options that it was built with.
	Build string `json:"build,omitempty"`
	// Whether it may be used with the program that keeps it.
	KumaDPCompatible bool `json:"kumaDpCompatible,omitempty"`
}

// DataplaneMTLS is the certificate that the proxy has.
type DataplaneMTLS struct {
	// Until when the certificate is valid.
	CertificateExpirationTime *time.Time `json:"certificateExpirationTime,omitempty"`
	// When it was issued.
	LastCertificateRegeneration *time.Time `json:"lastCertificateRegeneration,omitempty"`
	// How many the proxy got so far.
	CertificateRegenerations uint32 `json:"certificateRegenerations,omitempty"`
	// The KRI of the MeshIdentity that issued it.
	IssuedBackend string `json:"issuedBackend,omitempty"`
	// KRIs of the MeshTrusts that the proxy believes.
	SupportedBackends []string `json:"supportedBackends,omitempty"`
}

// OpenTelemetryInfo is which telemetry backends the proxy's keeper uses.
type OpenTelemetryInfo struct {
	// One entry for each MeshOpenTelemetryBackend that policies name.
	Backends []OpenTelemetryBackendInfo `json:"backends,omitempty"`
}

// OpenTelemetryBackendInfo is one of them.
type OpenTelemetryBackendInfo struct {
	// The name of the backend.
	Name string `json:"name,omitempty"`
	// The state of traces; absent: none are sent to it.
	Traces *OpenTelemetrySignal `json:"traces,omitempty"`
	// The state of access logs; absent: none are sent to it.
	Logs *OpenTelemetrySignal `json:"logs,omitempty"`
	// The state of metrics; absent: none are sent to it.
	Metrics *OpenTelemetrySignal `json:"metrics,omitempty"`
}

// OpenTelemetrySignal is the state of one signal of a backend.
type OpenTelemetrySignal struct {
	// Whether a policy asks for the signal.
	Enabled bool `json:"enabled,omitempty"`
	// Whether the backend lets the environment decide.
	EnvAllowed bool `json:"envAllowed,omitempty"`
	// Whether the environment says anything.
	EnvInputPresent bool `json:"envInputPresent,omitempty"`
	// What came of it, such as ready.
	State string `json:"state,omitempty"`
	// What the environment decided.
	OverrideKinds []string `json:"overrideKinds,omitempty"`
	// What is needed and said nowhere.
	MissingFields []string `json:"missingFields,omitempty"`
	// Why nothing is sent.
	BlockedReasons []string `json:"blockedReasons,omitempty"`
}

// DataplaneInsights are rows of the instance that a proxy is connected to.
var DataplaneInsights = newKind(Kind[DataplaneInsight]{
	Facts: Facts{
		Name: "DataplaneInsight", Plural: "dataplane-insights", Scope: MeshScope, Flow: Up,
		Flat: true, Memory: true, ReadOnly: true, ZoneOnly: true,
	},
})
