package api

// TargetRef says what a policy, or a part of it, is about: proxies at the top
// of a policy, a destination in its to entries.
type TargetRef struct {
	_ struct{} `gone:"name,namespace" use:"labels kuma.io/display-name and k8s.kuma.io/namespace"`
	_ struct{} `gone:"tags" use:"labels"`
	_ struct{} `gone:"proxyTypes" use:""`

	// What is selected: Mesh is everything, Dataplane proxies, the others
	// destinations of that kind.
	Kind string `json:"kind" req:"true"`
	// Labels that a resource must all carry with these very values, such as
	// {kuma.io/display-name: web}. Absent on Dataplane: every proxy; not allowed
	// with Mesh, needed for destinations.
	Labels map[string]string `json:"labels,omitempty"`
	// One part of what is selected: an inbound or listener of a Dataplane, or a
	// port of a service, by its name, or by its number as text ("8080") when it
	// has none. Absent: all of it.
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

	// The kind of the service: of one zone, outside of the mesh, or of several
	// zones.
	Kind string `json:"kind" req:"true" enum:"MeshService,MeshExternalService,MeshMultiZoneService"`
	// Labels that the service carries, such as {kuma.io/display-name: web}; of
	// several that do the oldest is taken, and with none the reference is not
	// resolved.
	Labels map[string]string `json:"labels,omitempty"`
	// The port by its name; absent: port says which.
	SectionName string `json:"sectionName,omitempty"`
	// Share of the traffic, relative to the other references of the list: 90 and
	// 10 are nine to one. Absent is 1; 0 gets nothing.
	Weight *uint `json:"weight,omitempty" min:"0" max:"4294967295"`
	// The port by its number; needed for a MeshMultiZoneService, and for a
	// MeshService unless sectionName names it.
	Port uint32 `json:"port,omitempty" min:"1" max:"65535"`
	// Older means the first port of the service, if no port is named.
	Older *OlderRef `json:"older,omitempty" meant:"true"`
}

// TelemetryRef names a collector of logs, traces or metrics.
type TelemetryRef struct {
	_ struct{} `gone:"name,namespace" use:"labels kuma.io/display-name and k8s.kuma.io/namespace"`

	// The kind of the collector.
	Kind string `json:"kind" req:"true" enum:"MeshOpenTelemetryBackend"`
	// Labels that the backend carries, such as {kuma.io/display-name:
	// collector}; of several that do the oldest is taken. With none, nothing is
	// sent and a condition of the policy says so.
	Labels map[string]string `json:"labels,omitempty"`
}

// Match tells callers apart; both conditions must hold. The zero value matches
// every caller.
type Match struct {
	// By the SPIFFE ID in the certificate that the caller presents; absent: any
	// caller.
	SpiffeID *SpiffeIDMatch `json:"spiffeID,omitempty"`
	// By the server name that the caller asks for in its TLS handshake; absent:
	// any name.
	SNI *SNIMatch `json:"sni,omitempty"`
	// Caller is set by older forms, alone; nil: none. Who does not resolve it must
	// treat the match as one that nobody meets.
	Caller *Caller `json:"caller,omitempty" meant:"true"`
}

// SpiffeIDMatch matches the SPIFFE ID in the caller's certificate.
type SpiffeIDMatch struct {
	// Exact is the whole ID, Prefix its beginning.
	Type string `json:"type" req:"true" enum:"Exact,Prefix"`
	// The ID, such as spiffe://default.east.mesh.local/ns/shop/sa/web, or the
	// beginning of IDs, without a slash at the end.
	Value string `json:"value" req:"true"`
}

// SNIMatch matches the server name that the caller asked for.
type SNIMatch struct {
	// How the name is compared; the whole name must be equal.
	Type string `json:"type" req:"true" enum:"Exact"`
	// The server name, a lowercase DNS name.
	Value string `json:"value" req:"true"`
}

// HeaderMatch matches a request header. Present and Absent have no value.
type HeaderMatch struct {
	// How the value is compared; Present and Absent look only for the header
	// itself and take no value.
	Type string `json:"type,omitempty" enum:"Exact,Present,RegularExpression,Absent,Prefix" default:"Exact"`
	// The header, in lower case.
	Name string `json:"name" req:"true" minLen:"1" maxLen:"256" pattern:"^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$"`
	// What the value must be: all of it, its beginning, or a regular expression
	// (RE2) for the whole of it.
	Value string `json:"value,omitempty"`
}

// LabelSelector selects what carries all the labels; none select everything.
type LabelSelector struct {
	// Labels that must all be carried with these very values; absent or empty:
	// everything is selected.
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// Condition is one statement about the state of a resource.
type Condition struct {
	// What the statement is about, such as Ready; one condition of each type.
	Type string `json:"type" req:"true"`
	// Whether the statement holds.
	Status string `json:"status" req:"true" enum:"True,False,Unknown"`
	// Why, as one word for programs, such as MatchesFound.
	Reason string `json:"reason,omitempty"`
	// Why, as a sentence for people.
	Message string `json:"message,omitempty"`
}

// Address is a host name under which a service can be called.
type Address struct {
	// The name that clients resolve, to the virtual IP of the service.
	Hostname string `json:"hostname,omitempty"`
	// Who made the name: HostnameGenerator or Kubernetes.
	Origin string `json:"origin,omitempty"`
	// The generator that made the name; absent for names of Kubernetes.
	HostnameGeneratorRef *CoreRef `json:"hostnameGeneratorRef,omitempty"`
}

// CoreRef names a resource by its name at this control plane.
type CoreRef struct {
	// The name by which calls of this control plane's API name the resource.
	CoreName string `json:"coreName"`
}
