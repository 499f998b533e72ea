package api

import (
	"encoding/json"

	"sigs.k8s.io/yaml"
)

// MeshProxyPatch changes what proxies get after everything else is decided, in
// Envoy's own words.
type MeshProxyPatch struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef     `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	Default   ProxyPatchConf `json:"default" req:"true"`
}

// ProxyPatchConf is changes, made one after the other.
type ProxyPatchConf struct {
	AppendModifications []Modification `json:"appendModifications,omitempty"`
}

// Modification is one change; exactly one member is set.
type Modification struct {
	Cluster       *ResourcePatch[PatchMatch]            `json:"cluster,omitempty"`
	Listener      *ResourcePatch[ListenerPatchMatch]    `json:"listener,omitempty"`
	NetworkFilter *FilterPatch                          `json:"networkFilter,omitempty"`
	HTTPFilter    *FilterPatch                          `json:"httpFilter,omitempty"`
	VirtualHost   *ResourcePatch[VirtualHostPatchMatch] `json:"virtualHost,omitempty"`
}

// ResourcePatch adds, removes or changes what has a name of its own. Value is
// an Envoy protobuf in YAML; JSONPatches change the JSON of what is there.
type ResourcePatch[M any] struct {
	Match       *M          `json:"match,omitempty"`
	Operation   string      `json:"operation" req:"true" enum:"Add,Remove,Patch"`
	Value       *string     `json:"value,omitempty"`
	JSONPatches []JSONPatch `json:"jsonPatches,omitempty"`
}

// FilterPatch is the same for filters, whose order counts.
type FilterPatch struct {
	Match       *FilterPatchMatch `json:"match,omitempty"`
	Operation   string            `json:"operation" req:"true" enum:"Remove,Patch,AddFirst,AddBefore,AddAfter,AddLast"`
	Value       *string           `json:"value,omitempty"`
	JSONPatches []JSONPatch       `json:"jsonPatches,omitempty"`
}

// PatchMatch tells resources apart; all that is set must hold.
type PatchMatch struct {
	Origin string `json:"origin,omitempty"`
	Name   string `json:"name,omitempty"`
}

// ListenerPatchMatch tells listeners apart; all that is set must hold.
type ListenerPatchMatch struct {
	Origin string `json:"origin,omitempty"`
	Name   string `json:"name,omitempty"`
	// Tags are those in the listener's metadata; * is any value.
	Tags map[string]string `json:"tags,omitempty"`
}

// FilterPatchMatch tells filters apart; all that is set must hold.
type FilterPatchMatch struct {
	Origin       string            `json:"origin,omitempty"`
	Name         string            `json:"name,omitempty"`
	ListenerName string            `json:"listenerName,omitempty"`
	ListenerTags map[string]string `json:"listenerTags,omitempty"`
}

// VirtualHostPatchMatch tells virtual hosts apart; all that is set must hold.
type VirtualHostPatchMatch struct {
	Origin                 string `json:"origin,omitempty"`
	Name                   string `json:"name,omitempty"`
	RouteConfigurationName string `json:"routeConfigurationName,omitempty"`
}

// JSONPatch is one operation of RFC 6902, of which test is left out.
type JSONPatch struct {
	Op    string `json:"op" req:"true" enum:"add,remove,replace,move,copy"`
	Path  string `json:"path" req:"true"`
	From  string `json:"from,omitempty"`
	Value any    `json:"value,omitempty"`
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
