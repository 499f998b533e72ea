package api

import (
	"cmp"
	"iter"
	"slices"

	"github.com/atoll-mesh/atoll/api/db"
)

// StatusOf is the status of a row that follows from other rows, alike in every
// control plane: what is shown beside the spec, or nil.
func StatusOf(r db.Reader, row Row) any {
	id := row.Head().ID
	switch row.Body().(type) {
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
	// The services behind it, sorted by name, namespace and zone.
	MeshServices []MultiZoneMember `json:"meshServices"`
	// MeshServicesMatched: whether there are any.
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
	s := MultiZoneStatus{MeshServices: []MultiZoneMember{}}
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
	s.Conditions = []Condition{matched}
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
