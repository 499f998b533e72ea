package plan

import (
	"maps"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
)

// callersKey asks who in a mesh calls with the tags; they are encoded.
type callersKey struct{ Mesh, Tags string }

// callerIDs is SPIFFE IDs, sorted: Own is those by which only proxies with the
// tags call, Shared those by which others call as well.
type callerIDs struct{ Own, Shared []string }

// callers resolves the tags by which older permissions name callers. Of proxies
// in other zones nothing is known here but the services they stand behind: these
// have the tags kuma.io/service and kuma.io/zone, and their labels as others.
var callers = incr.NewQuery("callers", func(r *incr.Run, k callersKey) callerIDs {
	with, without := map[string]bool{}, map[string]bool{}
	for _, kind := range []string{api.Dataplanes.Name, api.MeshServices.Name} {
		for _, id := range labelled.Get(r, labelledKey{Kind: kind, Mesh: k.Mesh}) {
			c := caller.Get(r, callerKey{id, k.Tags})
			for _, spiffe := range c.IDs {
				if c.Carries {
					with[spiffe] = true
				} else {
					without[spiffe] = true
				}
			}
		}
	}
	var out callerIDs
	for _, spiffe := range slices.Sorted(maps.Keys(with)) {
		if without[spiffe] {
			out.Shared = append(out.Shared, spiffe)
		} else {
			out.Own = append(out.Own, spiffe)
		}
	}
	return out
}, func(a, b callerIDs) bool { return slices.Equal(a.Own, b.Own) && slices.Equal(a.Shared, b.Shared) })

// callerKey asks whether one Dataplane, or one service of another zone, carries
// the tags.
type callerKey struct {
	ID   api.ID
	Tags string
}

// oneCaller is by which SPIFFE IDs something calls, and whether it carries tags.
type oneCaller struct {
	IDs     []string
	Carries bool
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
		c := oneCaller{Carries: api.HasTags(dp, tags)}
		if id := identity.Get(r, k.ID).ID; id != "" {
			c.IDs = []string{id}
		}
		return c
	}
	svc, ok := api.MeshServices.Get(r, k.ID)
	if !ok || !isRemote(r, &svc.Meta) {
		return oneCaller{} // its proxies speak for themselves
	}
	has := maps.Clone(svc.Labels)
	if has == nil {
		has = map[string]string{}
	}
	if has[api.LabelService] == "" {
		has[api.LabelService] = svc.Name
	}
	has[api.LabelZone] = svc.Zone
	c := oneCaller{Carries: api.HasLabels(has, tags)}
	for _, one := range svc.Spec.Identities {
		if one.Type == "SpiffeID" {
			c.IDs = append(c.IDs, one.Value)
		}
	}
	return c
}, func(a, b oneCaller) bool { return a.Carries == b.Carries && slices.Equal(a.IDs, b.IDs) })

// SharedCallers lists, sorted, the SPIFFE IDs that an older permission names by
// tags and that other proxies call by as well: its Allow does not let them in,
// and its Deny refuses the others too. Whoever reports on policies asks it.
var SharedCallers = incr.NewQuery("shared-callers", func(r *incr.Run, id api.ID) []string {
	p, ok := api.MeshTrafficPermissions.Get(r, id)
	if !ok {
		return nil
	}
	shared := map[string]bool{}
	for _, rule := range p.Spec.Rules {
		for _, m := range slices.Concat(rule.Default.Deny, rule.Default.Allow, rule.Default.AllowWithShadowDeny) {
			if m.Caller == nil || len(m.Caller.Tags) == 0 {
				continue
			}
			for _, one := range callers.Get(r, callersKey{id.Mesh, encodeLabels(m.Caller.Tags)}).Shared {
				shared[one] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(shared))
}, slices.Equal[[]string])
