package api

// MeshInsight counts what is in a mesh. It has the name of its mesh.
type MeshInsight struct {
	// All proxies of the mesh.
	Dataplanes DataplaneStat `json:"dataplanes,omitzero"`
	// The same, sidecars and gateways apart.
	DataplanesByType DataplanesByType `json:"dataplanesByType,omitzero"`
	// The same, by the versions that run.
	DPVersions DataplaneVersionStats `json:"dpVersions,omitzero"`
	// The same, by certificates.
	MTLS DataplaneBackendStats `json:"mTLS,omitzero"`
	// How many resources there are, by kind.
	Resources map[string]ResourceStat `json:"resources,omitempty"`
}

// DataplaneStat counts Dataplanes by what [DataplaneStatus] says of them.
type DataplaneStat struct {
	// All of them.
	Total uint32 `json:"total,omitempty"`
	// Connected, and everything is ready.
	Online uint32 `json:"online,omitempty"`
	// Not connected, or nothing is ready.
	Offline uint32 `json:"offline,omitempty"`
	// Connected, and a part is ready.
	PartiallyDegraded uint32 `json:"partiallyDegraded,omitempty"`
}

// DataplanesByType counts sidecars and gateways. Gateway is all gateways; those
// of the user's own are the only ones there are.
type DataplanesByType struct {
	// Proxies of workloads.
	Standard DataplaneStat `json:"standard,omitzero"`
	// All gateways.
	Gateway DataplaneStat `json:"gateway,omitzero"`
	// Gateways of the user's own, which are the only ones there are.
	GatewayDelegated DataplaneStat `json:"gatewayDelegated,omitzero"`
}

// DataplaneVersionStats counts by the versions that the newest connection named.
type DataplaneVersionStats struct {
	// By the version of the program that keeps Envoy running.
	KumaDP map[string]DataplaneStat `json:"kumaDp,omitempty"`
	// By the version of Envoy.
	Envoy map[string]DataplaneStat `json:"envoy,omitempty"`
}

// DataplaneBackendStats counts by who issued the certificate, and by whom the
// proxy believes: KRIs of MeshIdentities and MeshTrusts.
type DataplaneBackendStats struct {
	// By the KRI of the MeshIdentity that issued the certificate.
	IssuedBackends map[string]DataplaneStat `json:"issuedBackends,omitempty"`
	// By the KRI of a MeshTrust that the proxy believes.
	SupportedBackends map[string]DataplaneStat `json:"supportedBackends,omitempty"`
}

// ResourceStat counts the resources of a kind.
type ResourceStat struct {
	// All of them.
	Total uint32 `json:"total,omitempty"`
}

// MeshInsights are computed by global, and by a zone without one.
var MeshInsights = newKind(Kind[MeshInsight]{
	Facts: Facts{
		Name: "MeshInsight", Plural: "mesh-insights", Scope: GlobalScope,
		Flat: true, Unhashed: true, Memory: true, ReadOnly: true, GlobalOnly: true, Kube: KubeCluster,
	},
})

// ServiceInsight counted the proxies of the services of a mesh. Services and
// Workloads have a status of their own now: nobody writes one any more, and
// those of older peers are shown as they come.
type ServiceInsight struct {
	// By the name of the service.
	Services map[string]ServiceInsightService `json:"services,omitempty"`
}

// ServiceInsightService is one of the services.
type ServiceInsightService struct {
	// Taken over all proxies of the service.
	Status string `json:"status,omitempty" enum:"none,offline,partially_degraded,online,not_available"`
	// Its proxies.
	Dataplanes *ServiceInsightCounts `json:"dataplanes,omitempty"`
	// Its proxies, by who issued their certificates.
	IssuedBackends map[string]uint32 `json:"issuedBackends,omitempty"`
	// What the service is.
	ServiceType string `json:"serviceType,omitempty" enum:"internal,external,gateway_delegated,gateway_builtin"`
	// Where callers reach it, host:port.
	AddressPort string `json:"addressPort,omitempty"`
	// Names of the zones that it is in.
	Zones []string `json:"zones,omitempty"`
}

// ServiceInsightCounts counts its proxies.
type ServiceInsightCounts struct {
	// All of them.
	Total uint32 `json:"total,omitempty"`
	// Connected, and everything is ready.
	Online uint32 `json:"online,omitempty"`
	// Not connected, or nothing is ready.
	Offline uint32 `json:"offline,omitempty"`
}

// ServiceInsights are not written any more.
var ServiceInsights = newKind(Kind[ServiceInsight]{
	Facts: Facts{
		Name: "ServiceInsight", Plural: "service-insights", Scope: MeshScope, Flow: Down,
		Flat: true, Memory: true, ReadOnly: true, GlobalOnly: true, Kube: KubeCluster,
	},
})

// What a Dataplane is, all connections and all listeners taken together.
const (
	Online            = "Online"
	Offline           = "Offline"
	PartiallyDegraded = "Partially degraded"
)

// DataplaneStatus says what a Dataplane is: offline without a connection or
// without anything that is ready, partially degraded while something is not
// ready, else online. A gateway is as its connection is. The insight may be nil.
func DataplaneStatus(dp *Dataplane, insight *DataplaneInsight) string {
	if insight == nil || !insight.Online() {
		return Offline
	}
	n := &dp.Networking
	if n.Gateway != nil {
		return Online
	}
	total, ready := 0, 0
	count := func(ok bool) {
		total++
		if ok {
			ready++
		}
	}
	for _, in := range n.Inbound {
		if in.State != "Ignored" {
			count(in.Healthy())
		}
	}
	for _, l := range n.Listeners {
		count(l.Ready())
	}
	switch {
	case total > 0 && ready == 0:
		return Offline
	case ready < total:
		return PartiallyDegraded
	}
	return Online
}

// Online reports whether one of the connections is open.
func (i *DataplaneInsight) Online() bool {
	for _, s := range i.Subscriptions {
		if s.Online() {
			return true
		}
	}
	return false
}
