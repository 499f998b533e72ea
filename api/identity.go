package api

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MeshIdentity says which proxies get an identity, which SPIFFE ID it is and who
// issues it.
type MeshIdentity struct {
	// Selector nil, or without dataplane, selects no proxy.
	Selector *IdentitySelector `json:"selector,omitempty"`
	SpiffeID *SpiffeIDTemplate `json:"spiffeID,omitempty"`
	// Provider nil: proxies have an ID and no certificate.
	Provider *IdentityProvider `json:"provider,omitempty"`
}

// IdentitySelector selects proxies.
type IdentitySelector struct {
	Dataplane *LabelSelector `json:"dataplane,omitempty"`
}

// SpiffeIDTemplate is the two parts of an ID, Go templates.
type SpiffeIDTemplate struct {
	TrustDomain string `json:"trustDomain,omitempty"`
	Path        string `json:"path,omitempty"`
}

// IdentityProvider issues certificates.
type IdentityProvider struct {
	Type      string             `json:"type" req:"true" enum:"Bundled,Spire,Extension"`
	Bundled   *BundledProvider   `json:"bundled,omitempty"`
	Spire     *SpireProvider     `json:"spire,omitempty"`
	Extension *ProviderExtension `json:"extension,omitempty"`
}

// BundledProvider is a certificate authority inside the control plane.
type BundledProvider struct {
	// MeshTrustCreation empty is Enabled: a MeshTrust of the same name is made.
	MeshTrustCreation       string                 `json:"meshTrustCreation,omitempty" enum:"Enabled,Disabled"`
	InsecureAllowSelfSigned bool                   `json:"insecureAllowSelfSigned,omitempty"`
	CertificateParameters   *CertificateParameters `json:"certificateParameters,omitempty"`
	Autogenerate            *Autogenerate          `json:"autogenerate,omitempty"`
	CA                      *BundledCA             `json:"ca,omitempty"`
}

// Autogenerates reports whether the control plane makes the authority.
func (b *BundledProvider) Autogenerates() bool {
	return b.Autogenerate != nil && b.Autogenerate.Enabled
}

// CreatesTrust reports whether a MeshTrust of the same name is made.
func (b *BundledProvider) CreatesTrust() bool { return b.MeshTrustCreation != "Disabled" }

// Life is how long a workload's certificate is valid.
func (b *BundledProvider) Life() time.Duration {
	if c := b.CertificateParameters; c != nil && c.Expiry != nil && c.Expiry.Duration > 0 {
		return c.Expiry.Duration
	}
	return 120 * time.Hour
}

// CertificateParameters shape a workload's certificate.
type CertificateParameters struct {
	// Expiry nil is 120 h.
	Expiry *Duration `json:"expiry,omitempty"`
}

// Autogenerate says that the control plane makes the authority.
type Autogenerate struct {
	Enabled bool `json:"enabled,omitempty"`
}

// BundledCA is an authority of the user's own: PEM.
type BundledCA struct {
	Certificate *SecureDataSource `json:"certificate,omitempty"`
	PrivateKey  *SecureDataSource `json:"privateKey,omitempty"`
}

// SpireProvider is a SPIRE agent next to the proxy.
type SpireProvider struct {
	Agent *SpireAgent `json:"agent,omitempty"`
}

// SpireAgent is how to talk to it.
type SpireAgent struct {
	// Timeout nil is 1 s.
	Timeout *Duration `json:"timeout,omitempty"`
}

// ProviderExtension is a provider that is not part of the control plane.
type ProviderExtension struct {
	Name   string         `json:"name" req:"true" minLen:"1"`
	Config map[string]any `json:"config,omitempty"`
}

// MeshIdentities are written anywhere.
var MeshIdentities = newKind(Kind[MeshIdentity]{
	Facts: Facts{
		Name: "MeshIdentity", Plural: "meshidentities", Short: "mid", Scope: MeshScope, Flow: Down | Up,
	},
	Validate: validateIdentity,
})

