package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// Token is a kind of token.
type Token uint8

const (
	// UserToken opens the REST API.
	UserToken Token = iota
	// DataplaneToken opens the dp-server of a zone to a proxy of one mesh.
	DataplaneToken
	// ZoneToken opens the KDS server of global to one zone.
	ZoneToken
)

// AdminSecret is the GlobalSecret that holds the first administrator's token.
const AdminSecret = "admin-user-token"

const keyBits = 2048

// keyIDs are those that can be part of a Secret's name. Everything else is
// refused before it is looked up, or shown.
var keyIDs = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,62}$`)

// keyPrefix is the name of the signing keys without the number.
func (t Token) keyPrefix(mesh string) string {
	switch t {
	case DataplaneToken:
		return "dataplane-token-signing-key-" + mesh
	case ZoneToken:
		return "zone-token-signing-key"
	default:
		return "user-token-signing-key"
	}
}

// publicPrefix is the name under which zones hold the public half of the keys
// of zone tokens, or "".
func (t Token) publicPrefix() string {
	if t == ZoneToken {
		return "zone-token-signing-public-key"
	}
	return ""
}

func (t Token) revocations(mesh string) string {
	switch t {
	case DataplaneToken:
		return "dataplane-token-revocations-" + mesh
	case ZoneToken:
		return "zone-token-revocations"
	default:
		return "user-token-revocations"
	}
}

// keyName is the name of the Secret of key kid. Key "0" is the oldest form,
// which had no number.
func keyName(prefix, kid string) string {
	if kid == "0" {
		return prefix
	}
	return prefix + "-" + kid
}

// secretNamed finds the Secret of a mesh, or the GlobalSecret, that holds keys
// of the token.
func (t Token) secretNamed(r db.Reader, mesh, name string) (*api.Object[api.Secret], bool) {
	if t == DataplaneToken {
		return api.Secrets.Named(r, mesh, name)
	}
	return api.GlobalSecrets.Named(r, "", name)
}

func (t Token) secrets(r db.Reader, mesh string) iter.Seq[*api.Object[api.Secret]] {
	if t == DataplaneToken {
		return api.Secrets.In(r, mesh)
	}
	return api.GlobalSecrets.All(r)
}

func (t Token) noKey(kid, name, mesh string) error {
	where := ""
	if t == DataplaneToken {
		where = fmt.Sprintf(" in mesh %q", mesh)
	}
	return refuse(ErrNoKey, "there is no signing key with KID %s. Secret of name %q%s is not found. If signing key was rotated, regenerate the token", kid, name, where)
}

// newest finds the key that signs: the one with the highest number.
func (t Token) newest(r db.Reader, mesh string) (secret *api.Object[api.Secret], kid string, err error) {
	prefix := t.keyPrefix(mesh)
	best := -1
	for o := range t.secrets(r, mesh) {
		rest, ok := strings.CutPrefix(o.Name, prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			digits, dashed := strings.CutPrefix(rest, "-")
			v, bad := strconv.Atoi(digits)
			if !dashed || bad != nil || v < 0 || strconv.Itoa(v) != digits {
				continue // the key of a mesh whose name begins like ours, or no key
			}
			n = v
		}
		if n > best {
			best, secret, kid = n, o, strconv.Itoa(n)
		}
	}
	if best < 0 {
		return nil, "", t.noKey("1", keyName(prefix, "1"), mesh)
	}
	return secret, kid, nil
}

// SigningKeyRecord generates RSA key number n of the token (2048 bit, PKCS#1
// PEM) as the Secret or GlobalSecret in which it is looked up. Mesh is used for
// dataplane tokens only. n is 1 for the first key; a key with a higher number
// than all others becomes the one that signs.
func SigningKeyRecord(t Token, mesh string, n int, site api.Site, now time.Time) (store.Record, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return store.Record{}, fmt.Errorf("generate signing key: %w", err)
	}
	body := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return secretRecord(t, mesh, keyName(t.keyPrefix(mesh), strconv.Itoa(n)), body, site, now), nil
}

// AdminSecretRecord is the GlobalSecret [AdminSecret] with the token.
func AdminSecretRecord(token string, site api.Site, now time.Time) store.Record {
	return secretRecord(UserToken, "", AdminSecret, []byte(token), site, now)
}

func secretRecord(t Token, mesh, name string, data []byte, site api.Site, now time.Time) store.Record {
	var k api.AnyKind = api.GlobalSecrets
	if t == DataplaneToken {
		k = api.Secrets
	}
	id := api.LocalID(k, mesh, "", name, site)
	spec, err := json.Marshal(map[string][]byte{"data": data})
	if err != nil {
		panic("auth: a map of bytes cannot be encoded: " + err.Error())
	}
	return store.Record{
		ID: id, Labels: api.ComputeLabels(k, id, nil, site), Created: now, Modified: now, Spec: spec,
	}
}

// parsePrivate reads an RSA private key: PKCS#1, PEM or DER.
func parsePrivate(data []byte) (*rsa.PrivateKey, error) {
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "RSA PRIVATE KEY" {
			return nil, fmt.Errorf("want a PEM block RSA PRIVATE KEY (PKCS#1), got %q", block.Type)
		}
		data = block.Bytes
	}
	key, err := x509.ParsePKCS1PrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("not an RSA private key (PKCS#1): %w", err)
	}
	return key, nil
}

// ParsePublicKey reads an RSA public key in PEM, PKIX (PUBLIC KEY) or PKCS#1
// (RSA PUBLIC KEY).
func ParsePublicKey(data []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("no PEM block")
	}
	if block.Type == "RSA PUBLIC KEY" {
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("want an RSA public key, got %T", key)
	}
	return public, nil
}
