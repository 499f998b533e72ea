package api

import "time"

// Zone is a control plane below global, with its proxies. It is made when the
// zone first connects; change it to shut the zone off from others, delete it
// when the zone is gone for good.
type Zone struct {
	_ struct{} `gone:"ingress" use:"Dataplane listeners and MeshZoneAddress"`

	// false stops sending what the zone offers (services, addresses) to other
	// zones, which then no longer call it. Absent: true.
	Enabled *bool `json:"enabled,omitempty"`
}

// IsEnabled reports whether other zones may know of the zone's services.
func (z *Zone) IsEnabled() bool { return z.Enabled == nil || *z.Enabled }

// Zones are never synced: each control plane has its own.
var Zones = newKind(Kind[Zone]{
	Facts: Facts{
		Name: "Zone", Plural: "zones", Short: "z", Scope: GlobalScope,
		Flat: true, Unhashed: true, DNSName: true, Kube: KubeCluster,
	},
})

// ZoneInsight is what a control plane knows of the link of a zone.
type ZoneInsight struct {
	// Connections of the zone to global, the newest last; only the last few are
	// kept.
	Subscriptions []ZoneSubscription `json:"subscriptions,omitempty"`
	// When the zone was last heard of.
	HealthCheck *ZoneHealthCheck `json:"healthCheck,omitempty"`
	// Which instance of global holds which stream of the zone.
	KDSStreams *KDSStreams `json:"kdsStreams,omitempty"`
	// The older form of kdsStreams.
	EnvoyAdminStreams *EnvoyAdminStreams `json:"envoyAdminStreams,omitempty"`
	// Statements about the link.
	Conditions []Condition `json:"conditions,omitempty"`
	// What either side refuses at the moment, and why.
	Rejected []RejectedResource `json:"rejected,omitempty"`
}

// ZoneSubscription is one connection of a zone. It is online while it has a
// ConnectTime and no DisconnectTime.
type ZoneSubscription struct {
	// Unique to the connection.
	ID string `json:"id"`
	// The instance of global that the zone is connected to.
	GlobalInstanceID string `json:"globalInstanceId,omitempty"`
	// The instance of the zone's control plane that is connected.
	ZoneInstanceID string `json:"zoneInstanceId,omitempty"`
	// When the connection was opened.
	ConnectTime *time.Time `json:"connectTime,omitempty"`
	// When the connection ended; absent: it is open.
	DisconnectTime *time.Time `json:"disconnectTime,omitempty"`
	// Grows with every change of the subscription at its instance.
	Generation uint32 `json:"generation,omitempty"`
	// Whether the zone showed a token.
	AuthTokenProvided bool `json:"authTokenProvided,omitempty"`
	// The configuration of the zone's control plane: JSON as text.
	Config string `json:"config,omitempty"`
	// What was sent to the zone, and what came back.
	Status KDSStatus `json:"status,omitzero"`
	// What the zone runs.
	Version *ZoneVersion `json:"version,omitempty"`
}

// Online reports whether the connection is open.
func (s ZoneSubscription) Online() bool { return s.ConnectTime != nil && s.DisconnectTime == nil }

// KDSStatus counts what was sent to a zone, by kind.
type KDSStatus struct {
	// When any count changed last.
	LastUpdateTime *time.Time `json:"lastUpdateTime,omitempty"`
	// All kinds together.
	Total DiscoveryStats `json:"total,omitzero"`
	// By kind.
	Stat map[string]DiscoveryStats `json:"stat,omitempty"`
}

// ZoneVersion is the version of a zone's control plane.
type ZoneVersion struct {
	// The control plane of the zone.
	KumaCP *KumaCPVersion `json:"kumaCp,omitempty"`
}

// KumaCPVersion is the version of a control plane.
type KumaCPVersion struct {
	// The release, such as 2.14.3.
	Version string `json:"version,omitempty"`
	// The tag that it was built from.
	GitTag string `json:"gitTag,omitempty"`
	// The commit that it was built from.
	GitCommit string `json:"gitCommit,omitempty"`
	// When it was built, as text.
	BuildDate string `json:"buildDate,omitempty"`
	// Whether it may be used with this global.
	KumaCPGlobalCompatible bool `json:"kumaCpGlobalCompatible,omitempty"`
}

// ZoneHealthCheck is when the zone was last heard of.
type ZoneHealthCheck struct {
	// When the zone last answered a ping.
	Time *time.Time `json:"time,omitempty"`
}

// KDSStreams is which instance of global holds which stream of the zone.
type KDSStreams struct {
	// For the clusters of proxies, on request.
	Clusters *KDSStream `json:"clusters,omitempty"`
	// For the configuration of proxies, on request.
	ConfigDump *KDSStream `json:"configDump,omitempty"`
	// For the statistics of proxies, on request.
	Stats *KDSStream `json:"stats,omitempty"`
	// For what global sends.
	GlobalToZone *KDSStream `json:"globalToZone,omitempty"`
	// For what the zone sends.
	ZoneToGlobal *KDSStream `json:"zoneToGlobal,omitempty"`
}

// KDSStream is one of them.
type KDSStream struct {
	// The instance of global that holds the stream; empty: none does.
	GlobalInstanceID string `json:"globalInstanceId,omitempty"`
	// When the stream was opened.
	ConnectTime *time.Time `json:"connectTime,omitempty"`
}

// EnvoyAdminStreams is the older form of KDSStreams, still read by tools.
type EnvoyAdminStreams struct {
	// The instance of global that holds the stream for configuration.
	ConfigDumpGlobalInstanceID string `json:"configDumpGlobalInstanceId,omitempty"`
	// The instance of global that holds the stream for statistics.
	StatsGlobalInstanceID string `json:"statsGlobalInstanceId,omitempty"`
	// The instance of global that holds the stream for clusters.
	ClustersGlobalInstanceID string `json:"clustersGlobalInstanceId,omitempty"`
}

// ZoneInsights are rows of the instance that holds the link.
var ZoneInsights = newKind(Kind[ZoneInsight]{
	Facts: Facts{
		Name: "ZoneInsight", Plural: "zone-insights", Scope: GlobalScope,
		Flat: true, Unhashed: true, Memory: true, ReadOnly: true, Kube: KubeCluster,
	},
})
