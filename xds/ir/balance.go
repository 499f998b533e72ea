package ir

// Balancer picks an endpoint among those that are equally preferred. The zero value takes them in turn.
type Balancer struct {
	Algorithm Algorithm `json:"algorithm,omitempty"`
	Choices   uint32    `json:"choices,omitempty"` // LeastRequest: how many are drawn; 0 leaves it to the proxy
	Bias      *float64  `json:"bias,omitempty"`    // LeastRequest: how strongly requests under way count against weights; nil leaves it to the proxy
	Murmur    bool      `json:"murmur,omitempty"`  // RingHash: MurmurHash2 instead of xxHash
	MinRing   uint32    `json:"minRing,omitempty"` // RingHash: 0 leaves it to the proxy; not above MaxRing
	MaxRing   uint32    `json:"maxRing,omitempty"` // RingHash: 0 leaves it to the proxy
	Table     uint32    `json:"table,omitempty"`   // Maglev: a prime number; 0 leaves it to the proxy
}

// Algorithm is the way in which a [Balancer] picks.
type Algorithm string

// The algorithms; the zero value is in turn.
const (
	InTurn       Algorithm = ""
	LeastRequest Algorithm = "least request"
	Random       Algorithm = "random"
	RingHash     Algorithm = "ring hash"
	Maglev       Algorithm = "maglev"
)

// Hash is a part of a request, or of a connection, that [RingHash] and [Maglev] look at. Exactly one of Header, Cookie,
// Query, State and SourceIP is set; connections have only the last two.
type Hash struct {
	Header     string   `json:"header,omitempty"`
	Cookie     string   `json:"cookie,omitempty"`
	CookieTTL  Duration `json:"cookieTTL,omitzero"` // set: the proxy makes the cookie if there is none; 0 is until the browser ends
	CookiePath string   `json:"cookiePath,omitempty"`
	Query      string   `json:"query,omitempty"`
	State      string   `json:"state,omitempty"` // name of an object that a filter left
	SourceIP   bool     `json:"sourceIP,omitempty"`
	Terminal   bool     `json:"terminal,omitempty"` // if the part is there, those that follow do not count
}
