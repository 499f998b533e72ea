package ir

// Callers is whom something is for: whoever one of the list describes; nil is everybody.
type Callers []Caller

// Caller describes callers: those that match, but for those that an exception matches.
type Caller struct {
	Peer   PeerMatch   `json:"peer,omitzero"`
	Except []PeerMatch `json:"except,omitempty"`
}

// Rate is how many per interval. All of them may come at once.
type Rate struct {
	Num      uint32   `json:"num"`
	Interval Duration `json:"interval"` // at least 50ms
}

// RequestLimit passes on so many requests and answers the rest. It counts all its callers together.
type RequestLimit struct {
	Callers Callers      `json:"callers,omitempty"`
	Rate    Rate         `json:"rate"`
	Status  uint32       `json:"status,omitempty"` // of the answer; 0, below 400 or unknown to Envoy: 429
	Headers HeaderChange `json:"headers,omitzero"` // of the answer; nothing is removed
}
