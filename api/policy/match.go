package policy

import (
	"cmp"
	"slices"

	"github.com/atoll-mesh/atoll/api"
)

// Matches reports whether a policy with this top-level targetRef (nil: Mesh) is
// for the proxy. It does not look at shadow: [NewSet] does.
func Matches(m *api.Meta, top *api.TargetRef, p Proxy) bool {
	role := roleOf(m)
	switch {
	case m.Mesh != p.Mesh:
		return false
	case m.Label(api.LabelOrigin) == api.OriginZone && role != roleProducer && zoneOf(m) != p.Zone:
		return false // a zone speaks for its own proxies, except as a producer of services
	case (role == roleConsumer || role == roleWorkloadOwner) && namespaceOf(m) != p.Namespace:
		return false
	}
	switch {
	case top == nil || top.Kind == api.RefMesh:
		return true
	case top.Kind == api.RefDataplane:
		return api.HasLabels(p.Labels, top.Labels) && (top.SectionName == "" || slices.Contains(p.Sections, top.SectionName))
	}
	return false
}

// Roles in ascending order of importance.
const (
	roleSystem = iota
	roleProducer
	roleConsumer
	roleWorkloadOwner
	roles
)

func roleOf(m *api.Meta) int {
	switch m.Label(api.LabelPolicyRole) {
	case "producer":
		return roleProducer
	case "consumer":
		return roleConsumer
	case "workload-owner":
		return roleWorkloadOwner
	}
	return roleSystem
}

func originOf(m *api.Meta) int {
	switch m.Label(api.LabelOrigin) {
	case api.OriginGlobal:
		return 0
	case api.OriginZone:
		return 2
	}
	return 1
}

// tierOf is how much a policy weighs before names are compared: what it selects
// (all proxies, some, a section of some), then its origin, then its role.
func tierOf(m *api.Meta, top *api.TargetRef) int {
	reach := 0
	if top != nil && top.Kind == api.RefDataplane {
		reach = 1
		if top.SectionName != "" {
			reach = 2
		}
	}
	return (reach*3+originOf(m))*roles + roleOf(m)
}

// compareNames orders policies of one tier: the smaller name is the later, and
// so wins. IDs differ, so the order is total.
func compareNames(a, b *api.Meta) int {
	if a.Name != b.Name {
		return cmp.Compare(b.Name, a.Name)
	}
	return cmp.Compare(b.ID.Key(), a.ID.Key())
}

func zoneOf(m *api.Meta) string      { return cmp.Or(m.Label(api.LabelZone), m.Zone) }
func namespaceOf(m *api.Meta) string { return cmp.Or(m.Label(api.LabelNamespace), m.Namespace) }
