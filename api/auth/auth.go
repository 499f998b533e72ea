// Package auth decides who a caller is and what a caller may do.
//
// It owns the three kinds of tokens (user, dataplane, zone), their signing
// keys, their revocation lists, and the static access rules. The REST server,
// the dp-server and the KDS server call it; it reads the database and nothing
// else: no clock (callers pass the time), no store (keys come out as records
// that the caller stores), no network.
//
//	Secret rows ─▶ Validator ─▶ claims ─▶ Check (is it this proxy, this zone?)
//	                  │
//	                  └─ refused: ErrInvalid, ErrExpired, ErrRevoked, ErrNoKey, ErrDenied
//
// # Why
//
// Keys are ordinary Secrets, so that rotation is an apply and a delete, and a
// zone can judge the tokens of its own proxies while global is away: the keys
// of dataplane tokens flow down with the mesh. A certificate per proxy as the
// first credential was not chosen, because existing installations hand out
// tokens.
//
// A [Validator] remembers parsed keys by the row they came from. Rows are
// never changed, only replaced, so a pointer says all: there is nothing to
// invalidate and nothing global.
package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The classes of refusal; every error of this package is one of them.
var (
	// ErrInvalid: no token, or one that is malformed, wrongly signed or of
	// another algorithm.
	ErrInvalid = errors.New("token is invalid")
	// ErrExpired: the token's time is over, or has not begun.
	ErrExpired = errors.New("token is not valid at this time")
	// ErrRevoked: the token's jti is on the revocation list.
	ErrRevoked = errors.New("token is revoked")
	// ErrNoKey: the key that the token names, or the one to sign with, is absent.
	ErrNoKey = errors.New("signing key not found")
	// ErrDenied: the caller is known, but may not do this.
	ErrDenied = errors.New("access denied")
)

// refusal is an error of one class with a text of its own.
type refusal struct {
	class error
	text  string
}

func (e *refusal) Error() string { return e.text }
func (e *refusal) Unwrap() error { return e.class }

func refuse(class error, format string, args ...any) error {
	return &refusal{class: class, text: fmt.Sprintf(format, args...)}
}

// Names of users and groups with a meaning.
const (
	AdminName            = "mesh-system:admin"
	AnonymousName        = "mesh-system:anonymous"
	ControlPlaneName     = "mesh-system:control-plane"
	GroupAdmin           = "mesh-system:admin"
	GroupAuthenticated   = "mesh-system:authenticated"
	GroupUnauthenticated = "mesh-system:unauthenticated"
)

// User is who calls the REST API.
type User struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
}

// Admin is the administrator, who may do everything.
func Admin() User {
	return User{Name: AdminName, Groups: []string{GroupAdmin, GroupAuthenticated}}
}

// ControlPlane is a control plane itself.
func ControlPlane() User {
	return User{Name: ControlPlaneName, Groups: []string{}}
}

// Anonymous is a caller who showed no token.
func Anonymous() User {
	return User{Name: AnonymousName, Groups: []string{GroupUnauthenticated}}
}

// IsAnonymous reports whether the user showed no token.
func (u User) IsAnonymous() bool { return u.Name == AnonymousName }

// String is name/group1,group2.
func (u User) String() string { return u.Name + "/" + strings.Join(u.Groups, ",") }

// Grant lists who may do one thing: users by name, or members of groups.
type Grant struct {
	Users  []string `json:"users"`
	Groups []string `json:"groups"`
}

// Allows reports whether the user is granted.
func (g Grant) Allows(u User) bool {
	return slices.Contains(g.Users, u.Name) ||
		slices.ContainsFunc(u.Groups, func(group string) bool { return slices.Contains(g.Groups, group) })
}

// Access is the static access rules. The names of its JSON fields are those of
// `access.static`; readResources and writeResources are our own.
type Access struct {
	// ReadResources and WriteResources: who may use the API on resources at
	// all. By default whoever shows a valid token; name the group
	// mesh-system:unauthenticated to let everybody in.
	ReadResources  Grant `json:"readResources"`
	WriteResources Grant `json:"writeResources"`
	// AdminResources: who may read and write the kinds for administrators
	// (Secret, GlobalSecret).
	AdminResources       Grant `json:"adminResources"`
	GenerateDpToken      Grant `json:"generateDpToken"`
	GenerateUserToken    Grant `json:"generateUserToken"`
	GenerateZoneToken    Grant `json:"generateZoneToken"`
	ViewConfigDump       Grant `json:"viewConfigDump"`
	ViewStats            Grant `json:"viewStats"`
	ViewClusters         Grant `json:"viewClusters"`
	ControlPlaneMetadata Grant `json:"controlPlaneMetadata"`
}

// DefaultAccess is what holds when nothing is configured. It is narrower than
// that of the ecosystem, where everybody who reaches the port may read and
// write all but secrets: here an anonymous caller gets GET / and the health of
// the control plane, and everything else needs a token. Grants for everybody
// (dumps, statistics, metadata) say who may look at more than resources, and
// hold for those who may read at all.
func DefaultAccess() Access {
	admins := Grant{Users: []string{AdminName}, Groups: []string{GroupAdmin}}
	members := Grant{Users: []string{AdminName}, Groups: []string{GroupAuthenticated}}
	everybody := Grant{Groups: []string{GroupUnauthenticated, GroupAuthenticated}}
	return Access{
		ReadResources: members, WriteResources: members,
		AdminResources: admins, GenerateDpToken: admins, GenerateUserToken: admins, GenerateZoneToken: admins,
		ViewConfigDump: everybody, ViewStats: everybody, ViewClusters: everybody, ControlPlaneMetadata: everybody,
	}
}

// Resource returns nil if the grant allows the user, else an [ErrDenied] that
// names the kind.
func (g Grant) Resource(u User, kind string) error {
	if g.Allows(u) {
		return nil
	}
	return refuse(ErrDenied, "user %q cannot access the resource of type %q", u.String(), kind)
}

// Action returns nil if the grant allows the user, else an [ErrDenied].
func (g Grant) Action(u User) error {
	if g.Allows(u) {
		return nil
	}
	return refuse(ErrDenied, "action not allowed")
}
