package kds

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// clusterID is the one Config that crosses.
const clusterID = "kuma-cluster-id"

const (
	zoneKeyPrefix       = "zone-token-signing-key"
	zonePublicKeyPrefix = "zone-token-signing-public-key"
)

// direction is what differs between the two ways.
type direction struct {
	// subscribed says which kinds the receiver asks for.
	subscribed func(api.Facts) bool
	// name is the name of a row on the wire, without the mesh.
	name func(api.AnyKind, api.ID) string
	// leaves says whether a row may leave this control plane at all.
	leaves func(api.AnyKind, api.Row) bool
	// pack turns a row into what is sent; the same for every peer.
	pack func(db.Reader, api.AnyKind, api.Row) (parcel, error)
}

func goesDown(i api.Facts) bool { return i.Flow.Has(api.Down) || i.Flow.Has(api.Across) }
func goesUp(i api.Facts) bool   { return i.Flow.Has(api.Up) || i.Flow.Has(api.Across) }

// down is global to zones.
func down(skip []string) direction {
	return direction{
		subscribed: goesDown,
		name: func(k api.AnyKind, id api.ID) string {
			if rest, ok := strings.CutPrefix(id.Name, zoneKeyPrefix); ok && id.Kind == "GlobalSecret" {
				return zonePublicKeyPrefix + rest
			}
			return api.SyncName(k, id)
		},
		leaves: func(k api.AnyKind, row api.Row) bool {
			m := row.Head()
			switch {
			case m.Label(api.LabelSync) == "disabled":
				return false
			case m.Kind == "Config" && m.Name != clusterID:
				return false
			case m.Kind == "GlobalSecret" && staysAtGlobal(m.Name):
				return false
			case m.Source == "":
				return k.Info().Flow.Has(api.Down)
			}
			return k.MayCross(row) && (k.Info().Policy == nil || m.Label(api.LabelPolicyRole) == "producer")
		},
		pack: func(_ db.Reader, k api.AnyKind, row api.Row) (parcel, error) {
			m := row.Head()
			p := parcel{name: api.SyncName(k, m.ID), mesh: m.Mesh, spec: row.Raw(), labels: kept(m.Labels, skip)}
			if rest, ok := strings.CutPrefix(m.Name, zoneKeyPrefix); ok && m.Kind == "GlobalSecret" {
				public, err := publicOnly(p.spec)
				if err != nil {
					return parcel{}, err
				}
				p.spec, p.name = public, zonePublicKeyPrefix+rest
			}
			p.labels[api.LabelOrigin] = api.OriginGlobal
			named(&p, m)
			return p, nil
		},
	}
}

// up is a zone to global.
func up(zone string, skip []string, derive func(db.Reader, api.Row) (spec, status json.RawMessage)) direction {
	return direction{
		subscribed: goesUp,
		name:       api.SyncName,
		leaves: func(k api.AnyKind, row api.Row) bool {
			m := row.Head()
			return m.Source == "" && m.Label(api.LabelSync) != "disabled" && m.Label(api.LabelOrigin) != api.OriginGlobal
		},
		pack: func(r db.Reader, k api.AnyKind, row api.Row) (parcel, error) {
			m := row.Head()
			p := parcel{name: api.SyncName(k, m.ID), mesh: m.Mesh, spec: row.Raw(), labels: kept(m.Labels, skip)}
			if derive != nil {
				spec, status := derive(r, row)
				if spec != nil {
					p.spec = spec
				}
				p.status = status
			}
			delete(p.labels, api.LabelGraceSince)
			p.labels[api.LabelOrigin], p.labels[api.LabelZone] = api.OriginZone, zone
			if m.Namespace != "" && p.labels[api.LabelNamespace] == "" {
				p.labels[api.LabelNamespace] = m.Namespace
			}
			named(&p, m)
			return p, nil
		},
	}
}

// named keeps the display name with a row whose name is another on the wire.
func named(p *parcel, m *api.Meta) {
	if _, ok := p.labels[api.LabelDisplayName]; !ok && p.name != m.Name {
		p.labels[api.LabelDisplayName] = m.Name
	}
}

// kept copies the labels that may be sent.
func kept(labels map[string]string, skip []string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.DeleteFunc(out, func(key, _ string) bool {
		return slices.ContainsFunc(skip, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	})
	return out
}

// staysAtGlobal names the secrets of a control plane about itself.
func staysAtGlobal(name string) bool {
	switch name {
	case "envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations":
		return true
	}
	return strings.HasPrefix(name, "user-token-signing-key")
}

// publicOnly turns the spec of a secret with an RSA private key into one with
// its public key (PEM, PKIX). A key that cannot be read is not sent.
func publicOnly(spec json.RawMessage) (json.RawMessage, error) {
	var secret struct {
		Data []byte `json:"data"`
	}
	if err := json.Unmarshal(spec, &secret); err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	der := secret.Data
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		any, err8 := x509.ParsePKCS8PrivateKey(der)
		if err8 != nil {
			return nil, fmt.Errorf("signing key: %w", err)
		}
		rsaKey, ok := any.(*rsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("signing key is a %T, want RSA", any)
		}
		key = rsaKey
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	secret.Data = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return json.Marshal(secret)
}
