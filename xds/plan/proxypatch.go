package plan

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var patchSet = newPolicySet("patches", api.MeshProxyPatches, func(s *api.MeshProxyPatch) *api.TargetRef { return s.TargetRef })

// patchesFor is the changes that a class of proxies gets, in order.
var patchesFor = newOwnPolicy("patches-for", patchSet, func(s *api.MeshProxyPatch) api.ProxyPatchConf { return s.Default }, func(rule policy.Rule[api.ProxyPatchConf]) patches {
	var out patches
	for _, step := range rule.Steps { // lists that are appended: the merge is the steps, and each knows its policy
		for _, m := range step.Conf.AppendModifications {
			out = append(out, patchesOf(api.MeshProxyPatches.KRI(step.Policy.ID, ""), m)...)
		}
	}
	return out
})

// patches is changes in their order, each with what it is for.
type patches []patch

type patch struct {
	origin   ir.Origin // empty: any
	resource string    // name of the cluster, listener or route configuration; empty: any
	tags     map[string]string
	ir.Patch
}

// patchesOf is the members of a modification; a valid one has one.
func patchesOf(source string, m api.Modification) (out patches) {
	for _, c := range m.Changes() {
		p := patch{Patch: ir.Patch{Policy: source, Target: c.Target, Operation: c.Operation}}
		if c.Value != "" {
			p.Value, _ = c.JSON() // validation has read it
		}
		if len(c.JSONPatches) > 0 {
			p.JSONPatch, _ = json.Marshal(c.JSONPatches) // plain data encodes
		}
		switch {
		case m.Cluster != nil && m.Cluster.Match != nil:
			p.origin, p.resource = ir.Origin(m.Cluster.Match.Origin), m.Cluster.Match.Name
		case m.Listener != nil && m.Listener.Match != nil:
			p.origin, p.resource, p.tags = ir.Origin(m.Listener.Match.Origin), m.Listener.Match.Name, m.Listener.Match.Tags
		case m.NetworkFilter != nil:
			p.filter(m.NetworkFilter.Match)
		case m.HTTPFilter != nil:
			p.filter(m.HTTPFilter.Match)
		case m.VirtualHost != nil && m.VirtualHost.Match != nil:
			p.origin, p.resource, p.Name = ir.Origin(m.VirtualHost.Match.Origin), m.VirtualHost.Match.RouteConfigurationName, m.VirtualHost.Match.Name
		}
		out = append(out, p)
	}
	return out
}

func (p *patch) filter(m *api.FilterPatchMatch) {
	if m != nil {
		p.origin, p.resource, p.tags, p.Name = ir.Origin(m.Origin), m.ListenerName, m.ListenerTags, m.Name
	}
}

// is reports whether the change is for a resource; one that was added is also found
// by the name that its origin had in earlier releases.
func (p *patch) is(origin ir.Origin, name string, tags map[string]string) bool {
	if p.origin != "" && p.origin != origin && !(origin == ir.OriginPatch && p.origin == "proxy-template-modifications") {
		return false
	}
	if p.resource != "" && p.resource != name && p.resource != olderThroughName(name) {
		return false
	}
	for key, value := range p.tags {
		if have, ok := tags[key]; !ok || value != "*" && value != have {
			return false
		}
	}
	return true
}

func (all patches) matching(is func(*patch) bool) []ir.Patch {
	var out []ir.Patch
	for i := range all {
		if is(&all[i]) {
			out = append(out, all[i].Patch)
		}
	}
	return out
}

// structural reports whether a change is of which resources there are.
func (p *patch) structural() bool {
	return (p.Target == "cluster" || p.Target == "listener") && p.Operation != "Patch"
}

// patchesKey asks for the changes of one sort of resources, so that a change of one
// sort costs the others nothing.
type patchesKey struct {
	Class policy.Class
	Of    wire.Type
}

var patchesOn = incr.NewQuery("patches-on", func(r *incr.Run, k patchesKey) patches {
	return slices.DeleteFunc(slices.Clone(patchesFor.Get(r, k.Class)), func(p patch) bool {
		switch k.Of {
		case wire.Cluster:
			return p.Target != "cluster" || p.structural()
		case wire.Route:
			return p.Target != "virtualHost"
		}
		return p.Target == "cluster" || p.structural()
	})
}, func(a, b patches) bool { return reflect.DeepEqual(a, b) })

