package ir

// Cluster is a group of equal endpoints and how to talk to them.
type Cluster struct {
	Name   string     `json:"name"`
	Origin Origin     `json:"origin,omitempty"`
	Static []Locality `json:"static,omitempty"` // the endpoints, which may have host names; none: they come as [Endpoints] under the cluster's name
	// AsAddressed: the sole endpoint of a connection is the address that the client made it to; instead of endpoints.
	AsAddressed    bool       `json:"asAddressed,omitempty"`
	ConnectTimeout Duration   `json:"connectTimeout,omitzero"`
	Protocol       Protocol   `json:"protocol,omitempty"`
	IdleTimeout    Duration   `json:"idleTimeout,omitzero"`   // of a connection without requests; HTTP only
	MaxStream      Duration   `json:"maxStream,omitzero"`     // HTTP only
	MaxConnection  Duration   `json:"maxConnection,omitzero"` // HTTP only
	TLS            *ClientTLS `json:"tls,omitempty"`
	// Outside is in place of TLS, where the endpoints are no proxies.
	Outside       *OutsideTLS  `json:"outside,omitempty"`
	SourceAddress string       `json:"sourceAddress,omitempty"` // IP address that connections come from
	HealthCheck   *HealthCheck `json:"healthCheck,omitempty"`
	Breaker       Breaker      `json:"breaker,omitzero"`
	Balancer      Balancer     `json:"balancer,omitzero"`
	// WeightedLocalities: of one priority, a locality gets calls by its weight, and none without.
	WeightedLocalities bool    `json:"weightedLocalities,omitempty"`
	TrackRemaining     bool    `json:"trackRemaining,omitempty"` // publish what is left of the limits
	Patches            []Patch `json:"patches,omitempty"`
}

// Protocol is what is spoken to a cluster's endpoints.
type Protocol string

// The protocols; the zero value is bytes.
const (
	Bytes Protocol = ""
	HTTP1 Protocol = "http1"
	HTTP2 Protocol = "http2"
	// AsCalled passes requests on in the version of HTTP in which they came.
	AsCalled Protocol = "as called"
)

// ClientTLS is how the proxy proves who it is to a cluster's endpoints and whom it accepts there.
type ClientTLS struct {
	Identity  string   `json:"identity"` // name of the [Secret] to show
	Bundle    string   `json:"bundle"`   // name of the [TrustBundle] that peers are checked with
	SNI       string   `json:"sni,omitempty"`
	ALPN      []string `json:"alpn,omitempty"`
	SpiffeIDs []string `json:"spiffeIDs,omitempty"` // peers must be one of these; sorted; empty: any the bundle knows

	Params TLSParams `json:"params,omitzero"`
}

// OutsideTLS is TLS towards servers outside of the mesh: they prove themselves by a name, and authorities of their own. Exactly
// one of CA, CAPath and Unverified is set, so that nobody is believed because a setting is missing.
type OutsideTLS struct {
	SNI         string      `json:"sni,omitempty"`        // sent to all endpoints; none: no server name is sent
	OwnNames    bool        `json:"ownNames,omitempty"`   // each endpoint is sent its own host name in place of SNI
	CA          string      `json:"ca,omitempty"`         // PEM; of the authorities that may have signed the server's certificate
	CAPath      string      `json:"caPath,omitempty"`     // the same, as a file where the proxy runs
	Unverified  bool        `json:"unverified,omitempty"` // whoever answers is taken for the server
	Names       []NameMatch `json:"names,omitempty"`      // of which the certificate must carry one; none: any will do
	Identity    string      `json:"identity,omitempty"`   // name of the [Secret] to show; none: no certificate is shown
	Params      TLSParams   `json:"params,omitzero"`
	Renegotiate bool        `json:"renegotiate,omitempty"` // the server may
}

// NameMatch compares a name in a certificate: a DNS name or an IP address, or, with "://" in it, a URI.
type NameMatch struct {
	Match Match  `json:"match"` // Exact or Prefix
	Value string `json:"value"`
}

// Endpoints are the members of a cluster, by locality.
type Endpoints struct {
	Cluster    string     `json:"cluster"`
	Localities []Locality `json:"localities,omitempty"` // sorted by priority, region, zone, sub-zone
	// Spill is the overprovisioning factor in percent: of priority 0 so many times the healthy part counts, and what lacks
	// to all goes to the next priority. 0 leaves it to the proxy.
	Spill uint32 `json:"spill,omitempty"`
}

// Locality is endpoints in one place. Those of priority 1 are used as far as those of priority 0 are not healthy enough.
type Locality struct {
	Region    string     `json:"region,omitempty"`
	Zone      string     `json:"zone,omitempty"`
	SubZone   string     `json:"subZone,omitempty"`
	Priority  uint32     `json:"priority,omitempty"`
	Weight    uint32     `json:"weight,omitempty"` // 0: unset
	Endpoints []Endpoint `json:"endpoints"`        // sorted by address
}

// Endpoint is one member.
type Endpoint struct {
	Address Address           `json:"address"`
	Weight  uint32            `json:"weight,omitempty"` // 0: unset
	Tags    map[string]string `json:"tags,omitempty"`   // what load balancing may look at
}
