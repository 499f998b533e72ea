package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api/db"
)

// telemetryKinds are the policies that may send to a MeshOpenTelemetryBackend.
var telemetryKinds = []AnyKind{MeshAccessLogs, MeshMetrics, MeshTraces}

// telemetryRefs lists the collectors that a policy names.
func telemetryRefs(policy Row) (refs []TelemetryRef) {
	add := func(ref *TelemetryRef) {
		if ref != nil {
			refs = append(refs, *ref)
		}
	}
	logs := func(conf MeshAccessLogConf) {
		for _, b := range conf.Backends {
			if b.OpenTelemetry != nil {
				add(b.OpenTelemetry.BackendRef)
			}
		}
	}
	switch s := policy.Body().(type) {
	case *MeshAccessLog:
		for _, to := range s.To {
			logs(to.Default)
		}
		for _, rule := range s.Rules {
			logs(rule.Default)
		}
	case *MeshMetric:
		for _, b := range s.Default.Backends {
			if b.OpenTelemetry != nil {
				add(b.OpenTelemetry.BackendRef)
			}
		}
	case *MeshTrace:
		for _, b := range s.Default.Backends {
			if b.OpenTelemetry != nil {
				add(b.OpenTelemetry.BackendRef)
			}
		}
	}
	return refs
}

// Find returns the collector that the reference means in a mesh: of several with
// the labels the oldest.
func (ref TelemetryRef) Find(r db.Reader, mesh string) (*Object[MeshOpenTelemetryBackend], bool) {
	var found *Object[MeshOpenTelemetryBackend]
	for b := range MeshOpenTelemetryBackends.Labelled(r, mesh, ref.Labels) {
		if found == nil || cmp.Or(b.Created.Compare(found.Created), cmp.Compare(b.ID.Key(), found.ID.Key())) < 0 {
			found = b
		}
	}
	return found, found != nil
}

func (ref TelemetryRef) String() string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(ref.Labels)) {
		pairs = append(pairs, name+"="+ref.Labels[name])
	}
	return ref.Kind + " with " + strings.Join(pairs, ", ")
}

// referenced says whether a policy of the mesh sends to the collector.
func referenced(r db.Reader, id ID) Condition {
	n := 0
	for _, k := range telemetryKinds {
		for policy := range k.Rows(r, id.Mesh) {
			if slices.ContainsFunc(telemetryRefs(policy), func(ref TelemetryRef) bool {
				b, ok := ref.Find(r, id.Mesh)
				return ok && b.ID == id
			}) {
				n++
			}
		}
	}
	if n == 0 {
		return Condition{Type: "ReferencedByPolicies", Status: "False", Reason: "NotReferenced", Message: "No policy refers to this backend"}
	}
	return Condition{Type: "ReferencedByPolicies", Status: "True", Reason: "Referenced", Message: fmt.Sprintf("Policies that refer to this backend: %d", n)}
}

// resolved says whether all collectors that a policy names are there; ok is false
// for one that names none.
func resolved(r db.Reader, policy Row) (c Condition, ok bool) {
	var missing []string
	for _, ref := range telemetryRefs(policy) {
		ok = true
		if _, found := ref.Find(r, policy.Head().Mesh); !found {
			missing = append(missing, ref.String())
		}
	}
	if missing == nil {
		return Condition{Type: "BackendRefsResolved", Status: "True", Reason: "AllBackendRefsResolved", Message: "All backends that the policy refers to exist"}, ok
	}
	slices.Sort(missing)
	return Condition{Type: "BackendRefsResolved", Status: "False", Reason: "UnresolvedBackendRefs", Message: "Not found: " + strings.Join(slices.Compact(missing), "; ")}, ok
}
