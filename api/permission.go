package api

// MeshTrafficPermission says who may call whom, by the identities of callers. A
// proxy that has an identity refuses every caller that no permission lets in.
type MeshTrafficPermission struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are called, or one inbound of them; absent: all of the
	// mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Lists of callers. Those of all policies that select a proxy count
	// together; none replaces another.
	Rules []PermissionRule `json:"rules,omitempty"`
}

// PermissionRule is lists of callers.
type PermissionRule struct {
	// Who is let in and who is not; at least one of the lists.
	Default PermissionConf `json:"default,omitzero"`
}

// PermissionConf: Deny goes before the others; AllowWithShadowDeny allows and
// reports.
type PermissionConf struct {
	// Callers that are refused, whatever else allows them.
	Deny []Match `json:"deny,omitempty"`
	// Callers that are let in unless a deny matches; {} matches everybody.
	Allow []Match `json:"allow,omitempty"`
	// Callers that are let in, and counted in Envoy's shadow statistics as if
	// refused: to see what a deny would do.
	AllowWithShadowDeny []Match `json:"allowWithShadowDeny,omitempty"`
}

// MeshTrafficPermissions are written anywhere.
var MeshTrafficPermissions = newKind(Kind[MeshTrafficPermission]{
	Facts: Facts{
		Name: "MeshTrafficPermission", Plural: "meshtrafficpermissions", Short: "mtp", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Rules: true, Callers: true},
	},
	Cross:    crossesAsProducer,
	Validate: validatePermission,
})

func validatePermission(_ *Meta, s *MeshTrafficPermission, r *Report) {
	checkTop(s.TargetRef, true, r.At("targetRef"))
	if len(s.Rules) == 0 {
		r.Add("policy must define rules")
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		if len(rule.Default.Deny)+len(rule.Default.Allow)+len(rule.Default.AllowWithShadowDeny) == 0 {
			at.Add("at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined")
		}
		list := func(field string, matches []Match) {
			for j, m := range matches {
				checkMatch(m, at.Index(field, j)) // without default: so the existing ecosystem reports it
			}
		}
		list("deny", rule.Default.Deny)
		list("allow", rule.Default.Allow)
		list("allowWithShadowDeny", rule.Default.AllowWithShadowDeny)
	}
}
