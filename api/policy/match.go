package policy

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

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
		if !api.HasLabels(p.Labels, top.Labels) || top.SectionName != "" && !slices.Contains(p.Sections, top.SectionName) {
			return false
		}
		if top.Older == nil {
			return true
		}
		_, ok := p.carrying(top.Older.Tags)
		return ok
	}
	return false
}

// carrying reports whether the proxy carries the tags, and the names of the
// inbounds that do, each in quotes; empty: all of them.
func (p Proxy) carrying(tags map[string]string) (among string, ok bool) {
	if len(p.Tags) == 0 {
		return "", api.HasLabels(p.Labels, tags)
	}
	all := true
	for _, section := range slices.Sorted(maps.Keys(p.Tags)) {
		own := p.Tags[section]
		carries := true
		for key, want := range tags {
			value, differs := own[key]
			if !differs {
				value = p.Labels[key]
			}
			carries = carries && value == want
		}
		if carries {
			among += strconv.Quote(section)
		}
		all = all && carries
	}
	if all {
		return "", true
	}
	return among, among != ""
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

// tierOf is how much a policy weighs before names are compared: what it selects,
// then its origin, then its role.
func tierOf(m *api.Meta, top *api.TargetRef) int {
	return (reachOf(top)*3+originOf(m))*roles + roleOf(m)
}

// reachOf ranks what a policy selects: all proxies, some, a section of some; then
// what older forms select by, which weighs more.
func reachOf(top *api.TargetRef) int {
	if top == nil {
		return 0
	}
	as := top.Kind
	section := 0
	if top.Kind == api.RefDataplane && top.SectionName != "" {
		section = 1
	}
	if top.Older != nil && top.Older.As != "" {
		as = top.Older.As
		if as == api.RefDataplane {
			return 3 + section // named
		}
	}
	switch as {
	case api.RefDataplane:
		return 1 + section
	case api.RefSubset:
		return 5
	case api.RefService:
		return 6
	case api.RefServiceSubset:
		return 7
	case api.RefHTTPRoute:
		return 8
	}
	return 0
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