func (all patches) cluster(origin ir.Origin, name string) []ir.Patch {
	return all.matching(func(p *patch) bool { return p.Target == "cluster" && !p.structural() && p.is(origin, name, nil) })
}

// clusterPatches is the changes that a class of proxies makes to a cluster.
func clusterPatches(r *incr.Run, c policy.Class, origin ir.Origin, name string) []ir.Patch {
	return patchesOn.Get(r, patchesKey{c, wire.Cluster}).cluster(origin, name)
}

// listenerPatches is those to a listener.
func listenerPatches(r *incr.Run, c policy.Class, origin ir.Origin, name string, tags map[string]string) []ir.Patch {
	return patchesOn.Get(r, patchesKey{c, wire.Listener}).listener(origin, name, tags)
}

// routePatches is those to routes that are a resource of their own.
func routePatches(r *incr.Run, c policy.Class, origin ir.Origin, name string) []ir.Patch {
	return patchesOn.Get(r, patchesKey{c, wire.Route}).matching(func(p *patch) bool { return p.is(origin, name, nil) })
}

func (all patches) listener(origin ir.Origin, name string, tags map[string]string) []ir.Patch {
	return all.matching(func(p *patch) bool {
		switch p.Target {
		case "listener":
			return !p.structural() && p.is(origin, name, tags)
		case "virtualHost": // of routes inside the listener, which are named like it
			return p.is(origin, name, nil)
		}
		return p.Target != "cluster" && p.is(origin, name, tags)
	})
}

// patchWord is a list of patches in a key; the zero word is none, which is what
// nearly all resources have.
func patchWord(list []ir.Patch) word[[]ir.Patch] {
	if len(list) == 0 {
		return word[[]ir.Patch]{}
	}
	return wordOf(list)
}

// structure is the changes of which resources there are, with those of what was
// added: what names depend on.
var structure = incr.NewQuery("patches-structure", func(r *incr.Run, c policy.Class) patches {
	all := patchesFor.Get(r, c)
	if !slices.ContainsFunc(all, func(p patch) bool { return p.structural() }) {
		return nil
	}
	return all
}, func(a, b patches) bool { return reflect.DeepEqual(a, b) })

// restructure makes the changes of which resources a set names. Only with add it
// gets what is added: there is one such set of a proxy.
func (all patches) restructure(s *Set, add bool, about func(t wire.Type, name string) (ir.Origin, map[string]string)) {
	added := map[Ref]bool{}
	for i := range all {
		p := &all[i]
		if !p.structural() {
			continue
		}
		t, names := wire.Cluster, s.Clusters
		if p.Target == "listener" {
			t, names = wire.Listener, s.Listeners
		}
		if p.Operation == "Remove" {
			maps.DeleteFunc(names, func(name string, ref Ref) bool {
				origin, tags := ir.OriginPatch, map[string]string(nil)
				if !added[ref] {
					origin, tags = about(t, name)
				}
				return p.is(origin, name, tags)
			})
			continue
		}
		if name, ok := addedName(p.Patch); ok && add {
			key := []ir.Patch{p.Patch}
			if t == wire.Cluster {
				key = append(key, all[i+1:].cluster(ir.OriginPatch, name)...)
			} else {
				key = append(key, all[i+1:].listener(ir.OriginPatch, name, nil)...)
			}
			names[name] = addedBytes.Ref(wordOf(key))
			added[names[name]] = true
		}
	}
	maps.DeleteFunc(s.Endpoints, func(name string, _ Ref) bool { _, ok := s.Clusters[name]; return !ok })
}

func addedName(p ir.Patch) (string, bool) {
	m, err := envoy.ParsePatch(p.Target, p.Value, true)
	if err != nil {
		return "", false // refused where it was written
	}
	named, ok := m.(interface{ GetName() string })
	return named.GetName(), ok
}

var addedBytes = incr.NewQuery("encode.added", func(r *incr.Run, k word[[]ir.Patch]) *wire.Resource {
	list := k.value()
	t := wire.Cluster
	if list[0].Target == "listener" {
		t = wire.Listener
	}
	name, _ := addedName(list[0])
	return encode(r, t, name, func(list []ir.Patch) (proto.Message, error) { return envoy.Added(list) }, list)
}, sameBytes)
