package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// Secret is the Envoy secret that holds an identity. It contains a private key: it must be sent to its owner alone and
// never be shown.
func Secret(s ir.Secret) (*tlsv3.Secret, error) {
	w := new(work)
	if s.Chain == "" || s.Key == "" {
		w.fail("no certificate or no key")
	}
	return finish(w, s.Name, nil, &tlsv3.Secret{
		Name: s.Name,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inlineBytes(s.Chain),
			PrivateKey:       inlineBytes(s.Key),
		}},
	})
}

// TrustBundle is the Envoy secret that says whom to believe. Envoy checks a peer against the authorities of the trust
// domain in the peer's own SPIFFE ID, so a domain's authority cannot vouch for another domain.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto
func TrustBundle(b ir.TrustBundle) (*tlsv3.Secret, error) {
	w := new(work)
	validator := new(tlsv3.SPIFFECertValidatorConfig)
	for _, d := range b.Domains {
		if d.PEM == "" {
			w.fail("trust domain %q has no authority", d.Name)
		}
		validator.TrustDomains = append(validator.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
			Name:        d.Name,
			TrustBundle: inlineString(d.PEM),
		})
	}
	if len(b.Domains) == 0 {
		w.fail("no trust domain")
	}
	return finish(w, b.Name, nil, &tlsv3.Secret{
		Name: b.Name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			CustomValidatorConfig: &corev3.TypedExtensionConfig{
				Name:        "envoy.tls.cert_validator.spiffe",
				TypedConfig: w.pack(validator),
			},
		}},
	})
}