// MeshTrust is whom proxies believe: the authorities of one trust domain.
type MeshTrust struct {
	TrustDomain string     `json:"trustDomain" req:"true" minLen:"1" maxLen:"253"`
	CABundles   []CABundle `json:"caBundles" req:"true" minItems:"1"`
}

// CABundle is certificates of authorities.
type CABundle struct {
	Type string    `json:"type" req:"true" enum:"Pem"`
	PEM  PEMBundle `json:"pem" req:"true"`
}

// PEMBundle is one or more certificates, PEM.
type PEMBundle struct {
	Value string `json:"value" req:"true" minLen:"1"`
}

// MeshTrusts reach other zones by themselves, so that a proxy of one zone can
// believe one of another. (The existing ecosystem sends them to global only.)
var MeshTrusts = newKind(Kind[MeshTrust]{
	Facts: Facts{
		Name: "MeshTrust", Plural: "meshtrusts", Short: "mtrust", Scope: MeshScope, Flow: Down | Up | Across,
	},
	Validate: validateTrust,
})

func validateIdentity(_ *Meta, s *MeshIdentity, r *Report) {
	if t := s.SpiffeID; t != nil {
		at := r.At("spiffeID")
		if t.TrustDomain != "" {
			if out, ok := checkTemplate(t.TrustDomain, []string{"Mesh", "Zone"}, at.At("trustDomain")); ok {
				if _, err := spiffeid.TrustDomainFromString(out); err != nil {
					at.At("trustDomain").Add("must render to a trust domain: %v", err)
				}
			}
		}
		if t.Path != "" {
			vars := []string{"Mesh", "Zone", "TrustDomain", "Namespace", "ServiceAccount", "Workload"}
			if out, ok := checkTemplate(t.Path, vars, at.At("path")); ok {
				if err := spiffeid.ValidatePath(out); err != nil {
					at.At("path").Add("must render to the path of a SPIFFE ID: %v", err)
				}
			}
		}
	}
	p := s.Provider
	if p == nil {
		return
	}
	at := r.At("provider")
	switch {
	case p.Type == "Bundled" && p.Bundled == nil:
		at.At("bundled").Add("must be defined")
	case p.Type == "Spire" && p.Spire == nil:
		at.At("spire").Add("must be defined")
	case p.Type == "Extension" && p.Extension == nil:
		at.At("extension").Add("must be defined")
	}
	if p.Bundled != nil {
		p.Bundled.check(at.At("bundled"))
	}
	if p.Spire != nil && p.Spire.Agent != nil {
		checkNotNegative(p.Spire.Agent.Timeout, at.At("spire.agent.timeout"))
	}
}

func (b *BundledProvider) check(r *Report) {
	auto := b.Autogenerates()
	switch ca := r.At("ca"); {
	case auto && b.CA != nil:
		ca.Add("shouldn't be defined once using autogenerated")
	case !auto && b.CA == nil:
		ca.Add("must be defined")
	case b.CA != nil:
		for _, part := range []struct {
			field  string
			source *SecureDataSource
		}{{"certificate", b.CA.Certificate}, {"privateKey", b.CA.PrivateKey}} {
			if part.source == nil {
				ca.At(part.field).Add("must be defined")
			} else {
				part.source.check(ca.At(part.field))
			}
		}
	}
	if b.CertificateParameters != nil {
		checkNotNegative(b.CertificateParameters.Expiry, r.At("certificateParameters.expiry"))
	}
}

func validateTrust(_ *Meta, s *MeshTrust, r *Report) {
	if _, err := spiffeid.TrustDomainFromString(s.TrustDomain); err != nil {
		r.At("trustDomain").Add("must be a trust domain: %v", err)
	}
	for i, ca := range s.CABundles {
		if reason := checkCertificates(ca.PEM.Value); reason != "" {
			r.Index("caBundles", i).At("pem.value").Add("%s", reason)
		}
	}
}
