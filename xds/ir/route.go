package ir

// RouteConfig says where the requests of a listener go. Its routes are tried in order.
type RouteConfig struct {
	Name                 string        `json:"name,omitempty"` // may be empty only inside a listener
	Origin               Origin        `json:"origin,omitempty"`
	RemoveRequestHeaders []string      `json:"removeRequestHeaders,omitempty"`
	Hosts                []VirtualHost `json:"hosts"`
	Patches              []Patch       `json:"patches,omitempty"`
}

// VirtualHost is the routes of some host names.
type VirtualHost struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains,omitempty"` // empty: all
	Routes  []Route  `json:"routes"`
}

// Route is what happens to the requests that match. Exactly one of Forward, Redirect and Respond is set.
type Route struct {
	Name            string       `json:"name,omitempty"`
	Match           RouteMatch   `json:"match,omitzero"`
	RequestHeaders  HeaderChange `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderChange `json:"responseHeaders,omitzero"`
	Forward         *Forward     `json:"forward,omitempty"`
	Redirect        *Redirect    `json:"redirect,omitempty"`
	Respond         *Respond     `json:"respond,omitempty"`
}

// RouteMatch is a condition on a request; all that is set must hold. The zero value matches all.
type RouteMatch struct {
	Path    PathMatch     `json:"path,omitzero"`
	Method  string        `json:"method,omitempty"`
	Headers []HeaderMatch `json:"headers,omitempty"`
	Query   []QueryMatch  `json:"query,omitempty"`
}

// IsZero reports whether m matches every request.
func (m RouteMatch) IsZero() bool {
	return m.Path == PathMatch{} && m.Method == "" && len(m.Headers) == 0 && len(m.Query) == 0
}

// Match is the way in which a text is compared.
type Match string

// The ways. Present and Absent are for headers only and take no value.
const (
	Exact   Match = "exact"
	Prefix  Match = "prefix" // of paths: whole segments, so /x matches /x and /x/y but not /xy
	Regex   Match = "regex"  // RE2, the whole text
	Present Match = "present"
	Absent  Match = "absent"
)

// PathMatch compares the path without the query. The zero value matches all.
type PathMatch struct {
	Match Match  `json:"match,omitempty"` // Exact, Prefix or Regex
	Value string `json:"value,omitempty"`
}

// HeaderMatch compares a header. An empty Prefix is Present.
type HeaderMatch struct {
	Name  string `json:"name"`
	Match Match  `json:"match"`
	Value string `json:"value,omitempty"`
}

// QueryMatch compares a query parameter.
type QueryMatch struct {
	Name  string `json:"name"`
	Match Match  `json:"match"` // Exact or Regex
	Value string `json:"value,omitempty"`
}

// HeaderChange edits headers: Set replaces, Add appends.
type HeaderChange struct {
	Set    []Header `json:"set,omitempty"`
	Add    []Header `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// IsZero reports whether c changes nothing.
func (c HeaderChange) IsZero() bool { return len(c.Set)+len(c.Add)+len(c.Remove) == 0 }

// Header is a name and a value.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Forward sends requests to backends.
type Forward struct {
	Backends    []Backend     `json:"backends"`             // at least one; else the route is a Respond. The weight of a sole one counts only against Unresolved
	Unresolved  uint32        `json:"unresolved,omitempty"` // weight of backends that do not exist; their share is answered 500
	Rewrite     Rewrite       `json:"rewrite,omitzero"`
	Mirrors     []Mirror      `json:"mirrors,omitempty"`
	Timeout     Duration      `json:"timeout,omitzero"`     // whole request; unset and 0: none
	IdleTimeout Duration      `json:"idleTimeout,omitzero"` // of the stream
	Retry       *Retry        `json:"retry,omitempty"`      // nil: every request is tried once
	Hash        []Hash        `json:"hash,omitempty"`       // what [RingHash] and [Maglev] look at, together
	Peers       []PeerTimeout `json:"peers,omitempty"`      // first match wins; else the two above; inbound only
}

// PeerTimeout is the timeouts of a certain caller.
type PeerTimeout struct {
	Peer        PeerMatch `json:"peer"`
	Timeout     Duration  `json:"timeout,omitzero"`
	IdleTimeout Duration  `json:"idleTimeout,omitzero"`
}

// Rewrite changes host and path of a forwarded request.
type Rewrite struct {
	Host     string      `json:"host,omitempty"`
	AutoHost bool        `json:"autoHost,omitempty"` // the endpoint's host name
	Path     PathRewrite `json:"path,omitzero"`
}

// PathRewrite replaces the whole path (Full), or the part that a Prefix match matched (Prefix). The zero value keeps it.
type PathRewrite struct {
	Kind  RewriteKind `json:"kind,omitempty"`
	Value string      `json:"value,omitempty"`
}

// RewriteKind tells what of a path is replaced.
type RewriteKind string

// The kinds.
const (
	ReplaceFull   RewriteKind = "full"
	ReplacePrefix RewriteKind = "prefix"
)

// Mirror copies a share of the requests; answers are dropped.
type Mirror struct {
	Cluster string `json:"cluster"`
	Share   Share  `json:"share"`
}

// Redirect answers with another place. Empty fields keep those of the request.
type Redirect struct {
	Scheme string      `json:"scheme,omitempty"`
	Host   string      `json:"host,omitempty"`
	Port   uint32      `json:"port,omitempty"`
	Status uint32      `json:"status,omitempty"` // 301, 302, 303, 307 or 308; 0 is 302
	Path   PathRewrite `json:"path,omitzero"`
}

// Respond answers from the proxy itself.
type Respond struct {
	Status uint32 `json:"status"`
	Body   string `json:"body,omitempty"`
}
