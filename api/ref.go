package api

// TargetRef says what a policy, or a part of it, is about.
type TargetRef struct {
	_ struct{} `gone:"name,namespace" use:"labels kuma.io/display-name and k8s.kuma.io/namespace"`
	_ struct{} `gone:"tags" use:"labels"`
	_ struct{} `gone:"proxyTypes" use:""`

	Kind   string            `json:"kind" req:"true"`
	Labels map[string]string `json:"labels,omitempty"`
	// SectionName is an inbound or listener of a Dataplane, or a port of a
	// service: its name, or its number as text when it has none.
	SectionName string `json:"sectionName,omitempty"`
	// Older is set by older forms; nil: none.
	Older *OlderRef `json:"older,omitempty" meant:"true"`
}

// Kinds that a reference may name.
const (
	RefMesh             = "Mesh"
	RefDataplane        = "Dataplane"
	RefService          = "MeshService"
	RefExternalService  = "MeshExternalService"
	RefMultiZoneService = "MeshMultiZoneService"
	RefHTTPRoute        = "MeshHTTPRoute"
)

// BackendRef names a port of a service that traffic is sent to.
type BackendRef struct {
	_ struct{} `gone:"name,namespace" use:"labels kuma.io/display-name and k8s.kuma.io/namespace"`
	_ struct{} `gone:"tags" use:"labels"`

	Kind        string            `json:"kind" req:"true" enum:"MeshService,MeshExternalService,MeshMultiZoneService"`
	Labels      map[string]string `json:"labels,omitempty"`
	SectionName string            `json:"sectionName,omitempty"`
	// Weight is the share relative to the other references; nil is 1.
	Weight *uint `json:"weight,omitempty" min:"0" max:"4294967295"`
	// Port is the number of the port, if SectionName does not name it.
	Port uint32 `json:"port,omitempty" min:"1" max:"65535"`
	// Older means the first port of the service, if no port is named.
	Older *OlderRef `json:"older,omitempty" meant:"true"`
}

// TelemetryRef names a collector of logs, traces or metrics.
type TelemetryRef struct {
	_ struct{} `gone:"name,namespace" use:"labels kuma.io/display-name and k8s.kuma.io/namespace"`

	Kind   string            `json:"kind" req:"true" enum:"MeshOpenTelemetryBackend"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Match tells callers apart; both conditions must hold. The zero value matches
// every caller.
type Match struct {
	SpiffeID *SpiffeIDMatch `json:"spiffeID,omitempty"`
	SNI      *SNIMatch      `json:"sni,omitempty"`
	// Caller is set by older forms, alone; nil: none. Who does not resolve it must
	// treat the match as one that nobody meets.
	Caller *Caller `json:"caller,omitempty" meant:"true"`
}

// SpiffeIDMatch matches the SPIFFE ID in the caller's certificate.
type SpiffeIDMatch struct {
	Type  string `json:"type" req:"true" enum:"Exact,Prefix"`
	Value string `json:"value" req:"true"`
}

// SNIMatch matches the server name that the caller asked for.
type SNIMatch struct {
	Type  string `json:"type" req:"true" enum:"Exact"`
	Value string `json:"value" req:"true"`
}

// HeaderMatch matches a request header. Present and Absent have no value.
type HeaderMatch struct {
	Type  string `json:"type,omitempty" enum:"Exact,Present,RegularExpression,Absent,Prefix" default:"Exact"`
	Name  string `json:"name" req:"true" minLen:"1" maxLen:"256" pattern:"^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$"`
	Value string `json:"value,omitempty"`
}

// LabelSelector selects what carries all the labels; none select everything.
type LabelSelector struct {
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// Condition is one statement about the state of a resource.
type Condition struct {
	Type    string `json:"type" req:"true"`
	Status  string `json:"status" req:"true" enum:"True,False,Unknown"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Address is a host name under which a service can be called.
type Address struct {
	Hostname string `json:"hostname,omitempty"`
	// Origin is HostnameGenerator or Kubernetes.
	Origin               string   `json:"origin,omitempty"`
	HostnameGeneratorRef *CoreRef `json:"hostnameGeneratorRef,omitempty"`
}

// CoreRef names a resource by its name at this control plane.
type CoreRef struct {
	CoreName string `json:"coreName"`
}
