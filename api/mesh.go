package api

// Mesh is a set of services that may know of each other; everything with a mesh
// belongs to exactly one.
type Mesh struct {
	_ struct{} `gone:"mtls" use:"MeshIdentity and MeshTrust"`
	_ struct{} `gone:"logging" use:"MeshAccessLog"`
	_ struct{} `gone:"tracing" use:"MeshTrace"`
	_ struct{} `gone:"metrics" use:"MeshMetric"`
	_ struct{} `gone:"networking" use:"MeshPassthrough"`
	_ struct{} `gone:"routing" use:"MeshLoadBalancingStrategy and MeshTrafficPermission"`
	_ struct{} `gone:"constraints" use:""`
	_ struct{} `gone:"meshServices" use:""`

	// SkipCreatingInitialPolicies are the kinds of which a new mesh gets no
	// initial row; * means all of them.
	SkipCreatingInitialPolicies []string `json:"skipCreatingInitialPolicies,omitempty"`
}

// Meshes are written by global, or by a zone without one.
var Meshes = newKind(Kind[Mesh]{
	Facts: Facts{
		Name: "Mesh", Plural: "meshes", Short: "m", Scope: GlobalScope, Flow: Down,
		Flat: true, Unhashed: true, GlobalOnly: true, DNSName: true,
	},
})
