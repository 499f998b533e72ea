package ir

// Cluster is a group of equal endpoints and how to talk to them.
type Cluster struct {
	Name           string     `json:"name"`
	Origin         Origin     `json:"origin,omitempty"`
	Static         []Locality `json:"static,omitempty"` // the endpoints, which may have host names; none: they come as [Endpoints] under the cluster's name
	ConnectTimeout Duration   `json:"connectTimeout,omitzero"`
	Protocol       Protocol   `json:"protocol,omitempty"`
	IdleTimeout    Duration   `json:"idleTimeout,omitzero"`   // of a connection without requests; HTTP only
	MaxStream      Duration   `json:"maxStream,omitzero"`     // HTTP only
	MaxConnection  Duration   `json:"maxConnection,omitzero"` // HTTP only
	TLS            *ClientTLS `json:"tls,omitempty"`
	// Outside is TLS to who is not of the mesh; not together with TLS.
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

// OutsideTLS is TLS to a host that proves itself by its name.
type OutsideTLS struct {
	ServerName string `json:"serverName"`
	CA         string `json:"ca,omitempty"` // file of the authorities that are trusted, beside the proxy; "": whoever answers is
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
