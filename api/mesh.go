package api

import "encoding/json"

// Mesh is a set of services that may know of each other; everything with a mesh
// belongs to exactly one. Most of its fields are those of earlier releases: what
// they mean is kept (see [MeshRows]), or holds anyway, or they are refused with
// what replaces them.
type Mesh struct {
	_ struct{} `gone:"logging" use:"MeshAccessLog"`
	_ struct{} `gone:"tracing" use:"MeshTrace"`
	_ struct{} `gone:"metrics" use:"MeshMetric"`
	_ struct{} `gone:"constraints" use:""`

	// MTLS nil leaves identities to MeshIdentity.
	MTLS         *MeshMTLS         `json:"mtls,omitempty"`
	Networking   *MeshNetworking   `json:"networking,omitempty"`
	Routing      *MeshRouting      `json:"routing,omitempty"`
	MeshServices *MeshServicesMode `json:"meshServices,omitempty"`
	// SkipCreatingInitialPolicies are the kinds of which a new mesh gets no
	// initial row; * means all of them.
	SkipCreatingInitialPolicies []string `json:"skipCreatingInitialPolicies,omitempty"`
}

// MeshNetworking is what proxies may reach beside the mesh.
type MeshNetworking struct {
	Outbound *MeshOutbound `json:"outbound,omitempty"`
}

// MeshOutbound says whether addresses that no service has can be called.
type MeshOutbound struct {
	// Passthrough nil is true.
	Passthrough *bool `json:"passthrough,omitempty"`
}

// MeshRouting is accepted as far as it says what holds anyway.
type MeshRouting struct {
	_ struct{} `gone:"zoneEgress" use:"Dataplane listeners with type ZoneEgress"`
	// Endpoints of the own zone are always preferred, and external services
	// always need a permission: MeshLoadBalancingStrategy and
	// MeshTrafficPermission say otherwise.
	LocalityAwareLoadBalancing             bool `json:"localityAwareLoadBalancing,omitempty"`
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
