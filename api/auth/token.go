package auth

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// UserClaims are the claims of a user token. JSON names are those on the wire.
type UserClaims struct {
	Name   string
	Groups []string
	jwt.RegisteredClaims
}

// DataplaneClaims are the claims of a dataplane token; an empty claim binds
// the token to nothing.
type DataplaneClaims struct {
	Name     string
	Mesh     string
	Tags     map[string][]string
	Type     string
	Workload string
	jwt.RegisteredClaims
}

// ZoneClaims are the claims of a zone token.
type ZoneClaims struct {
	Zone  string
	Scope []string
	jwt.RegisteredClaims
}

// Check returns an [ErrDenied] when the token is not for this Dataplane. The
// labels of dp are those that the proxy sent, without computed ones.
// workloadBound says that the identity of the proxy derives from its label
// kuma.io/workload: then the token must name the workload.
func (c DataplaneClaims) Check(dp *api.Object[api.Dataplane], workloadBound bool) error {
	if c.Name != "" && c.Name != dp.Name {
		return refuse(ErrDenied, "proxy name from requestor: %s is different than in token: %s", dp.Name, c.Name)
	}
	if c.Mesh != "" && c.Mesh != dp.Mesh {
		return refuse(ErrDenied, "proxy mesh from requestor: %s is different than in token: %s", dp.Mesh, c.Mesh)
	}
	tags := make([]string, 0, len(c.Tags))
	for tag := range c.Tags {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	for _, tag := range tags {
		value, ok := dp.Labels[tag]
		if !ok {
			return refuse(ErrDenied, "dataplane has no tag %q required by the token", tag)
		}
		if !slices.Contains(c.Tags[tag], value) {
			return refuse(ErrDenied, "dataplane contains tag %q with value %q which is not allowed with this token. Allowed values in token are %s", tag, value, quoteAll(c.Tags[tag]))
		}
	}
	workload := dp.Labels[api.LabelWorkload]
	switch {
	case c.Workload != "" && c.Workload != workload:
		return refuse(ErrDenied, "dataplane workload %q is not allowed with this token. Allowed workload in token is %q", workload, c.Workload)
	case c.Workload == "" && workload != "" && workloadBound:
		return refuse(ErrDenied, "dataplane with %q label %q derives its identity from the workload, so it requires a workload-bound token", api.LabelWorkload, workload)
	}
	return nil
}

// quoteAll renders a list as ["a" "b"].
func quoteAll(values []string) string { return fmt.Sprintf("%q", values) }

// Check returns an [ErrDenied] when the token is not for this zone. A token
// that names no zone is for none: a connection is bound to one zone.
func (c ZoneClaims) Check(zone string) error {
	if c.Zone != zone || zone == "" {
		return refuse(ErrDenied, "zone name from requestor: %s is different than in token: %s", zone, c.Zone)
	}
	return nil
}

// IssueUser signs a token of the user. Errors: [ErrNoKey], or a key that
// cannot be read.
func IssueUser(r db.Reader, now time.Time, user User, validFor time.Duration) (string, error) {
	return issue(r, UserToken, "", &UserClaims{Name: user.Name, Groups: user.Groups, RegisteredClaims: registered(now, validFor)})
}

// IssueDataplane signs a token with the claims, for a proxy of claims.Mesh.
func IssueDataplane(r db.Reader, now time.Time, claims DataplaneClaims, validFor time.Duration) (string, error) {
	if claims.Tags == nil {
		claims.Tags = map[string][]string{}
	}
	claims.RegisteredClaims = registered(now, validFor)
	return issue(r, DataplaneToken, claims.Mesh, &claims)
}

// IssueZone signs a token with the claims.
func IssueZone(r db.Reader, now time.Time, claims ZoneClaims, validFor time.Duration) (string, error) {
	claims.RegisteredClaims = registered(now, validFor)
	return issue(r, ZoneToken, "", &claims)
}

// clockSkew is how much the clock of a verifier may be behind ours.
const clockSkew = 5 * time.Second

func registered(now time.Time, validFor time.Duration) jwt.RegisteredClaims {
	from := jwt.NewNumericDate(now.Add(-clockSkew))
	return jwt.RegisteredClaims{
		ID: uuid.NewString(), IssuedAt: from, NotBefore: from, ExpiresAt: jwt.NewNumericDate(now.Add(validFor)),
	}
}

func issue(r db.Reader, t Token, mesh string, claims jwt.Claims) (string, error) {
	secret, kid, err := t.newest(r, mesh)
	if err != nil {
		return "", err
	}
	key, err := parsePrivate(secret.Spec.Data)
	if err != nil {
		return "", fmt.Errorf("signing key %q: %w", secret.Name, err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = kid
	signed, err := token.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign with key %q: %w", secret.Name, err)
	}
	return signed, nil
}

// revoked are the jtis of a revocation list: separated by commas, one trailing
// newline allowed.
func parseRevoked(data []byte) map[string]struct{} {
	set := map[string]struct{}{}
	for id := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n"), ",") {
		if id != "" {
			set[id] = struct{}{}
		}
	}
	return set
}
