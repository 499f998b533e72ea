package api

// MeshTCPRoute says where connections to a service go: to split them between
// versions or move them elsewhere. A MeshHTTPRoute for the same port goes
// before it.
type MeshTCPRoute struct {
	// The proxies that call; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Routes, by the service that is called.
	To []MeshTCPRouteTo `json:"to,omitempty" minItems:"1"`
}

// MeshTCPRouteTo is the route of one destination.
type MeshTCPRouteTo struct {
	// The service that clients call, all of its ports or the one in sectionName.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// What happens to connections; one rule is all there can be, as there is
	// nothing to match.
	Rules []TCPRouteRule `json:"rules,omitempty" maxItems:"1"`
}

// TCPRouteRule is about every connection.
type TCPRouteRule struct {
	// What happens to every connection.
	Default TCPRouteConf `json:"default" req:"true"`
}

// TCPRouteConf is where connections go; at least one backend.
type TCPRouteConf struct {
	// Where connections go, by weight, at least one reference. Those that are
	// not resolved are left out; without any other nothing listens.
	BackendRefs []BackendRef `json:"backendRefs,omitempty"`
}

// MeshTCPRoutes are written anywhere.
var MeshTCPRoutes = newKind(Kind[MeshTCPRoute]{
	Facts: Facts{
		Name: "MeshTCPRoute", Plural: "meshtcproutes", Short: "mtcpr", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateTCPRoute,
})

func validateTCPRoute(_ *Meta, s *MeshTCPRoute, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	kinds := []string{RefService, RefExternalService, RefMultiZoneService}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		for j, rule := range to.Rules {
			conf := at.Index("rules", j).At("default")
			if len(rule.Default.BackendRefs) == 0 {
				conf.At("backendRefs").Add("must be defined")
			}
			for k, ref := range rule.Default.BackendRefs {
				checkBackend(ref, conf.Index("backendRefs", k))
			}
		}
	}
}
