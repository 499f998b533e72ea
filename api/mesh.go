package api

import "encoding/json"

// Mesh is a set of services that may know of each other, with one set of
// policies and identities; everything with a mesh belongs to exactly one. Use
// several for parts that must have nothing to do with each other. Whoever may
// delete a mesh deletes all that is in it, whatever they may do to its parts;
// while there are Dataplanes in it, nobody can. Most fields are those of earlier releases: what they mean is kept, or holds anyway, or
// they are refused with what replaces them.
type Mesh struct {
	_ struct{} `gone:"logging" use:"MeshAccessLog"`
	_ struct{} `gone:"tracing" use:"MeshTrace"`
	_ struct{} `gone:"metrics" use:"MeshMetric"`
	_ struct{} `gone:"constraints" use:""`

	// The identities of earlier releases: a MeshIdentity and a MeshTLS are made
	// of it. Absent: identities are left to MeshIdentity.
	MTLS *MeshMTLS `json:"mtls,omitempty"`
	// Of earlier releases; see MeshPassthrough.
	Networking *MeshNetworking `json:"networking,omitempty"`
	// Of earlier releases; accepted as far as it says what holds anyway.
	Routing *MeshRouting `json:"routing,omitempty"`
	// Of earlier releases; the mode Exclusive is accepted, as it holds anyway.
	MeshServices *MeshServicesMode `json:"meshServices,omitempty"`
	// Kinds of which a new mesh gets no initial policy or identity, such as
	// [MeshRetry]; [*] is all of them. It has no effect later.
	SkipCreatingInitialPolicies []string `json:"skipCreatingInitialPolicies,omitempty"`
}

// MeshNetworking is what proxies may reach beside the mesh.
type MeshNetworking struct {
	// What proxies may call beside the mesh.
	Outbound *MeshOutbound `json:"outbound,omitempty"`
}

// MeshOutbound says whether addresses that no service has can be called.
type MeshOutbound struct {
	// false makes a MeshPassthrough with mode None: addresses that no service
	// has cannot be called. Absent: true.
	Passthrough *bool `json:"passthrough,omitempty"`
}

// MeshRouting is accepted as far as it says what holds anyway.
type MeshRouting struct {
	_ struct{} `gone:"zoneEgress" use:"Dataplane listeners with type ZoneEgress"`
	// Holds anyway: endpoints of the own zone are preferred, unless a
	// MeshLoadBalancingStrategy says otherwise.
	LocalityAwareLoadBalancing bool `json:"localityAwareLoadBalancing,omitempty"`
	// Holds anyway: external services need a MeshTrafficPermission.
	DefaultForbidMeshExternalServiceAccess bool `json:"defaultForbidMeshExternalServiceAccess,omitempty"`
}

// MeshServicesMode is accepted as far as it says what holds anyway.
type MeshServicesMode struct {
	_ struct{} `gone:"mode" use:"Exclusive: services are always MeshServices"`
}

// Meshes are written by global, or by a zone without one.
var Meshes = newKind(Kind[Mesh]{
	Facts: Facts{
		Name: "Mesh", Plural: "meshes", Short: "m", Scope: GlobalScope, Flow: Down,
		Flat: true, Unhashed: true, GlobalOnly: true, DNSName: true, Kube: KubeCluster,
	},
	Upgrade: upgradeMesh,
	ByRows:  []string{"mtls", "networking", "routing", "meshServices"},
	Validate: func(_ *Meta, s *Mesh, r *Report) {
		if s.MTLS != nil {
			s.MTLS.check(r.At("mtls"))
		}
	},
})

// upgradeMesh takes out what says nothing beyond what holds anyway.
func upgradeMesh(spec map[string]any, _ *Report) {
	drop := func(parent, field string, values ...any) {
		if tree, ok := spec[parent].(map[string]any); ok {
			for _, v := range values {
				if tree[field] == v {
					delete(tree, field)
				}
			}
		}
	}
	drop("routing", "zoneEgress", false)
	drop("meshServices", "mode", "Exclusive", json.Number("3"))
	for _, field := range []string{"logging", "tracing", "metrics", "constraints"} {
		if says, ok := spec[field]; ok && isEmpty(says) {
			delete(spec, field)
		}
	}
	mtls, _ := spec["mtls"].(map[string]any)
	backends, _ := mtls["backends"].([]any)
	for _, b := range backends {
		backend, _ := b.(map[string]any)
		conf, _ := backend["conf"].(map[string]any)
		upgradeDataSource(conf, "cert")
		upgradeDataSource(conf, "key")
	}
}

// isEmpty reports whether a JSON value holds nothing but empty values.
func isEmpty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			if !isEmpty(member) {
				return false
			}
		}
		return true
	case []any:
		return len(v) == 0
	}
	return v == nil || v == ""
}
