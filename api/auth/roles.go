package auth

import (
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Subject is what an action is about. For a token of a dataplane, Kind, Mesh and
// Name are those of the Dataplane and Labels hold the workload that the token is
// bound to; actions about the control plane itself have the zero Subject.
type Subject struct {
	Kind, Mesh, Name string
	Labels           map[string]string
	// TargetRef is the top-level targetRef of a policy; nil for other kinds.
	TargetRef *api.TargetRef
}

// RolesInForce reports whether AccessRoleBindings decide who may do what. While
// there is none, only the static access rules do.
func RolesInForce(r db.Reader) bool {
	for range api.AccessRoleBindings.All(r) {
		return true
	}
	return false
}

// Allowed reports whether the roles of the user allow the action. Administrators
// may do everything, so that nobody is locked out by a binding. Of a row that is
// changed the caller asks for the old and for the new version.
func Allowed(r db.Reader, u User, action api.Action, on Subject) bool {
	if u.Name == AdminName || slices.Contains(u.Groups, GroupAdmin) {
		return true
	}
	for binding := range api.AccessRoleBindings.All(r) {
		if !slices.ContainsFunc(binding.Spec.Subjects, u.is) {
			continue
		}
		for _, name := range binding.Spec.Roles {
			// Names are those of the control plane that wrote the binding.
			id := binding.ID
			id.Kind, id.Name = api.AccessRoles.Name, name
			role, ok := api.AccessRoles.Get(r, id)
			if ok && slices.ContainsFunc(role.Spec.Rules, func(rule api.AccessRule) bool { return allows(rule, action, on) }) {
				return true
			}
		}
	}
	return false
}

func (u User) is(s api.AccessSubject) bool {
	if s.Type == "Group" {
		return slices.Contains(u.Groups, s.Name)
	}
	return s.Name == u.Name
}

func allows(rule api.AccessRule, action api.Action, on Subject) bool {
	mesh := on.Mesh
	if on.Kind == api.Meshes.Name {
		mesh = on.Name
	}
	switch {
	case !grants(rule.Access, action),
		len(rule.Types) > 0 && !slices.Contains(rule.Types, on.Kind),
		len(rule.Names) > 0 && !slices.Contains(rule.Names, on.Name),
		rule.Mesh != "" && rule.Mesh != mesh:
		return false
	}
	return len(rule.When) == 0 || slices.ContainsFunc(rule.When, on.satisfies)
}

// grants: whoever may change something may also read it.
func grants(access []string, action api.Action) bool {
	return slices.ContainsFunc(access, func(a string) bool {
		switch granted := api.Action(a); granted {
		case action:
			return true
		case api.ActionCreate, api.ActionUpdate, api.ActionDelete:
			return action == api.ActionRead
		}
		return false
	})
}

func (on Subject) satisfies(c api.AccessCondition) bool {
	if want := c.TargetRef; want != nil {
		have := on.TargetRef
		if have == nil || have.Kind != want.Kind || !api.HasLabels(have.Labels, want.Labels) {
			return false
		}
	}
	return api.HasLabels(on.Labels, c.Labels)
}
