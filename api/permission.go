package api

// MeshTrafficPermission says who may call whom. Without one nobody may call a
// proxy that has an identity.
type MeshTrafficPermission struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef       `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	Rules     []PermissionRule `json:"rules,omitempty"`
}

// PermissionRule is lists of callers.
type PermissionRule struct {
	Default PermissionConf `json:"default,omitzero"`
}

// PermissionConf: Deny goes before the others; AllowWithShadowDeny allows and
// reports.
type PermissionConf struct {
	Deny                []Match `json:"deny,omitempty"`
	Allow               []Match `json:"allow,omitempty"`
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
