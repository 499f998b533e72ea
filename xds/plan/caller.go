package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
)

// Older permissions name callers by tags, and a SPIFFE ID is all that an inbound
// sees of a caller. Which IDs are meant depends on what is known of who calls by
// them:
//
//	proxy of this zone                its Dataplane says it:  carries, or not
//	proxies behind another's service  the MeshService says it: carries, not, or may
//
// Of other zones only MeshServices are known here. The labels and the selector of
// one, its name (as kuma.io/service) and its zone confirm a tag or refute it; of
// any other tag nothing is known. A proxy of another zone that is behind no
// service is not known at all.

// carries is whether a caller carries tags.
type carries uint8

const (
	carriesNot carries = iota
	mayCarry
	carriesAll
)

// callersKey asks who in a mesh calls with the tags, which are encoded, as far
// as a zone knows. The empty zone is global, which knows every proxy.
type callersKey struct{ Mesh, Tags, Zone string }

// callerIDs is SPIFFE IDs, sorted: Own is those by which only proxies with the
// tags call, Shared those by which others call as well, or may.
type callerIDs struct {
	Own    []string
	Shared []sharedID
}

// sharedID names one of those who call by an ID and do not carry the tags; if
// there is none that surely does not, one that may not.
type sharedID struct {
	ID   string
	With api.ID
	May  bool
}

// callers resolves the tags by which older permissions name callers.
var callers = incr.NewQuery("callers", func(r *incr.Run, k callersKey) callerIDs {
	type seen [carriesAll + 1]api.ID // one of each sort; the zero ID: none
	found := map[string]*seen{}
	for _, kind := range []string{api.Dataplanes.Name, api.MeshServices.Name} {
		for _, id := range labelled.Get(r, labelledKey{Kind: kind, Mesh: k.Mesh}) {
			if elsewhere := k.Zone != "" && id.Zone != "" && id.Zone != k.Zone; elsewhere != (kind == api.MeshServices.Name) {
				continue // a zone knows its own proxies, and the services of the others
			}
			c := caller.Get(r, callerKey{id, k.Tags})
			for _, spiffe := range c.IDs {
				if found[spiffe] == nil {
					found[spiffe] = &seen{}
				}
				found[spiffe][c.Carries] = cmp.Or(found[spiffe][c.Carries], id)
			}
		}
	}
	var out callerIDs
	for _, spiffe := range slices.Sorted(maps.Keys(found)) {
		switch all := found[spiffe]; {
		case all[carriesAll] == api.ID{} && all[mayCarry] == api.ID{}:
		case all[carriesNot] != api.ID{}:
			out.Shared = append(out.Shared, sharedID{ID: spiffe, With: all[carriesNot]})
		case all[mayCarry] != api.ID{}:
			out.Shared = append(out.Shared, sharedID{ID: spiffe, With: all[mayCarry], May: true})
		default:
			out.Own = append(out.Own, spiffe)
		}
	}
	return out
}, func(a, b callerIDs) bool { return slices.Equal(a.Own, b.Own) && slices.Equal(a.Shared, b.Shared) })

// callerKey asks whether one Dataplane, or the proxies behind one MeshService,
// carry the tags.
type callerKey struct {
	ID   api.ID
	Tags string
}

// oneCaller is by which SPIFFE IDs something calls, and whether it carries tags.
type oneCaller struct {
	IDs     []string
	Carries carries
}

// caller is a query of its own, so that what else changes in a Dataplane, its
// health above all, ends here.
var caller = incr.NewQuery("caller", func(r *incr.Run, k callerKey) oneCaller {
	tags := decodeLabels(k.Tags)
	if k.ID.Kind == api.Dataplanes.Name {
		dp, ok := api.Dataplanes.Get(r, k.ID)
		if !ok {
			return oneCaller{}
		}
		var c oneCaller
		if api.HasTags(dp, tags) {
			c.Carries = carriesAll
		}
		if id := identity.Get(r, k.ID).ID; id != "" {
			c.IDs = []string{id}
		}
		return c
	}
	svc, ok := api.MeshServices.Get(r, k.ID)
	if !ok {
		return oneCaller{}
	}
	c := oneCaller{Carries: serviceCarries(svc, tags)}
	for _, one := range svc.Spec.Identities {
		if one.Type == "SpiffeID" {
			c.IDs = append(c.IDs, one.Value)
		}
	}
	return c
}, func(a, b oneCaller) bool { return a.Carries == b.Carries && slices.Equal(a.IDs, b.IDs) })

