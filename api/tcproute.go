package api

// MeshTCPRoute says where connections to a service go.
type MeshTCPRoute struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef       `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshTCPRouteTo `json:"to,omitempty" minItems:"1"`
}

// MeshTCPRouteTo is the route of one destination.
type MeshTCPRouteTo struct {
	TargetRef TargetRef      `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Rules     []TCPRouteRule `json:"rules,omitempty" maxItems:"1"`
}

// TCPRouteRule is about every connection.
type TCPRouteRule struct {
	Default TCPRouteConf `json:"default" req:"true"`
}

// TCPRouteConf is where connections go; at least one backend.
type TCPRouteConf struct {
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
