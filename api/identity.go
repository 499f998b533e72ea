package api

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MeshIdentity says which proxies get an identity, which SPIFFE ID it is and
// who issues the certificate: what mesh TLS and permissions rest on. Of several
// that select a proxy the one with the most labels counts, then the first by
// name.
type MeshIdentity struct {
	// Which proxies. Absent, or without dataplane: none.
	Selector *IdentitySelector `json:"selector,omitempty"`
	// What the IDs look like; absent: as its fields say.
	SpiffeID *SpiffeIDTemplate `json:"spiffeID,omitempty"`
	// Who issues certificates. Absent: proxies have an ID, which services
	// publish, and no certificate.
	Provider *IdentityProvider `json:"provider,omitempty"`
}

// IdentitySelector selects proxies.
type IdentitySelector struct {
	// Labels of the proxies; {} is all of them.
	Dataplane *LabelSelector `json:"dataplane,omitempty"`
}

// SpiffeIDTemplate is the two parts of an ID, Go templates.
type SpiffeIDTemplate struct {
	// A Go template over .Mesh, .Zone and label "key". Absent: {{ .Mesh }}.{{
	// .Zone }}.mesh.local.
	TrustDomain string `json:"trustDomain,omitempty"`
	// A Go template over .Mesh, .Zone, .TrustDomain, .Namespace,
	// .ServiceAccount, .Workload and label "key" (of the Dataplane). Absent:
	// /ns/{{ .Namespace }}/sa/{{ .ServiceAccount }} on Kubernetes, else
	// /workload/{{ .Workload }}.
	Path string `json:"path,omitempty"`
}

// IdentityProvider issues certificates.
type IdentityProvider struct {
	// Bundled is the control plane, Spire an agent of SPIRE beside each proxy,
	// Extension something else; the member of that name is needed.
	Type string `json:"type" req:"true" enum:"Bundled,Spire,Extension"`
	// An authority inside the control plane, made by it or given to it.
	Bundled *BundledProvider `json:"bundled,omitempty"`
	// The SPIRE agent; {} is enough. Its trust is SPIRE's own, without
	// MeshTrust.
	Spire *SpireProvider `json:"spire,omitempty"`
	// A provider that is not part of the control plane.
	Extension *ProviderExtension `json:"extension,omitempty"`
}

// BundledProvider is a certificate authority inside the control plane.
type BundledProvider struct {
	// Whether a MeshTrust of the same name is kept with the certificate of the
	// authority. Disabled is for those who distribute trust themselves. Absent:
	// Enabled.
	MeshTrustCreation string `json:"meshTrustCreation,omitempty" enum:"Enabled,Disabled"`
	// Must be true for an authority that signed itself, which those that the
	// control plane makes do; otherwise the identity stays not ready.
	InsecureAllowSelfSigned bool `json:"insecureAllowSelfSigned,omitempty"`
	// What the certificates of proxies are like.
	CertificateParameters *CertificateParameters `json:"certificateParameters,omitempty"`
	// Has the control plane make the authority, kept in Secrets named after the
	// MeshIdentity; not together with ca.
	Autogenerate *Autogenerate `json:"autogenerate,omitempty"`
	// An authority of your own, such as an intermediate of the company's; both
	// members are needed.
	CA *BundledCA `json:"ca,omitempty"`
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
	// How long a certificate is valid; it is renewed long before. Absent: 120h.
	Expiry *Duration `json:"expiry,omitempty"`
}

// Autogenerate says that the control plane makes the authority.
type Autogenerate struct {
	// Absent: false, ca is needed.
	Enabled bool `json:"enabled,omitempty"`
}

// BundledCA is an authority of the user's own: PEM.
type BundledCA struct {
	// The authority's certificate, PEM; with intermediates, if there are.
	Certificate *SecureDataSource `json:"certificate,omitempty"`
	// Its private key, PEM. RSA, ECDSA or Ed25519; proxies get keys of the same
	// sort.
	PrivateKey *SecureDataSource `json:"privateKey,omitempty"`
}

// SpireProvider is a SPIRE agent next to the proxy.
type SpireProvider struct {
	// How to talk to the agent; absent: as its fields say.
	Agent *SpireAgent `json:"agent,omitempty"`
}

// SpireAgent is how to talk to it.
type SpireAgent struct {
	// How long Envoy waits for the agent. Absent: 1s.
	Timeout *Duration `json:"timeout,omitempty"`
}

// ProviderExtension is a provider that is not part of the control plane.
type ProviderExtension struct {
	// Which provider it is.
	Name string `json:"name" req:"true" minLen:"1"`
	// Settings of that provider.
	Config map[string]any `json:"config,omitempty"`
}

// MeshIdentities are written anywhere.
var MeshIdentities = newKind(Kind[MeshIdentity]{
	Facts: Facts{
		Name: "MeshIdentity", Plural: "meshidentities", Short: "mid", Scope: MeshScope, Flow: Down | Up,
	},
	Validate: validateIdentity,
})

// MeshTrust is whom proxies believe: the authorities of one trust domain. Those
// of MeshIdentities are made for you; write one to believe another mesh or a
// partner. All of a mesh together are what proxies verify certificates with.
type MeshTrust struct {
	// The domain in the SPIFFE IDs, such as default.east.mesh.local;
	// certificates with IDs of other domains are not believed by these
	// authorities.
	TrustDomain string `json:"trustDomain" req:"true" minLen:"1" maxLen:"253"`
	// The authorities, all of which are believed: keep old and new ones side by
	// side while one is replaced.
	CABundles []CABundle `json:"caBundles" req:"true" minItems:"1"`
}

// CABundle is certificates of authorities.
type CABundle struct {
	// The form of the certificates.
	Type string `json:"type" req:"true" enum:"Pem"`
	// Certificates in PEM.
	PEM PEMBundle `json:"pem" req:"true"`
}

// PEMBundle is one or more certificates, PEM.
type PEMBundle struct {
	// One or more blocks BEGIN CERTIFICATE, never a private key.
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
