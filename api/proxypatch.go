package api

import (
	"encoding/json"

	"sigs.k8s.io/yaml"
)

// MeshProxyPatch changes Envoy's configuration after everything else is
// decided, in Envoy's own words. Use it for what no policy can say; its names
// are those of an Envoy version, so that upgrades can break it.
type MeshProxyPatch struct {
	// The proxies that are changed; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// What is changed.
	Default ProxyPatchConf `json:"default" req:"true"`
}

// ProxyPatchConf is changes, made one after the other.
type ProxyPatchConf struct {
	// Changes, made one after the other; those of less specific policies come
	// first. One that cannot be made leaves the proxy with what it has.
	AppendModifications []Modification `json:"appendModifications,omitempty"`
}

// Modification is one change; exactly one member is set.
type Modification struct {
	// A cluster: where Envoy sends traffic.
	Cluster *ResourcePatch[PatchMatch] `json:"cluster,omitempty"`
	// A listener: where Envoy takes traffic.
	Listener *ResourcePatch[ListenerPatchMatch] `json:"listener,omitempty"`
	// A network filter, in all filter chains of the listeners that match.
	NetworkFilter *FilterPatch `json:"networkFilter,omitempty"`
	// An HTTP filter, in all HTTP connection managers of the listeners that
	// match.
	HTTPFilter *FilterPatch `json:"httpFilter,omitempty"`
	// A virtual host of a route configuration.
	VirtualHost *ResourcePatch[VirtualHostPatchMatch] `json:"virtualHost,omitempty"`
}

// ResourcePatch adds, removes or changes what has a name of its own.
type ResourcePatch[M any] struct {
	// What is removed or changed; absent: everything of the sort. Add takes
	// none, or for a virtual host the route configuration.
	Match *M `json:"match,omitempty"`
	// Patch merges value into what is there, or applies jsonPatches to it.
	Operation string `json:"operation" req:"true" enum:"Add,Remove,Patch"`
	// The Envoy protobuf as YAML in a text, typed_config with @type: all of it
	// for Add, the part to merge for Patch, where lists are appended to.
	Value *string `json:"value,omitempty"`
	// Operations on the JSON form of what is there, in place of value; for
	// Patch.
	JSONPatches []JSONPatch `json:"jsonPatches,omitempty"`
}

// FilterPatch is the same for filters, whose order counts.
type FilterPatch struct {
	// What is removed or changed, or next to what is added; absent: every
	// filter. Patch, AddBefore and AddAfter need its name.
	Match *FilterPatchMatch `json:"match,omitempty"`
	// Where a filter is added, or that it is changed or taken out; the last HTTP
	// filter must stay the router.
	Operation string `json:"operation" req:"true" enum:"Remove,Patch,AddFirst,AddBefore,AddAfter,AddLast"`
	// The Envoy filter as YAML in a text, name and typed_config with @type: all
	// of it to add, the part to merge into typed_config for Patch.
	Value *string `json:"value,omitempty"`
	// Operations on the JSON form of typed_config, in place of value; for Patch.
	JSONPatches []JSONPatch `json:"jsonPatches,omitempty"`
}

// PatchMatch tells resources apart; all that is set must hold.
type PatchMatch struct {
	// What it was made for: inbound, outbound, transparent, prometheus, ingress,
	// egress ….
	Origin string `json:"origin,omitempty"`
	// The whole name in Envoy, such as self_inbound_dp_http, as a configuration
	// dump shows it.
	Name string `json:"name,omitempty"`
}

// ListenerPatchMatch tells listeners apart; all that is set must hold.
type ListenerPatchMatch struct {
	// What it was made for: inbound, outbound, transparent, prometheus, ingress,
	// egress ….
	Origin string `json:"origin,omitempty"`
	// The whole name in Envoy, such as self_inbound_dp_http, as a configuration
	// dump shows it.
	Name string `json:"name,omitempty"`
	// Tags in the listener's metadata (io.kuma.tags), all of them; * is any
	// value.
	Tags map[string]string `json:"tags,omitempty"`
}

// FilterPatchMatch tells filters apart; all that is set must hold.
type FilterPatchMatch struct {
	// What the listener was made for: inbound, outbound, transparent,
	// prometheus, ingress, egress ….
	Origin string `json:"origin,omitempty"`
	// The whole name of the filter, such as envoy.filters.http.router.
	Name string `json:"name,omitempty"`
	// The whole name of its listener.
	ListenerName string `json:"listenerName,omitempty"`
	// Tags in the listener's metadata (io.kuma.tags), all of them; * is any
	// value.
	ListenerTags map[string]string `json:"listenerTags,omitempty"`
}

// VirtualHostPatchMatch tells virtual hosts apart; all that is set must hold.
type VirtualHostPatchMatch struct {
	// What the listener was made for: inbound, outbound ….
	Origin string `json:"origin,omitempty"`
	// The whole name of the virtual host.
	Name string `json:"name,omitempty"`
	// The whole name of the route configuration that it is in.
	RouteConfigurationName string `json:"routeConfigurationName,omitempty"`
}

