package api

import "time"

// Zone is a control plane below global, with its proxies.
type Zone struct {
	_ struct{} `gone:"ingress" use:"Dataplane listeners and MeshZoneAddress"`

	// Enabled nil is true. What a disabled zone offers is not sent to others.
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
	Subscriptions     []ZoneSubscription `json:"subscriptions,omitempty"`
	HealthCheck       *ZoneHealthCheck   `json:"healthCheck,omitempty"`
	KDSStreams        *KDSStreams        `json:"kdsStreams,omitempty"`
	EnvoyAdminStreams *EnvoyAdminStreams `json:"envoyAdminStreams,omitempty"`
	// Conditions and Rejected are ours: peers of the existing ecosystem ignore them.
	Conditions []Condition        `json:"conditions,omitempty"`
	Rejected   []RejectedResource `json:"rejected,omitempty"`
}

// ZoneSubscription is one connection of a zone. It is online while it has a
// ConnectTime and no DisconnectTime.
type ZoneSubscription struct {
	ID                string     `json:"id"`
	GlobalInstanceID  string     `json:"globalInstanceId,omitempty"`
	ZoneInstanceID    string     `json:"zoneInstanceId,omitempty"`
	ConnectTime       *time.Time `json:"connectTime,omitempty"`
	DisconnectTime    *time.Time `json:"disconnectTime,omitempty"`
	Generation        uint32     `json:"generation,omitempty"`
	AuthTokenProvided bool       `json:"authTokenProvided,omitempty"`
	// Config is the configuration of the zone's control plane: JSON text.
	Config  string       `json:"config,omitempty"`
	Status  KDSStatus    `json:"status,omitzero"`
	Version *ZoneVersion `json:"version,omitempty"`
}

// Online reports whether the connection is open.
func (s ZoneSubscription) Online() bool { return s.ConnectTime != nil && s.DisconnectTime == nil }

// KDSStatus counts what was sent to a zone, by kind.
type KDSStatus struct {
	LastUpdateTime *time.Time                `json:"lastUpdateTime,omitempty"`
	Total          DiscoveryStats            `json:"total,omitzero"`
	Stat           map[string]DiscoveryStats `json:"stat,omitempty"`
}

// ZoneVersion is the version of a zone's control plane.
type ZoneVersion struct {
	KumaCP *KumaCPVersion `json:"kumaCp,omitempty"`
}

// KumaCPVersion is the version of a control plane.
type KumaCPVersion struct {
	Version                string `json:"version,omitempty"`
	GitTag                 string `json:"gitTag,omitempty"`
	GitCommit              string `json:"gitCommit,omitempty"`
	BuildDate              string `json:"buildDate,omitempty"`
	KumaCPGlobalCompatible bool   `json:"kumaCpGlobalCompatible,omitempty"`
}

// ZoneHealthCheck is when the zone was last heard of.
type ZoneHealthCheck struct {
	Time *time.Time `json:"time,omitempty"`
}

// KDSStreams is which instance of global holds which stream of the zone.
type KDSStreams struct {
	Clusters     *KDSStream `json:"clusters,omitempty"`
	ConfigDump   *KDSStream `json:"configDump,omitempty"`
	Stats        *KDSStream `json:"stats,omitempty"`
	GlobalToZone *KDSStream `json:"globalToZone,omitempty"`
	ZoneToGlobal *KDSStream `json:"zoneToGlobal,omitempty"`
}

// KDSStream is one of them.
type KDSStream struct {
	GlobalInstanceID string     `json:"globalInstanceId,omitempty"`
	ConnectTime      *time.Time `json:"connectTime,omitempty"`
}

// EnvoyAdminStreams is the older form of KDSStreams, still read by tools.
type EnvoyAdminStreams struct {
	ConfigDumpGlobalInstanceID string `json:"configDumpGlobalInstanceId,omitempty"`
	StatsGlobalInstanceID      string `json:"statsGlobalInstanceId,omitempty"`
	ClustersGlobalInstanceID   string `json:"clustersGlobalInstanceId,omitempty"`
}

// ZoneInsights are rows of the instance that holds the link.
var ZoneInsights = newKind(Kind[ZoneInsight]{
	Facts: Facts{
		Name: "ZoneInsight", Plural: "zone-insights", Scope: GlobalScope,
		Flat: true, Unhashed: true, Memory: true, ReadOnly: true, Kube: KubeCluster,
	},
})
