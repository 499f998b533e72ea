package api

import (
	"regexp"
	"strconv"
	"time"
)

// MeshMTLS is how earlier releases gave the proxies of a mesh their identities:
// one authority for all of them. It is a MeshIdentity in other words.
type MeshMTLS struct {
	// The name of the backend in force. Absent: none, proxies get no identities
	// of it.
	EnabledBackend string `json:"enabledBackend,omitempty"`
	// Authorities, at most one.
	Backends []MTLSBackend `json:"backends,omitempty"`
	// Does nothing: what an authority lacks is said by the identity that is made of
	// it.
	SkipValidation bool `json:"skipValidation,omitempty" idle:"does nothing: what the authority lacks is said by the MeshIdentity that is made of it"`
}

// MTLSBackend is an authority.
type MTLSBackend struct {
	// The identity that is made of the backend is called mtls- and this name.
	Name string `json:"name" req:"true" minLen:"1"`
	// builtin is an authority that the control plane makes, provided one that
	// conf names.
	Type string `json:"type" req:"true" enum:"builtin,provided"`
	// PERMISSIVE lets callers without a certificate in, as MeshTLS with mode
	// Permissive does.
	Mode string `json:"mode,omitempty" enum:"STRICT,PERMISSIVE" default:"STRICT"`
	// What the certificates of proxies are like.
	DPCert *MTLSCert `json:"dpCert,omitempty"`
	// Does nothing: the authority is part of the control plane.
	RootChain *MTLSRootChain `json:"rootChain,omitempty" idle:"does nothing: the authority is part of the control plane"`
	// The authority, for type provided.
	Conf *MTLSConf `json:"conf,omitempty"`
}

// MTLSCert shapes the certificates of proxies.
type MTLSCert struct {
	// When certificates are replaced.
	Rotation *MTLSRotation `json:"rotation,omitempty"`
	// Does nothing: the authority is part of the control plane.
	RequestTimeout *ProtoDuration `json:"requestTimeout,omitempty" idle:"does nothing: the authority is part of the control plane"`
}

// MTLSRotation says how long certificates are valid.
type MTLSRotation struct {
	// How long a certificate is valid: a number with s, m, h, d or w, such as
	// "1d". Absent: 120 hours.
	Expiration string `json:"expiration,omitempty"`
}

// MTLSRootChain does nothing: the authority is part of the control plane.
type MTLSRootChain struct {
	// Does nothing.
	RequestTimeout *ProtoDuration `json:"requestTimeout,omitempty"`
}

// MTLSConf is the authority of a provided backend.
type MTLSConf struct {
	_ struct{} `gone:"caCert" use:"type provided, for an authority of another size or life"`

	// The authority's certificate, PEM.
	Cert *SecureDataSource `json:"cert,omitempty"`
	// Its private key, PEM.
	Key *SecureDataSource `json:"key,omitempty"`
}

func (m *MeshMTLS) check(r *Report) {
	if len(m.Backends) > 1 {
		r.At("backends").Add("cannot have more than 1 backends")
	}
	if m.EnabledBackend != "" && m.enabled() == nil {
		r.At("enabledBackend").Add("has to be set to one of the backends in the mesh")
	}
	for i, b := range m.Backends {
		at := r.Index("backends", i)
		if _, ok := b.life(); !ok {
			at.At("dpCert.rotation.expiration").Add("has to be a valid format: a number with s, m, h, d or w, such as \"1d\"")
		}
		conf := MTLSConf{}
		if b.Conf != nil {
			conf = *b.Conf
		}
		for _, part := range []struct {
			field  string
			source *SecureDataSource
		}{{"conf.cert", conf.Cert}, {"conf.key", conf.Key}} {
			part.source.check(at.At(part.field))
			switch {
			case b.Type == "provided" && part.source == nil:
				at.At(part.field).Add("must be defined")
			case b.Type == "builtin" && part.source != nil:
				at.At(part.field).Add("must not be defined with type builtin")
			}
		}
	}
}

// enabled is the backend in force, or nil.
func (m *MeshMTLS) enabled() *MTLSBackend {
	if m == nil {
		return nil
	}
	for i := range m.Backends {
		if m.Backends[i].Name == m.EnabledBackend {
			return &m.Backends[i]
		}
	}
	return nil
}

var spanOfDays = regexp.MustCompile(`^([0-9]{1,6})([smhdw])$`)

// life is how long certificates of proxies are valid; nil: as by default.
func (b *MTLSBackend) life() (life *Duration, ok bool) {
	if b.DPCert == nil || b.DPCert.Rotation == nil || b.DPCert.Rotation.Expiration == "" {
		return nil, true
	}
	m := spanOfDays.FindStringSubmatch(b.DPCert.Rotation.Expiration)
	if m == nil {
		return nil, false
	}
	unit := map[string]time.Duration{
		"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}[m[2]]
	n, err := strconv.Atoi(m[1])
	return &Duration{time.Duration(n) * unit}, err == nil && n > 0
}

// MeshRows are the rows that a Mesh in the form of earlier releases stands for:
// an identity for all proxies, that callers without one are let in, and that
// nothing beside the mesh can be called. IDs are as they were then: the trust
// domain is the mesh, the path the workload.
func MeshRows(mesh *Object[Mesh], site Site) []Row {
	var rows []Row
	everyone := &TargetRef{Kind: RefMesh}
	if b := mesh.Spec.MTLS.enabled(); b != nil {
		name := "mtls-" + b.Name
		rows = append(rows, MeshIdentities.New(initialMeta(MeshIdentities, mesh.Name, name, site), b.identity()))
		if b.Mode == "PERMISSIVE" {
			spec := MeshTLS{TargetRef: everyone, Rules: []MeshTLSRule{{Default: MeshTLSConf{Mode: "Permissive"}}}}
			rows = append(rows, MeshTLSes.New(initialMeta(MeshTLSes, mesh.Name, name, site), spec))
		}
	}
	if n := mesh.Spec.Networking; n != nil && n.Outbound != nil && n.Outbound.Passthrough != nil && !*n.Outbound.Passthrough {
		spec := MeshPassthrough{TargetRef: everyone, Default: PassthroughConf{PassthroughMode: "None"}}
		rows = append(rows, MeshPassthroughs.New(initialMeta(MeshPassthroughs, mesh.Name, "networking-outbound", site), spec))
	}
	return rows
}

func (b *MTLSBackend) identity() MeshIdentity {
	bundled := &BundledProvider{InsecureAllowSelfSigned: true}
	if life, _ := b.life(); life != nil {
		bundled.CertificateParameters = &CertificateParameters{Expiry: life}
	}
	if b.Type == "builtin" {
		bundled.Autogenerate = &Autogenerate{Enabled: true}
	} else {
		bundled.CA = &BundledCA{Certificate: b.Conf.Cert, PrivateKey: b.Conf.Key}
	}
	return MeshIdentity{
		Selector: &IdentitySelector{Dataplane: &LabelSelector{}},
		SpiffeID: &SpiffeIDTemplate{TrustDomain: "{{ .Mesh }}", Path: "/{{ .Workload }}"},
		Provider: &IdentityProvider{Type: "Bundled", Bundled: bundled},
	}
}
