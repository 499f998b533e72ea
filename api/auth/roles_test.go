package auth_test

import (
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
)

func TestRoles(t *testing.T) {
	d := db.New(api.Schema)
	if auth.RolesInForce(d.Snapshot()) {
		t.Error("roles without a binding")
	}
	role := func(tx *db.Tx, zone, name string, rules ...api.AccessRule) {
		api.AccessRoles.PutObject(tx, api.AccessRoles.New(api.Meta{ID: api.ID{Kind: "AccessRole", Zone: zone, Name: name}}, api.AccessRole{Rules: rules}))
	}
	bind := func(tx *db.Tx, zone, typ, subject, role string) {
		api.AccessRoleBindings.PutObject(tx, api.AccessRoleBindings.New(api.Meta{ID: api.ID{Kind: "AccessRoleBinding", Zone: zone, Name: subject}},
			api.AccessRoleBinding{Subjects: []api.AccessSubject{{Type: typ, Name: subject}}, Roles: []string{role}}))
	}
	_, err := d.Write(func(tx *db.Tx) error {
		web := map[string]string{"team": "web"}
		role(tx, "", "web",
			api.AccessRule{Types: []string{"MeshTimeout"}, Mesh: "shop", Access: []string{"CREATE", "UPDATE"}, When: []api.AccessCondition{
				{TargetRef: &api.TargetRef{Kind: "Dataplane", Labels: web}}, {Labels: map[string]string{"open": "yes"}},
			}},
			api.AccessRule{Types: []string{"Mesh"}, Mesh: "shop", Access: []string{"READ"}},
			api.AccessRule{Access: []string{"GENERATE_DATAPLANE_TOKEN"}, Mesh: "shop", When: []api.AccessCondition{{Labels: map[string]string{"kuma.io/workload": "web"}}}},
			api.AccessRule{Types: []string{"Dataplane"}, Names: []string{"web-1"}, Access: []string{"VIEW_STATS"}})
		role(tx, "east", "web", api.AccessRule{Access: []string{"DELETE"}})
		role(tx, "east", "reader", api.AccessRule{Access: []string{"READ"}})
		bind(tx, "", "Group", "web", "web")
		bind(tx, "east", "User", "rob", "reader")
		bind(tx, "", "User", "eve", "reader") // a role of the zone, which global does not have
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := d.Snapshot()
	if !auth.RolesInForce(s) {
		t.Error("roles are not in force")
	}
	ann := auth.User{Name: "ann", Groups: []string{"web", auth.GroupAuthenticated}}
	timeout := func(mesh string, labels map[string]string, ref *api.TargetRef) auth.Subject {
		return auth.Subject{Kind: "MeshTimeout", Mesh: mesh, Name: "t", Labels: labels, TargetRef: ref}
	}
	ours := &api.TargetRef{Kind: "Dataplane", Labels: map[string]string{"team": "web", "tier": "1"}}
	token := func(workload string) auth.Subject {
		return auth.Subject{Kind: "Dataplane", Mesh: "shop", Name: "x", Labels: map[string]string{"kuma.io/workload": workload}}
	}
	for i, c := range []struct {
		user   auth.User
		action api.Action
		on     auth.Subject
		want   bool
	}{
		{auth.Admin(), api.ActionDelete, auth.Subject{Kind: "Secret", Mesh: "shop"}, true},
		{auth.Anonymous(), api.ActionRead, timeout("shop", nil, ours), false},
		{ann, api.ActionUpdate, timeout("shop", nil, ours), true},
		{ann, api.ActionRead, timeout("shop", nil, ours), true},
		{ann, api.ActionDelete, timeout("shop", nil, ours), false},
		{ann, api.ActionUpdate, timeout("other", nil, ours), false},
		{ann, api.ActionUpdate, timeout("shop", nil, nil), false},
		{ann, api.ActionUpdate, timeout("shop", nil, &api.TargetRef{Kind: "Mesh"}), false},
		{ann, api.ActionUpdate, timeout("shop", nil, &api.TargetRef{Kind: "Dataplane"}), false},
		{ann, api.ActionUpdate, timeout("shop", map[string]string{"open": "yes"}, nil), true},
		{ann, api.ActionUpdate, auth.Subject{Kind: "MeshRetry", Mesh: "shop", TargetRef: ours}, false},
		{ann, api.ActionRead, auth.Subject{Kind: "Mesh", Name: "shop"}, true},
		{ann, api.ActionRead, auth.Subject{Kind: "Mesh", Name: "other"}, false},
		{ann, api.ActionGenerateDataplane, token("web"), true},
		{ann, api.ActionGenerateDataplane, token("db"), false},
		{ann, api.ActionViewStats, auth.Subject{Kind: "Dataplane", Mesh: "any", Name: "web-1"}, true},
		{ann, api.ActionViewStats, auth.Subject{Kind: "Dataplane", Mesh: "any", Name: "web-2"}, false},
		{auth.User{Name: "rob"}, api.ActionRead, auth.Subject{Kind: "Zone", Name: "east"}, true},
		{auth.User{Name: "x", Groups: []string{"rob"}}, api.ActionRead, auth.Subject{Kind: "Zone", Name: "east"}, false},
		{auth.User{Name: "eve"}, api.ActionRead, auth.Subject{Kind: "Zone", Name: "east"}, false},
	} {
		if got := auth.Allowed(s, c.user, c.action, c.on); got != c.want {
			t.Errorf("%d: %s %s %+v: %v", i, c.user.Name, c.action, c.on, got)
		}
	}
}
