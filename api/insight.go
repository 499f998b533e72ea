package api

import (
	"encoding/json"
	"time"
)

// DataplaneInsight is what a zone knows of the proxy of a Dataplane.
type DataplaneInsight struct {
	Subscriptions []DataplaneSubscription `json:"subscriptions,omitempty"`
	MTLS          *DataplaneMTLS          `json:"mTLS,omitempty"`
	// Metadata is the node metadata that Envoy sent: a JSON object.
	Metadata      json.RawMessage    `json:"metadata,omitempty"`
	OpenTelemetry *OpenTelemetryInfo `json:"openTelemetry,omitempty"`
	// Conditions and Rejected are ours: peers of the existing ecosystem ignore them.
	Conditions []Condition        `json:"conditions,omitempty"`
	Rejected   []RejectedResource `json:"rejected,omitempty"`
}

// RejectedResource is a resource that Envoy, or a control plane, did not take.
type RejectedResource struct {
	Type    string `json:"type"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// DataplaneSubscription is one connection of a proxy. It is online while it has
// a ConnectTime and no DisconnectTime.
type DataplaneSubscription struct {
	ID                     string                   `json:"id"`
	ControlPlaneInstanceID string                   `json:"controlPlaneInstanceId,omitempty"`
	ConnectTime            *time.Time               `json:"connectTime,omitempty"`
	DisconnectTime         *time.Time               `json:"disconnectTime,omitempty"`
	Generation             uint32                   `json:"generation,omitempty"`
	Status                 DataplaneDiscoveryStatus `json:"status,omitzero"`
	Version                *DataplaneVersion        `json:"version,omitempty"`
}

// Online reports whether the connection is open.
func (s DataplaneSubscription) Online() bool { return s.ConnectTime != nil && s.DisconnectTime == nil }

// DataplaneDiscoveryStatus counts what was sent, by type.
type DataplaneDiscoveryStatus struct {
	LastUpdateTime *time.Time     `json:"lastUpdateTime,omitempty"`
	Total          DiscoveryStats `json:"total,omitzero"`
	CDS            DiscoveryStats `json:"cds,omitzero"`
	EDS            DiscoveryStats `json:"eds,omitzero"`
	LDS            DiscoveryStats `json:"lds,omitzero"`
	RDS            DiscoveryStats `json:"rds,omitzero"`
}

// DiscoveryStats counts responses.
type DiscoveryStats struct {
	ResponsesSent         Uint64 `json:"responsesSent,omitempty"`
	ResponsesAcknowledged Uint64 `json:"responsesAcknowledged,omitempty"`
	ResponsesRejected     Uint64 `json:"responsesRejected,omitempty"`
}

// DataplaneVersion is what runs next to the workload.
type DataplaneVersion struct {
	KumaDP       *KumaDPVersion    `json:"kumaDp,omitempty"`
	Envoy        *EnvoyVersion     `json:"envoy,omitempty"`
	Dependencies map[string]string `json:"dependencies,omitempty"`
}

// KumaDPVersion is the version of the proxy's keeper.
type KumaDPVersion struct {
	Version          string `json:"version,omitempty"`
	GitTag           string `json:"gitTag,omitempty"`
	GitCommit        string `json:"gitCommit,omitempty"`
	BuildDate        string `json:"buildDate,omitempty"`
	KumaCPCompatible bool   `json:"kumaCpCompatible,omitempty"`
}

// EnvoyVersion is the version of Envoy.
type EnvoyVersion struct {
	Version          string `json:"version,omitempty"`
	Build            string `json:"build,omitempty"`
	KumaDPCompatible bool   `json:"kumaDpCompatible,omitempty"`
}

// DataplaneMTLS is the certificate that the proxy has.
type DataplaneMTLS struct {
	CertificateExpirationTime   *time.Time `json:"certificateExpirationTime,omitempty"`
	LastCertificateRegeneration *time.Time `json:"lastCertificateRegeneration,omitempty"`
	CertificateRegenerations    uint32     `json:"certificateRegenerations,omitempty"`
	// IssuedBackend is the KRI of the MeshIdentity, SupportedBackends those of
	// the MeshTrusts.
	IssuedBackend     string   `json:"issuedBackend,omitempty"`
	SupportedBackends []string `json:"supportedBackends,omitempty"`
}

// OpenTelemetryInfo is which telemetry backends the proxy's keeper uses.
type OpenTelemetryInfo struct {
	Backends []OpenTelemetryBackendInfo `json:"backends,omitempty"`
}

// OpenTelemetryBackendInfo is one of them.
type OpenTelemetryBackendInfo struct {
	Name    string               `json:"name,omitempty"`
	Traces  *OpenTelemetrySignal `json:"traces,omitempty"`
	Logs    *OpenTelemetrySignal `json:"logs,omitempty"`
	Metrics *OpenTelemetrySignal `json:"metrics,omitempty"`
}

// OpenTelemetrySignal is the state of one signal of a backend.
type OpenTelemetrySignal struct {
	Enabled         bool     `json:"enabled,omitempty"`
	EnvAllowed      bool     `json:"envAllowed,omitempty"`
	EnvInputPresent bool     `json:"envInputPresent,omitempty"`
	State           string   `json:"state,omitempty"`
	OverrideKinds   []string `json:"overrideKinds,omitempty"`
	MissingFields   []string `json:"missingFields,omitempty"`
	BlockedReasons  []string `json:"blockedReasons,omitempty"`
}

// DataplaneInsights are rows of the instance that a proxy is connected to.
var DataplaneInsights = newKind(Kind[DataplaneInsight]{
	Facts: Facts{
		Name: "DataplaneInsight", Plural: "dataplane-insights", Scope: MeshScope, Flow: Up,
		Flat: true, Memory: true, ReadOnly: true, ZoneOnly: true,
	},
})
