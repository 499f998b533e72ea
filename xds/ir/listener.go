package ir

// Direction of a listener as seen from the application beside the proxy.
type Direction string

// The directions.
const (
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
)

// Listener is one address on which the proxy accepts connections. Each connection takes the chain whose match is the most
// specific one; a connection that no chain matches is closed.
type Listener struct {
	Name      string    `json:"name"`
	Origin    Origin    `json:"origin,omitempty"`
	Address   Address   `json:"address"`
	Direction Direction `json:"direction,omitempty"`
	Unbound   bool      `json:"unbound,omitempty"` // no socket of its own: connections are handed over by a transparent listener
	// Transparent: connections come from a redirecting host. Each is handed to the listener of the address that it was made
	// to; it is served here if there is none.
	Transparent bool `json:"transparent,omitempty"`
	// Ordered: a connection takes the first chain that matches, not the most specific one.
	Ordered bool `json:"ordered,omitempty"`
	// ServerFirst are destination ports on which the server speaks first: there is nothing of the client to be looked at, so
	// that chains cannot tell protocols apart there, and all is "raw_buffer".
	ServerFirst []uint32          `json:"serverFirst,omitempty"`
	ReusePort   Switch            `json:"reusePort,omitempty"` // a socket per worker
	Tags        map[string]string `json:"tags,omitempty"`      // what patches select listeners by
	Chains      []Chain           `json:"chains"`
	Patches     []Patch           `json:"patches,omitempty"`
}

// Chain is what happens to the connections that match it: prove who you are, be let in, be served. Exactly one of HTTP and
// TCP is set.
type Chain struct {
	Name        string       `json:"name,omitempty"`
	Match       ChainMatch   `json:"match,omitzero"`
	TLS         *ServerTLS   `json:"tls,omitempty"`         // nil: bytes are taken as they come
	Connections *Rate        `json:"connections,omitempty"` // new ones beyond it are closed at once; nil: no limit
	Permissions *Permissions `json:"permissions,omitempty"` // nil: everybody may; non-nil and empty: nobody may
	HTTP        *HTTP        `json:"http,omitempty"`
	TCP         *TCP         `json:"tcp,omitempty"`
	Logs        []AccessLog  `json:"logs,omitempty"`
}

// ChainMatch selects connections by their first bytes and their destination. The zero value selects all.
type ChainMatch struct {
	Transport string   `json:"transport,omitempty"` // "tls", "raw_buffer" or "" for both
	SNI       []string `json:"sni,omitempty"`       // any of these server names, "*.example.com" too; sorted
	ALPN      []string `json:"alpn,omitempty"`      // any of these application protocols; with "raw_buffer": versions of HTTP, see [PlainHTTP]
	Port      uint32   `json:"port,omitempty"`      // original destination port
	Ranges    []string `json:"ranges,omitempty"`    // original destination in any of these, "10.0.0.0/8"; only in ordered listeners
}

// IsZero reports whether m selects every connection.
func (m ChainMatch) IsZero() bool {
	return m.Transport == "" && len(m.SNI) == 0 && len(m.ALPN) == 0 && m.Port == 0 && len(m.Ranges) == 0
}

// PlainHTTP is the application protocols of a client that speaks HTTP without TLS.
func PlainHTTP() []string { return []string{"http/1.0", "http/1.1", "h2c"} }

// ServerTLS is how a chain proves who it is and what it asks of the peer. The material is named (Identity and Bundle) or
// given (Inline), and the peer must show a certificate; or it is in Files, and the peer may be anybody.
type ServerTLS struct {
	Identity     string   `json:"identity,omitempty"`     // name of the [Secret] to show
	Bundle       string   `json:"bundle,omitempty"`       // name of the [TrustBundle] that peers are checked with
	TrustDomains []string `json:"trustDomains,omitempty"` // peers must be of one of these SPIFFE trust domains; sorted; empty: of any the bundle knows
	Inline       *Inline  `json:"inline,omitempty"`
	Files        *Files   `json:"files,omitempty"`

	Params TLSParams `json:"params,omitzero"`
}

// TLSParams bounds which TLS is spoken. The zero value leaves it to Envoy.
type TLSParams struct {
	Min     string   `json:"min,omitempty"`     // "1.0" to "1.3"; "": Envoy's bound, or Max if that is less
	Max     string   `json:"max,omitempty"`     // "1.0" to "1.3"; "": Envoy's bound, or Min if that is more
	Ciphers []string `json:"ciphers,omitempty"` // of TLS 1.2 and older, in order of preference; none: Envoy's
}

// IsZero reports whether p bounds nothing.
func (p TLSParams) IsZero() bool { return p.Min == "" && p.Max == "" && len(p.Ciphers) == 0 }

// Inline is TLS material of the control plane's own, used where a proxy serves its control plane and no identity exists.
type Inline struct {
	Chain  string `json:"chain"`  // PEM, leaf first
	Key    string `json:"key"`    // PEM
	CA     string `json:"ca"`     // PEM; peers must be signed by it
	Client string `json:"client"` // DNS name that the peer's certificate must carry
}

// Files is a certificate where the proxy runs.
type Files struct {
	Chain string `json:"chain"` // path; PEM, leaf first
	Key   string `json:"key"`   // path; PEM
}

// HTTP serves requests. Exactly one of Routes and RouteName says where they go: Routes is part of the listener, so changing
// it makes open connections drain; a named [RouteConfig] changes under them.
type HTTP struct {
	StatName              string         `json:"statName,omitempty"` // "": the listener's name
	GRPC                  bool           `json:"grpc,omitempty"`     // count gRPC messages
	ForwardPeer           bool           `json:"forwardPeer,omitempty"`
	NormalizePath         bool           `json:"normalizePath,omitempty"`
	InternalCIDRs         []string       `json:"internalCIDRs,omitempty"` // callers trusted to set internal headers, "10.0.0.0/8"
	IdleTimeout           Duration       `json:"idleTimeout,omitzero"`    // of a connection without requests
	StreamIdleTimeout     Duration       `json:"streamIdleTimeout,omitzero"`
	RequestHeadersTimeout Duration       `json:"requestHeadersTimeout,omitzero"` // time for a request's headers to arrive
	Limits                []RequestLimit `json:"limits,omitempty"`               // after Permissions: who is refused counts against none
	Faults                []Fault        `json:"faults,omitempty"`               // after Limits: what is refused anyway is not held
	Tracing               *Tracing       `json:"tracing,omitempty"`              // nil: no spans are made
	Routes                *RouteConfig   `json:"routes,omitempty"`
	RouteName             string         `json:"routeName,omitempty"`
}

// TCP forwards bytes.
type TCP struct {
	StatName    string    `json:"statName,omitempty"` // "": the listener's name
	Backends    []Backend `json:"backends"`           // at least one; exactly one in a chain with Permissions
	IdleTimeout Duration  `json:"idleTimeout,omitzero"`
	Connects    uint32    `json:"connects,omitempty"`   // how often connecting is tried; 0: once
	LogConnect  bool      `json:"logConnect,omitempty"` // logs say a connection when it is there, too, not only when it ends
	Hash        *Hash     `json:"hash,omitempty"`       // nil: connections are not hashed
}

// Backend is a cluster and its weight among its siblings. A sole backend takes everything, whatever its weight.
type Backend struct {
	Cluster string `json:"cluster"`
	Weight  uint32 `json:"weight,omitempty"`
}
