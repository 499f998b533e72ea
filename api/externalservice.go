package api

import "strconv"

// MeshExternalService is a service outside of the mesh, which proxies call
// through an egress of their zone.
type MeshExternalService struct {
	Match ExternalMatch `json:"match" req:"true"`
	// Extension is opaque to the control plane; with it Endpoints and TLS are not judged.
	Extension *ExternalExtension `json:"extension,omitempty"`
	Endpoints []ExternalEndpoint `json:"endpoints,omitempty"`
	TLS       *ExternalTLS       `json:"tls,omitempty"`
}

// Section is the name of the only port.
func (s *MeshExternalService) Section() string { return strconv.Itoa(int(s.Match.Port)) }

// ExternalMatch says how the service is called inside of the mesh.
type ExternalMatch struct {
	Type     string `json:"type,omitempty" enum:"HostnameGenerator" default:"HostnameGenerator"`
	Port     int32  `json:"port" req:"true" min:"1" max:"65535"`
	Protocol string `json:"protocol,omitempty" enum:"tcp,grpc,http,http2" default:"tcp"`
}

// ExternalExtension is what another program makes of the service.
type ExternalExtension struct {
	Type   string         `json:"type" req:"true" minLen:"1"`
	Config map[string]any `json:"config,omitempty"`
}

// ExternalEndpoint is an address of the service.
type ExternalEndpoint struct {
	// Address is an IP address or a DNS name.
	Address string `json:"address" req:"true" minLen:"1"`
	Port    int32  `json:"port" req:"true" min:"1" max:"65535"`
	// Priority 0 is tried first.
	Priority *uint32 `json:"priority,omitempty" min:"0" max:"128"`
}

// ExternalTLS is how the egress speaks to the service.
type ExternalTLS struct {
	Enabled            bool                  `json:"enabled,omitempty"`
	Version            *TLSVersion           `json:"version,omitempty"`
	AllowRenegotiation bool                  `json:"allowRenegotiation,omitempty"`
	Verification       *ExternalVerification `json:"verification,omitempty"`
}

// ExternalVerification is whom the egress believes, and who it is itself.
type ExternalVerification struct {
	// Mode says what of the server's certificate is not looked at.
	Mode            string            `json:"mode,omitempty" enum:"SkipSAN,SkipCA,Secured,SkipAll" default:"Secured"`
	ServerName      string            `json:"serverName,omitempty"`
	SubjectAltNames []SANMatch        `json:"subjectAltNames,omitempty"`
	CACert          *RemoteDataSource `json:"caCert,omitempty"`
	ClientCert      *RemoteDataSource `json:"clientCert,omitempty"`
	ClientKey       *RemoteDataSource `json:"clientKey,omitempty"`
}

// SANMatch matches a subject alternative name.
type SANMatch struct {
	Type  string `json:"type,omitempty" enum:"Exact,Prefix" default:"Exact"`
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
