package rest

import (
	"net/http"
	"reflect"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
)

// How static access and roles go together: while no AccessRoleBinding exists,
// static access alone decides. From then on it still says who may use resources
// at all (and, of secrets and roles, that only administrators may), and roles
// say of which; tokens and views of proxies are for roles alone to give.

// mayRow returns nil if the roles, where they are in force, let the caller do
// this to the row.
func (s *server) mayRow(r *http.Request, snap db.Reader, action api.Action, row api.Row) error {
	if isInside(r) || !auth.RolesInForce(snap) {
		return nil
	}
	return judged(UserOf(r), snap, action, subjectOf(row))
}

// mayStored judges what is done to a record that is stored and not understood.
// Of such a record the ID alone is known: no condition on what it says holds.
func (s *server) mayStored(r *http.Request, snap db.Reader, action api.Action, id api.ID) error {
	if isInside(r) || !auth.RolesInForce(snap) {
		return nil
	}
	return judged(UserOf(r), snap, action, auth.Subject{Kind: id.Kind, Mesh: id.Mesh, Name: id.Name})
}

func judged(u auth.User, snap db.Reader, action api.Action, on auth.Subject) error {
	if auth.Allowed(snap, u, action, on) {
		return nil
	}
	return refused(u, on.Kind)
}

// reads reports whether the caller may read the row.
func (s *server) reads(r *http.Request, snap db.Reader, row api.Row) bool {
	return s.mayRow(r, snap, api.ActionRead, row) == nil
}

// mayAct judges what is done to no resource, or to a proxy: by the roles where
// they are in force, else by the grant.
func (s *server) mayAct(r *http.Request, g auth.Grant, action api.Action, on auth.Subject) error {
	snap := s.DB.Snapshot()
	if isInside(r) || action == "" || !auth.RolesInForce(snap) {
		return s.allow(r, g, "")
	}
	u := UserOf(r)
	if auth.Allowed(snap, u, action, on) {
		return nil
	}
	return refused(u, "")
}

// refused is the answer to who may not: 401 if a token may help.
func refused(u auth.User, kind string) error {
	if u.IsAnonymous() {
		return errUnauthenticated
	}
	if kind == "" {
		return auth.Grant{}.Action(u)
	}
	return auth.Grant{}.Resource(u, kind)
}

func subjectOf(row api.Row) auth.Subject {
	head := row.Head()
	on := auth.Subject{Kind: head.Kind, Mesh: head.Mesh, Name: head.Name, Labels: head.Labels}
	if k, ok := api.ByName(head.Kind); ok && k.Info().Policy != nil {
		on.TargetRef = topOf(row)
	}
	return on
}

// topOf is the top-level targetRef of a policy; without one it is the mesh.
func topOf(row api.Row) *api.TargetRef {
	field := reflect.ValueOf(row.Body()).Elem().FieldByName("TargetRef")
	if field.IsValid() {
		if ref, ok := field.Interface().(*api.TargetRef); ok && ref != nil {
			return ref
		}
	}
	return &api.TargetRef{Kind: api.RefMesh}
}
