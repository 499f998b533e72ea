package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// serverTLS asks for a certificate of the mesh wherever it shows one: what strangers may call shows another one, from files, or
// has no [ir.ServerTLS].
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/transport_sockets/tls/v3/tls.proto
func (w *work) serverTLS(t ir.ServerTLS) *corev3.TransportSocket {
	common := new(tlsv3.CommonTlsContext)
	switch {
	case !exactlyOne(t.Inline != nil, t.Files != nil, t.Identity != ""):
		w.fail("server TLS: exactly one of identity, inline and files must be set")
	case t.Files != nil:
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: inFile(t.Files.Chain), PrivateKey: inFile(t.Files.Key)}}
	case t.Inline != nil:
		common.TlsCertificates = []*tlsv3.TlsCertificate{{
			CertificateChain: inlineBytes(t.Inline.Chain),
			PrivateKey:       inlineBytes(t.Inline.Key),
		}}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inlineBytes(t.Inline.CA),
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_DNS,
				Matcher: exactly(t.Inline.Client),
			}},
		}}
	default:
		peers := new(tlsv3.CertificateValidationContext)
		for _, domain := range t.TrustDomains {
			// The slash keeps a domain from letting in those whose names merely start alike.
			peers.MatchTypedSubjectAltNames = append(peers.MatchTypedSubjectAltNames, uri(startingWith("spiffe://"+domain+"/")))
		}
		w.named(common, t.Identity, t.Bundle, peers)
	}
	common.TlsParams = w.tlsParams(t.Params)
	return w.tlsSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         common,
		RequireClientCertificate: wrapperspb.Bool(t.Files == nil),
	})
}

func inFile(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func (w *work) clientTLS(t ir.ClientTLS) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{AlpnProtocols: t.ALPN}
	peers := new(tlsv3.CertificateValidationContext)
	for _, id := range t.SpiffeIDs {
		peers.MatchTypedSubjectAltNames = append(peers.MatchTypedSubjectAltNames, uri(exactly(id)))
	}
	if t.Identity == "" {
		w.fail("client TLS: no identity")
	}
	w.named(common, t.Identity, t.Bundle, peers)
	common.TlsParams = w.tlsParams(t.Params)
	return w.tlsSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.SNI})
}

// outsideTLS is for servers that are no proxies. A name is looked for among the names of its own sort.
func (w *work) outsideTLS(t ir.OutsideTLS) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{TlsParams: w.tlsParams(t.Params)}
	if t.Identity != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: t.Identity, SdsConfig: ads()}}
	}
	given := 0
	for _, set := range []bool{t.CA != "", t.CAPath != "", t.Unverified} {
		if set {
			given++
		}
	}
	switch {
	case given != 1:
		// Without authorities Envoy would accept every certificate.
		w.fail("TLS to the outside: it must be said by which authorities servers are verified, or that they are not")
	case t.Unverified && len(t.Names) > 0:
		w.fail("TLS to the outside: names of a certificate that is not verified")
	case !t.Unverified:
		servers := &tlsv3.CertificateValidationContext{TrustedCa: inlineString(t.CA)}
		if t.CAPath != "" {
			servers.TrustedCa = inFile(t.CAPath)
		}
		for _, name := range t.Names {
			servers.MatchTypedSubjectAltNames = append(servers.MatchTypedSubjectAltNames, w.serverNames(name)...)
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: servers}
	}
	return w.tlsSocket(&tlsv3.UpstreamTlsContext{
		CommonTlsContext: common, Sni: t.SNI, AutoHostSni: t.OwnNames, AllowRenegotiation: t.Renegotiate,
	})
}

func (w *work) serverNames(n ir.NameMatch) (out []*tlsv3.SubjectAltNameMatcher) {
	text := exactly(n.Value)
	switch n.Match {
	case ir.Exact:
	case ir.Prefix:
		text = startingWith(n.Value)
	default:
		w.fail("TLS to the outside: names are compared exactly or by prefix, not %q", n.Match)
	}
	add := func(sort tlsv3.SubjectAltNameMatcher_SanType) {
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: sort, Matcher: text})
	}
	switch {
	case strings.Contains(n.Value, "://"):
		add(tlsv3.SubjectAltNameMatcher_URI)
	case n.Match == ir.Prefix: // of a name or of an address
		add(tlsv3.SubjectAltNameMatcher_DNS)
		add(tlsv3.SubjectAltNameMatcher_IP_ADDRESS)
	case isIP(n.Value):
		add(tlsv3.SubjectAltNameMatcher_IP_ADDRESS)
	default:
		add(tlsv3.SubjectAltNameMatcher_DNS)
	}
	return out
}

// tlsParams is nil where Envoy may choose. Without bounds Envoy speaks 1.2 and, as a server, 1.3: a bound beyond the other
// one's default brings that along, since Envoy refuses a range that holds no version.
func (w *work) tlsParams(p ir.TLSParams) *tlsv3.TlsParameters {
	if p.IsZero() {
		return nil
	}
	least, most := p.Min, p.Max
	if least == "1.3" && most == "" {
		most = least
	}
	if least == "" && (most == "1.0" || most == "1.1") {
		least = most
	}
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: w.tlsVersion(least), TlsMaximumProtocolVersion: w.tlsVersion(most), CipherSuites: p.Ciphers}
}

func (w *work) tlsVersion(v string) tlsv3.TlsParameters_TlsProtocol {
	switch v {
	case "":
		return tlsv3.TlsParameters_TLS_AUTO
	case "1.0":
		return tlsv3.TlsParameters_TLSv1_0
	case "1.1":
		return tlsv3.TlsParameters_TLSv1_1
	case "1.2":
		return tlsv3.TlsParameters_TLSv1_2
	case "1.3":
		return tlsv3.TlsParameters_TLSv1_3
	}
	w.fail("TLS version %q", v)
	return tlsv3.TlsParameters_TLS_AUTO
}

// named lets identity and bundle come as resources of their own, so that rotation touches neither listener nor cluster.
func (w *work) named(common *tlsv3.CommonTlsContext, identity, bundle string, peers *tlsv3.CertificateValidationContext) {
	if bundle == "" {
		// Without a bundle Envoy would accept every certificate.
		w.fail("TLS: no trust bundle")
	}
	common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: identity, SdsConfig: ads()}}
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         peers,
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: bundle, SdsConfig: ads()},
		},
	}
}

func (w *work) tlsSocket(context message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: w.pack(context)},
	}
}

func uri(m *matcherv3.StringMatcher) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func startingWith(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }

func fitting(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(s)}}
}
