package auth

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// maxToken bounds what is parsed at all; issued tokens have some 600 bytes.
const maxToken = 16 << 10

// maxParsed bounds what a Validator remembers. Keys come and go with meshes;
// forgetting all of them now and then is simpler than watching them.
const maxParsed = 4096

// PublicKey is a key of tokens that are signed elsewhere.
type PublicKey struct {
	Token Token
	// Mesh limits a key of dataplane tokens to one mesh; empty: all.
	Mesh string
	KID  string
	Key  *rsa.PublicKey
}

// Options of a [Validator].
type Options struct {
	// PublicKeys are tried before Secrets.
	PublicKeys []PublicKey
	// NoSecrets lists the tokens of which only PublicKeys count.
	NoSecrets []Token
}

// Validator tells real tokens from others. It may be used concurrently; the
// zero value of Options is the usual one.
type Validator struct {
	opts Options

	mu     sync.RWMutex
	keys   map[*api.Object[api.Secret]]parsedKey
	lists  map[*api.Object[api.Secret]]map[string]struct{}
	parsed int
}

type parsedKey struct {
	key *rsa.PublicKey
	err error
}

// NewValidator returns a Validator.
func NewValidator(o Options) *Validator {
	v := &Validator{opts: o}
	v.forget()
	return v
}

func (v *Validator) forget() {
	v.keys = map[*api.Object[api.Secret]]parsedKey{}
	v.lists = map[*api.Object[api.Secret]]map[string]struct{}{}
}

// Parsed is how many keys and revocation lists were parsed so far.
func (v *Validator) Parsed() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.parsed
}

// ParseUser returns the user of a token, in the group of the authenticated.
func (v *Validator) ParseUser(r db.Reader, now time.Time, token string) (User, error) {
	var c UserClaims
	if err := v.parse(r, now, UserToken, "", token, &c, &c.RegisteredClaims); err != nil {
		return User{}, err
	}
	groups := make([]string, 0, len(c.Groups)+1)
	groups = append(append(groups, c.Groups...), GroupAuthenticated)
	return User{Name: c.Name, Groups: groups}, nil
}

// ParseDataplane returns the claims of a token that is signed with a key of
// the mesh; whether they fit the proxy is for [DataplaneClaims.Check] to say.
func (v *Validator) ParseDataplane(r db.Reader, now time.Time, mesh, token string) (DataplaneClaims, error) {
	var c DataplaneClaims
	err := v.parse(r, now, DataplaneToken, mesh, token, &c, &c.RegisteredClaims)
	return c, err
}

// ParseZone returns the claims of a zone token; see [ZoneClaims.Check].
func (v *Validator) ParseZone(r db.Reader, now time.Time, token string) (ZoneClaims, error) {
	var c ZoneClaims
	err := v.parse(r, now, ZoneToken, "", token, &c, &c.RegisteredClaims)
	return c, err
}

// parse fills claims, of which registered is a part.
func (v *Validator) parse(r db.Reader, now time.Time, t Token, mesh, token string, claims jwt.Claims, registered *jwt.RegisteredClaims) error {
	if len(token) > maxToken {
		return refuse(ErrInvalid, "could not parse token. it has %d bytes, the limit is %d", len(token), maxToken)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	_, err := parser.ParseWithClaims(token, claims, func(parsed *jwt.Token) (any, error) {
		if _, ok := parsed.Header["crit"]; ok {
			// RFC 7515 §4.1.11: extensions that are not understood refuse the token.
			return nil, refuse(ErrInvalid, "could not parse token. header crit is not supported")
		}
		kid, ok := parsed.Header["kid"].(string)
		if !ok || !keyIDs.MatchString(kid) {
			return nil, refuse(ErrInvalid, "could not parse token. header kid must be a string, the number of the signing key")
		}
		return v.key(r, t, mesh, kid)
	})
	if err != nil {
		return classify(err)
	}
	if id := registered.ID; id != "" && v.revoked(r, t, mesh, id) {
		return refuse(ErrRevoked, "token is revoked")
	}
	return nil
}

// classify gives an error of the parser one of our classes.
func classify(err error) error {
	var own *refusal
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(ErrExpired, "token is not yet valid: %v", err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(ErrExpired, "could not parse token. %v", err)
	default:
		return refuse(ErrInvalid, "could not parse token. %v", err)
	}
}

// key finds the public key that must have signed.
func (v *Validator) key(r db.Reader, t Token, mesh, kid string) (*rsa.PublicKey, error) {
	for _, inMesh := range []string{mesh, ""} {
		for _, p := range v.opts.PublicKeys {
			if p.Token == t && p.KID == kid && p.Mesh == inMesh {
				return p.Key, nil
			}
		}
	}
	name := keyName(t.keyPrefix(mesh), kid)
	if slices.Contains(v.opts.NoSecrets, t) {
		return nil, t.noKey(kid, name, mesh)
	}
	if secret, ok := t.secretNamed(r, mesh, name); ok {
		return v.keyOf(secret, func(data []byte) (*rsa.PublicKey, error) {
			private, err := parsePrivate(data)
			if err != nil {
				return nil, err
			}
			return &private.PublicKey, nil
		})
	}
	if prefix := t.publicPrefix(); prefix != "" {
		if secret, ok := t.secretNamed(r, mesh, keyName(prefix, kid)); ok {
			return v.keyOf(secret, ParsePublicKey)
		}
	}
	return nil, t.noKey(kid, name, mesh)
}

func (v *Validator) keyOf(secret *api.Object[api.Secret], parse func([]byte) (*rsa.PublicKey, error)) (*rsa.PublicKey, error) {
	v.mu.RLock()
	p, ok := v.keys[secret]
	v.mu.RUnlock()
	if !ok {
		p = v.remember(func() parsedKey {
			key, err := parse(secret.Spec.Data)
			if err != nil {
				err = fmt.Errorf("signing key %q: %w", secret.Name, err)
			}
			return parsedKey{key, err}
		}, secret)
	}
	return p.key, p.err
}

// remember parses under the lock, so that a burst of tokens parses once.
func (v *Validator) remember(parse func() parsedKey, secret *api.Object[api.Secret]) parsedKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p, ok := v.keys[secret]; ok {
		return p
	}
	v.makeRoom()
	p := parse()
	v.parsed++
	v.keys[secret] = p
	return p
}

func (v *Validator) makeRoom() {
	if len(v.keys)+len(v.lists) >= maxParsed {
		v.forget()
	}
}

func (v *Validator) revoked(r db.Reader, t Token, mesh, id string) bool {
	secret, ok := api.GlobalSecrets.Named(r, "", t.revocations(mesh))
	if !ok {
		return false
	}
	v.mu.RLock()
	list, ok := v.lists[secret]
	v.mu.RUnlock()
	if !ok {
		v.mu.Lock()
		if list, ok = v.lists[secret]; !ok {
			v.makeRoom()
			list = parseRevoked(secret.Spec.Data)
			v.parsed++
			v.lists[secret] = list
		}
		v.mu.Unlock()
	}
	_, found := list[id]
	return found
}
