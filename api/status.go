package api

import (
	"cmp"
	"iter"
	"slices"

	"github.com/atoll-mesh/atoll/api/db"
)

// StatusOf is the status of a row that follows from other rows: what is shown
// beside the spec, or nil.
func StatusOf(r db.Reader, row Row) any {
	id := row.Head().ID
	switch row.Body().(type) {
	case *MeshService:
		return serviceStatusOf(r, row.Head())
	case *MeshExternalService:
		return externalStatusOf(r, id)
	case *MeshMultiZoneService:
		return MultiZoneStatusOf(r, id)
	case *Workload:
		return map[string]any{"dataplaneProxies": workloadCounts(r, id)}
	case *MeshOpenTelemetryBackend:
		return conditions{[]Condition{referenced(r, id)}}
	case *MeshAccessLog, *MeshMetric, *MeshTrace:
		if c, ok := resolved(r, row); ok {
			return conditions{[]Condition{c}}
		}
	}
	return nil
}

type conditions struct {
	Conditions []Condition `json:"conditions"`
}

// Behind lists the MeshServices of a MeshMultiZoneService, ordered by ID.
func Behind(r db.Reader, id ID) iter.Seq[*Object[MeshService]] {
	mz, ok := MeshMultiZoneServices.Get(r, id)
	if !ok || len(mz.Spec.Selector.MeshService.MatchLabels) == 0 {
		return func(func(*Object[MeshService]) bool) {}
	}
	return MeshServices.Labelled(r, id.Mesh, mz.Spec.Selector.MeshService.MatchLabels)
}

// MultiZoneStatus is what a control plane finds out about a
// MeshMultiZoneService from the MeshServices that it knows.
type MultiZoneStatus struct {
	// The virtual addresses by which proxies of this zone call it.
	VIPs []VIP `json:"vips,omitempty"`
	serviceNames
	// The services behind it, sorted by name, namespace and zone.
	MeshServices []MultiZoneMember `json:"meshServices"`
	// MeshServicesMatched: whether there are any. [VIPAllocated] while there is no
	// address.
	Conditions []Condition `json:"conditions"`
}

// MultiZoneMember names a service behind a MeshMultiZoneService.
type MultiZoneMember struct {
	// Its name where it was written.
	Name string `json:"name"`
	// Its namespace on Kubernetes; else empty.
	Namespace string `json:"namespace"`
	// The zone that it is in.
	Zone string `json:"zone"`
	// The mesh that it is in.
	Mesh string `json:"mesh"`
}

// MultiZoneStatusOf computes it. Members are sorted by name, namespace, zone.
func MultiZoneStatusOf(r db.Reader, id ID) MultiZoneStatus {
	s := MultiZoneStatus{MeshServices: []MultiZoneMember{}, VIPs: vipsOf(r, id), serviceNames: namesOf(r, id)}
	for svc := range Behind(r, id) {
		s.MeshServices = append(s.MeshServices, MultiZoneMember{Name: svc.Name, Namespace: svc.Namespace, Zone: svc.Zone, Mesh: svc.Mesh})
	}
	slices.SortFunc(s.MeshServices, func(a, b MultiZoneMember) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Zone, b.Zone))
	})
	matched := Condition{Type: "MeshServicesMatched", Status: "True", Reason: "MatchesFound", Message: "Some MeshServices match"}
	if len(s.MeshServices) == 0 {
		matched = Condition{Type: "MeshServicesMatched", Status: "False", Reason: "NoMatchesFound", Message: "No MeshService carries the labels of the selector"}
	}
	s.Conditions = append([]Condition{matched}, exhausted(r, id)...)
	return s
}

// MeshServiceStatus is what a control plane finds out about a MeshService. Each
// has its own: that of another zone never overwrites it.
type MeshServiceStatus struct {
	// The virtual addresses by which proxies of this zone call it.
	VIPs []VIP `json:"vips,omitempty"`
	serviceNames
	// Whether the proxies speak mTLS: Ready, NotReady. Empty: known where the
	// service is.
	TLS ServiceTLS `json:"tls"`
	// The proxies behind it. Absent: known where the service is.
	Proxies *ProxyCounts `json:"dataplaneProxies,omitempty"`
	// [VIPAllocated] while there is no address.
	Conditions []Condition `json:"conditions,omitempty"`
}

