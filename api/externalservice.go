package api

import "strconv"

// MeshExternalService gives a service outside of the mesh a name and a virtual
// IP inside of it, so that policies can speak of it. Proxies call it through an
// egress of their zone, which needs an identity, as they do. With the label
// atoll.io/exit: direct they call it themselves, with its TLS: no egress and no
// identity is needed then, but nobody asks whether they may.
type MeshExternalService struct {
	// How the service is called inside of the mesh.
	Match ExternalMatch `json:"match" req:"true"`
	// For endpoints that another program provides. It is opaque to the control
	// plane; with it endpoints and tls are not judged.
	Extension *ExternalExtension `json:"extension,omitempty"`
	// Where the service is.
	Endpoints []ExternalEndpoint `json:"endpoints,omitempty"`
	// TLS that the egress starts towards the endpoints. Absent: what the caller
	// sends is passed on as it is.
	TLS *ExternalTLS `json:"tls,omitempty"`
}

// Section is the name of the only port.
func (s *MeshExternalService) Section() string { return strconv.Itoa(int(s.Match.Port)) }

// ExternalMatch says how the service is called inside of the mesh.
type ExternalMatch struct {
	// How callers find the service: by a host name that a HostnameGenerator
	// makes, which leads to its virtual IP.
	Type string `json:"type,omitempty" enum:"HostnameGenerator" default:"HostnameGenerator"`
	// The port that callers use; it may differ from those of the endpoints.
	Port int32 `json:"port" req:"true" min:"1" max:"65535"`
	// What is spoken on the port: HTTP policies need more than tcp.
	Protocol string `json:"protocol,omitempty" enum:"tcp,grpc,http,http2" default:"tcp"`
}

// ExternalExtension is what another program makes of the service.
type ExternalExtension struct {
	// Which program it is for.
	Type string `json:"type" req:"true" minLen:"1"`
	// Settings of that program.
	Config map[string]any `json:"config,omitempty"`
}

// ExternalEndpoint is an address of the service.
type ExternalEndpoint struct {
	// An IP address or a DNS name, which Envoy resolves again and again.
	Address string `json:"address" req:"true" minLen:"1"`
	// The port at that address.
	Port int32 `json:"port" req:"true" min:"1" max:"65535"`
	// Endpoints of a higher number are called only when those of lower numbers
	// are not healthy. Absent: 0, called first.
	Priority *uint32 `json:"priority,omitempty" min:"0" max:"128"`
}

// ExternalTLS is how the egress speaks to the service.
type ExternalTLS struct {
	// Switches TLS on.
	Enabled bool `json:"enabled,omitempty"`
	// Which versions are offered; absent: those of Envoy.
	Version *TLSVersion `json:"version,omitempty"`
	// Lets the server renegotiate, which old servers need and TLS 1.3 has not: a
	// risk otherwise.
	AllowRenegotiation bool `json:"allowRenegotiation,omitempty"`
	// Whom the egress believes, and who it is itself. Absent: the certificate is
	// verified by the authorities of the system.
	Verification *ExternalVerification `json:"verification,omitempty"`
}

// ExternalVerification is whom the egress believes, and who it is itself.
type ExternalVerification struct {
	// Secured verifies authority and name of the server's certificate; SkipCA
	// not the authority, SkipSAN not the name, SkipAll neither, and presents no
	// certificate.
	Mode string `json:"mode,omitempty" enum:"SkipSAN,SkipCA,Secured,SkipAll" default:"Secured"`
	// The name that is sent as SNI. Absent: the DNS name of the first endpoint,
	// and none for an IP address.
	ServerName string `json:"serverName,omitempty"`
	// Names of which the certificate must have one. Absent: the server name.
	SubjectAltNames []SANMatch `json:"subjectAltNames,omitempty"`
	// The authorities (PEM) that may have signed the certificate. Absent: those
	// of the system.
	CACert *RemoteDataSource `json:"caCert,omitempty"`
	// The certificate chain (PEM) that the egress presents, for mutual TLS;
	// needs clientKey.
	ClientCert *RemoteDataSource `json:"clientCert,omitempty"`
	// The private key (PEM) of clientCert.
	ClientKey *RemoteDataSource `json:"clientKey,omitempty"`
}

// SANMatch matches a subject alternative name.
type SANMatch struct {
	// Exact is the whole name, Prefix its beginning.
	Type string `json:"type,omitempty" enum:"Exact,Prefix" default:"Exact"`
	// A DNS name, URI or IP address, as it is in the certificate.
	Value string `json:"value" req:"true"`
}

// MeshExternalServices are written anywhere.
var MeshExternalServices = newKind(Kind[MeshExternalService]{
	Facts: Facts{
		Name: "MeshExternalService", Plural: "meshexternalservices", Short: "extsvc", Scope: MeshScope, Flow: Down | Up,
		DNSName: true, Destination: true,
	},
	Upgrade:  upgradeExternalService,
	Validate: validateExternalService,
})

// upgradeExternalService turns the older form of sources of bytes into the newer.
func upgradeExternalService(spec map[string]any, _ *Report) {
	tls, _ := spec["tls"].(map[string]any)
	verification, _ := tls["verification"].(map[string]any)
	for _, field := range []string{"caCert", "clientCert", "clientKey"} {
		upgradeDataSource(verification, field)
	}
}

func validateExternalService(_ *Meta, s *MeshExternalService, r *Report) {
	if s.Extension != nil {
		return
	}
	for i, e := range s.Endpoints {
		checkHost(e.Address, r.Index("endpoints", i).At("address"))
	}
	if s.TLS == nil {
		return
	}
	at := r.At("tls")
	if s.TLS.Version != nil {
		s.TLS.Version.check(at.At("version"))
	}
	v := s.TLS.Verification
	if v == nil {
		return
	}
	if v.ServerName != "" && (len(v.ServerName) > 253 || !dnsSubdomain.MatchString(v.ServerName)) {
		at.At("verification.serverName").Add("must be a valid DNS name")
	}
	switch {
	case v.ClientCert != nil && v.ClientKey == nil:
		at.At("verification.clientKey").Add("must be defined when clientCert is defined")
	case v.ClientKey != nil && v.ClientCert == nil:
		at.At("verification.clientCert").Add("must be defined when clientKey is defined")
	}
}
