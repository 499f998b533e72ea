package api

// AccessRole is a list of what may be done, given to people by
// AccessRoleBinding. Use it so that teams write only what is theirs. It is
// ours: the existing ecosystem has no roles in its open part, and never gets
// one from here.
type AccessRole struct {
	// What any one of them allows is allowed; there is nothing that forbids.
	Rules []AccessRule `json:"rules" req:"true" minItems:"1"`
}

// AccessRule allows the actions in Access on what all its other fields select;
// a field that is empty selects everything.
type AccessRule struct {
	// Kinds, such as MeshTimeout. Absent: all.
	Types []string `json:"types,omitempty"`
	// Names of resources. Absent: all.
	Names []string `json:"names,omitempty"`
	// What is in this mesh, and the Mesh itself. Absent: everything, resources
	// without a mesh included.
	Mesh string `json:"mesh,omitempty"`
	// The actions. Whoever may change something may also read it.
	Access []string `json:"access" req:"true" minItems:"1" items:"READ,CREATE,UPDATE,DELETE,GENERATE_DATAPLANE_TOKEN,GENERATE_USER_TOKEN,GENERATE_ZONE_TOKEN,VIEW_CONFIG_DUMP,VIEW_STATS,VIEW_CLUSTERS,VIEW_CONTROL_PLANE_METADATA"`
	// Narrows the rule: one of the conditions must hold. Absent: always.
	When []AccessCondition `json:"when,omitempty"`
}

// AccessCondition holds when all that it names is so. Of a resource that is
// changed the old and the new version must both satisfy it.
type AccessCondition struct {
	// The resource is a policy whose top-level targetRef has this kind and at
	// least these labels.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// The resource carries all of them; a token is bound to the workload that
	// kuma.io/workload names.
	Labels map[string]string `json:"labels,omitempty"`
}

// Action is something that roles allow.
type Action string

// The actions.
const (
	ActionRead                  Action = "READ"
	ActionCreate                Action = "CREATE"
	ActionUpdate                Action = "UPDATE"
	ActionDelete                Action = "DELETE"
	ActionGenerateDataplane     Action = "GENERATE_DATAPLANE_TOKEN"
	ActionGenerateUser          Action = "GENERATE_USER_TOKEN"
	ActionGenerateZone          Action = "GENERATE_ZONE_TOKEN"
	ActionViewConfigDump        Action = "VIEW_CONFIG_DUMP"
	ActionViewStats             Action = "VIEW_STATS"
	ActionViewClusters          Action = "VIEW_CLUSTERS"
	ActionViewControlPlaneState Action = "VIEW_CONTROL_PLANE_METADATA"
)

// AccessRoles written at global hold in all zones, those of a zone there.
var AccessRoles = newKind(Kind[AccessRole]{
	Facts: Facts{
		Name: "AccessRole", Plural: "access-roles", Scope: GlobalScope, Flow: Down, AdminOnly: true, Own: true, Kube: KubeCluster,
	},
	Validate: func(_ *Meta, s *AccessRole, r *Report) {
		for i, rule := range s.Rules {
			at := r.Index("rules", i)
			for j, c := range rule.When {
				if c.TargetRef == nil && len(c.Labels) == 0 {
					at.Index("when", j).Add("must define at least one of 'targetRef', 'labels'")
				}
				checkTop(c.TargetRef, false, at.Index("when", j).At("targetRef"))
			}
		}
	},
})

// AccessRoleBinding gives roles to users and groups. As soon as there is one,
// only administrators and those who are named in one may do what roles are
// about.
type AccessRoleBinding struct {
	// Who gets the roles.
	Subjects []AccessSubject `json:"subjects" req:"true" minItems:"1"`
	// Names of AccessRoles that were written where the binding was: one of
	// global means those of global, in every zone.
	Roles []string `json:"roles" req:"true" minItems:"1"`
}

// AccessSubject is a user, or all members of a group.
type AccessSubject struct {
	// User is one person or program, Group all whose token names the group.
	Type string `json:"type" req:"true" enum:"User,Group"`
	// The name in the token of the user.
	Name string `json:"name" req:"true" minLen:"1"`
}

// AccessRoleBindings are in force as soon as there is one.
var AccessRoleBindings = newKind(Kind[AccessRoleBinding]{
	Facts: Facts{
		Name: "AccessRoleBinding", Plural: "access-role-bindings", Scope: GlobalScope, Flow: Down, AdminOnly: true, Own: true, Kube: KubeCluster,
	},
})