// ServiceTLS is whether the proxies of a service speak mTLS.
type ServiceTLS struct {
	// Ready or NotReady.
	Status string `json:"status,omitempty"`
}

// ExternalServiceStatus is what a control plane finds out about a
// MeshExternalService.
type ExternalServiceStatus struct {
	// The virtual address by which proxies of this zone call it.
	VIP VIP `json:"vip"`
	serviceNames
	// [VIPAllocated] while there is no address.
	Conditions []Condition `json:"conditions,omitempty"`
}

// VIP is a virtual address.
type VIP struct {
	// The IP address; empty: there is none (yet).
	IP string `json:"ip,omitempty"`
}

// serviceNames is what HostnameGenerators made of a service.
type serviceNames struct {
	// The names that it has.
	Addresses []ServiceAddress `json:"addresses,omitempty"`
	// What each generator that selects it made of it.
	HostnameGenerators []HostnameGeneratorStatus `json:"hostnameGenerators,omitempty"`
}

func namesOf(r db.Reader, id ID) serviceNames {
	if h, ok := Hostnames.Get(r, id.String()); ok {
		return serviceNames{h.Addresses, h.Generators}
	}
	return serviceNames{}
}

func vipsOf(r db.Reader, id ID) []VIP {
	var out []VIP
	for _, ip := range VIPs(r, id) {
		out = append(out, VIP{ip})
	}
	return out
}

// VIPAllocated is the type of the condition of a service that gets no virtual
// address, because none is left.
const VIPAllocated = "VIPAllocated"

func exhausted(r db.Reader, id ID) []Condition {
	e, ok := Exhaustions.Get(r, id.Kind)
	if !ok || len(VIPs(r, id)) > 0 {
		return nil
	}
	return []Condition{{Type: VIPAllocated, Status: "False", Reason: "Exhausted", Message: "All addresses of " + e.CIDR + " are taken"}}
}

// serviceStatusOf is nil while nothing is known, as at global.
func serviceStatusOf(r db.Reader, m *Meta) any {
	s := MeshServiceStatus{VIPs: vipsOf(r, m.ID), serviceNames: namesOf(r, m.ID), Conditions: exhausted(r, m.ID)}
	state, known := ServiceStates.Get(r, m.ID.Key())
	if known {
		s.TLS.Status = "NotReady"
		if len(state.Identities) > 0 {
			s.TLS.Status = "Ready"
		}
		s.Proxies = &ProxyCounts{Connected: state.Connected, Healthy: state.Healthy, Total: state.Total}
	}
	if !known && s.VIPs == nil && s.HostnameGenerators == nil && s.Conditions == nil {
		return nil
	}
	return s
}

func externalStatusOf(r db.Reader, id ID) any {
	s := ExternalServiceStatus{serviceNames: namesOf(r, id), Conditions: exhausted(r, id)}
	if vips := vipsOf(r, id); len(vips) > 0 {
		s.VIP = vips[0]
	}
	return s
}

// ProxyCounts counts the proxies of a service or a workload.
type ProxyCounts struct {
	// Proxies that a control plane has a connection of.
	Connected int `json:"connected"`
	// Proxies of which all inbounds are ready.
	Healthy int `json:"healthy"`
	// All proxies.
	Total int `json:"total"`
}

// workloadCounts counts the proxies of a Workload, which are those of its zone.
// One is healthy when all that it listens on is ready.
func workloadCounts(r db.Reader, id ID) ProxyCounts {
	var n ProxyCounts
	for dp := range Dataplanes.Labelled(r, id.Mesh, map[string]string{LabelWorkload: id.Name}) {
		if dp.Zone != id.Zone {
			continue
		}
		n.Total++
		if isConnected(r, dp) {
			n.Connected++
		}
		if !slices.ContainsFunc(dp.Spec.Networking.Inbound, func(in Inbound) bool { return !in.Healthy() }) {
			n.Healthy++
		}
	}
	return n
}

// isConnected: of its own proxies a zone knows, of others what their zone says.
func isConnected(r db.Reader, dp *Object[Dataplane]) bool {
	if dp.Local() {
		_, ok := Connections.Get(r, dp.ID.Key())
		return ok
	}
	id := dp.ID
	id.Kind = DataplaneInsights.Name
	insight, ok := DataplaneInsights.Get(r, id)
	return ok && insight.Spec.Online()
}