// JSONPatch is one operation of RFC 6902, of which test is left out.
type JSONPatch struct {
	// The operation.
	Op string `json:"op" req:"true" enum:"add,remove,replace,move,copy"`
	// Where, as JSON pointer (RFC 6901), such as /connectTimeout; a "-" at the
	// end appends to a list.
	Path string `json:"path" req:"true"`
	// Where move and copy take the value from, as JSON pointer.
	From string `json:"from,omitempty"`
	// The new value, any JSON; for add and replace.
	Value any `json:"value,omitempty"`
}

// MeshProxyPatches are written anywhere.
var MeshProxyPatches = newKind(Kind[MeshProxyPatch]{
	Facts: Facts{
		Name: "MeshProxyPatch", Plural: "meshproxypatches", Short: "mpp", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Single: true},
	},
	Cross: crossesAsProducer,
	Validate: func(_ *Meta, s *MeshProxyPatch, r *Report) {
		checkTop(s.TargetRef, false, r.At("targetRef"))
		at := r.At("default")
		if len(s.Default.AppendModifications) == 0 {
			at.At("appendModifications").Add("must not be empty")
		}
		for i, m := range s.Default.AppendModifications {
			m.check(at.Index("appendModifications", i))
		}
	},
})

// Change is what all members of a [Modification] have in common.
type Change struct {
	// Target is cluster, listener, networkFilter, httpFilter or virtualHost.
	Target      string
	Operation   string
	Value       string // YAML; empty: none
	JSONPatches []JSONPatch

	matches bool   // there is a match
	name    string // the name that it asks for
}

// Changes lists the members that are set; a valid modification has one.
func (m *Modification) Changes() []Change {
	var out []Change
	add := func(target, operation string, value *string, patches []JSONPatch, matches bool, name string) {
		c := Change{Target: target, Operation: operation, JSONPatches: patches, matches: matches, name: name}
		if value != nil {
			c.Value = *value
		}
		out = append(out, c)
	}
	if p := m.Cluster; p != nil {
		add("cluster", p.Operation, p.Value, p.JSONPatches, p.Match != nil, orZero(p.Match).Name)
	}
	if p := m.Listener; p != nil {
		add("listener", p.Operation, p.Value, p.JSONPatches, p.Match != nil, orZero(p.Match).Name)
	}
	if p := m.NetworkFilter; p != nil {
		add("networkFilter", p.Operation, p.Value, p.JSONPatches, p.Match != nil, orZero(p.Match).Name)
	}
	if p := m.HTTPFilter; p != nil {
		add("httpFilter", p.Operation, p.Value, p.JSONPatches, p.Match != nil, orZero(p.Match).Name)
	}
	if p := m.VirtualHost; p != nil {
		add("virtualHost", p.Operation, p.Value, p.JSONPatches, p.Match != nil, orZero(p.Match).Name)
	}
	return out
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (m *Modification) check(r *Report) {
	changes := m.Changes()
	if len(changes) != 1 {
		r.Add("modification must have exactly one defined: cluster, listener, networkFilter, httpFilter, virtualHost")
	}
	for _, c := range changes {
		c.check(r.At(c.Target))
	}
}

func (c *Change) check(r *Report) {
	value, patches := r.At("value"), r.At("jsonPatches")
	filter := c.Target == "networkFilter" || c.Target == "httpFilter"
	switch c.Operation {
	case "Patch":
		if (c.Value == "") == (len(c.JSONPatches) == 0) {
			r.Add("patch must have exactly one defined: value, jsonPatches")
		}
		if filter && c.name == "" {
			r.At("match.name").Add("must be defined")
		}
	case "Remove":
		if c.Value != "" {
			value.Add("must not be defined")
		}
	default:
		if c.Value == "" {
			value.Add("must be defined")
		}
		switch {
		case (c.Operation == "AddBefore" || c.Operation == "AddAfter") && c.name == "":
			r.At("match.name").Add("must be defined")
		case c.Target == "virtualHost" && c.name != "":
			r.At("match.name").Add("must not be defined")
		case (c.Target == "cluster" || c.Target == "listener") && c.matches:
			r.At("match").Add("must not be defined")
		}
	}
	if c.Operation != "Patch" && len(c.JSONPatches) > 0 {
		patches.Add("must not be defined")
	}
	if c.Value != "" {
		if _, err := c.JSON(); err != nil {
			value.Add("must be an object in YAML: %v", err)
		}
	}
	for i, p := range c.JSONPatches {
		p.check(r.Index("jsonPatches", i))
	}
}

// JSON is the value of the change as a JSON object. Whether it is the protobuf
// that the target needs can only be said by who knows Envoy.
func (c *Change) JSON() (json.RawMessage, error) {
	body, err := yaml.YAMLToJSONStrict([]byte(c.Value))
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, err
	}
	return body, nil
}

func (p *JSONPatch) check(r *Report) {
	need := func(field string, needed, set bool) {
		if needed && !set {
			r.At(field).Add("must be defined")
		} else if !needed && set {
			r.At(field).Add("must not be defined")
		}
	}
	need("value", p.Op == "add" || p.Op == "replace", p.Value != nil)
	need("from", p.Op == "move" || p.Op == "copy", p.From != "")
	if p.Op == "remove" && (p.Path == "" || p.Path == "/") {
		r.At("path").Add("root path cannot be removed")
	}
}