// serviceCarries is whether the proxies behind a service carry the tags, as far
// as the service says.
func serviceCarries(svc *api.Object[api.MeshService], tags map[string]string) carries {
	has := maps.Clone(svc.Labels)
	if has == nil {
		has = map[string]string{}
	}
	for _, ofItself := range []string{api.LabelDisplayName, api.LabelOrigin, api.LabelManagedBy} {
		delete(has, ofItself)
	}
	has[api.LabelService] = cmp.Or(has[api.LabelService], svc.Name)
	if sel := svc.Spec.Selector.DataplaneLabels; sel != nil {
		maps.Copy(has, sel.MatchLabels)
	}
	maps.Copy(has, svc.Spec.Selector.DataplaneTags)
	has[api.LabelZone] = svc.Zone
	out := carriesAll
	for name, want := range tags {
		switch got, known := has[name]; {
		case !known:
			out = mayCarry
		case got == want, name == api.LabelService && isKubeService(svc, want):
		default:
			return carriesNot
		}
	}
	return out
}

// isKubeService reports whether the tag is how a port of the service was named
// on Kubernetes.
func isKubeService(svc *api.Object[api.MeshService], tag string) bool {
	name, namespace, port, ok := api.KubeService(tag)
	return ok && name == svc.Name && namespace == svc.Namespace &&
		slices.ContainsFunc(svc.Spec.Ports, func(p api.MeshServicePort) bool { return port == int(p.Port) })
}

// SharedCaller is a SPIFFE ID that an entry of an older permission names by tags
// and by which others call too, or may: its Allow does not let the ID in, and its
// Deny refuses the others too.
type SharedCaller struct {
	Index int    // of the entry in spec.from
	Tags  string // by which it names its callers, sorted, as name=value
	ID    string
	// List is the list of the newer form that the entry is of: deny, allow or
	// allowWithShadowDeny.
	List string
	// With calls by the ID without the tags: a Dataplane, or proxies behind a
	// MeshService. May: it is not known whether they carry the tags.
	With api.ID
	May  bool
}

// SharedCallers lists those of a permission by entry and ID; global lists what
// holds in any zone. No plan reads it: it is for people who look at a policy.
var SharedCallers = incr.NewQuery("shared-callers", func(r *incr.Run, id api.ID) []SharedCaller {
	p, ok := api.MeshTrafficPermissions.Get(r, id)
	if !ok {
		return nil
	}
	site := settings(r).Site
	zones := []string{site.Zone}
	if site.IsGlobal() {
		zones = nil
		for z := range api.Zones.All(r) {
			zones = append(zones, z.Name)
		}
	}
	var out []SharedCaller
	add := func(i int, list string, matches []api.PermissionMatch) {
		for _, m := range matches {
			if m.Caller == nil || len(m.Caller.Tags) == 0 {
				continue
			}
			found := map[string]bool{}
			for _, zone := range zones {
				for _, one := range callers.Get(r, callersKey{id.Mesh, encodeLabels(m.Caller.Tags), zone}).Shared {
					if !found[one.ID] {
						found[one.ID] = true
						out = append(out, SharedCaller{Index: i, Tags: tagText(m.Caller.Tags), ID: one.ID, List: list, With: one.With, May: one.May})
					}
				}
			}
		}
	}
	for i, rule := range p.Spec.Rules {
		add(i, "deny", rule.Default.Deny)
		add(i, "allow", rule.Default.Allow)
		add(i, "allowWithShadowDeny", rule.Default.AllowWithShadowDeny)
	}
	slices.SortStableFunc(out, func(a, b SharedCaller) int { return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID, b.ID)) })
	return out
}, slices.Equal[[]SharedCaller])

func tagText(tags map[string]string) string {
	var out string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if out != "" {
			out += ", "
		}
		out += name + "=" + tags[name]
	}
	return out
}
