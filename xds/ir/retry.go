package ir

// Retry says which requests are tried again, and how. Whoever wants none has no Retry.
type Retry struct {
	// On lists what makes a try count as failed, by the names that HTTP proxies give it (5xx, gateway-error, reset,
	// connect-failure, unavailable, …); Statuses and ResponseHeaders, too. At least one of the three is there.
	On              []string      `json:"on,omitempty"`
	Statuses        []uint32      `json:"statuses,omitempty"`
	ResponseHeaders []HeaderMatch `json:"responseHeaders,omitempty"` // any of them
	// Requests: only those with any of these headers are tried again; ":method" is the method. Empty: all.
	Requests []HeaderMatch `json:"requests,omitempty"`
	Times    uint32        `json:"times,omitempty"`  // tries after the first; 0 leaves it to the proxy
	PerTry   Duration      `json:"perTry,omitzero"`  // how long one try may take
	BackOff  BackOff       `json:"backOff,omitzero"` // zero leaves it to the proxy
	Resets   []Reset       `json:"resets,omitempty"` // headers of a response that say when to come back; the first counts
	ResetMax Duration      `json:"resetMax,omitzero"`
	// Which endpoints a retry avoids: those that were tried, those with all tags of an element.
	AvoidTried bool                `json:"avoidTried,omitempty"`
	AvoidTags  []map[string]string `json:"avoidTags,omitempty"`
	Draws      uint32              `json:"draws,omitempty"` // how often another endpoint is drawn when one is to be avoided; 0 leaves it to the proxy
	// AvoidPriorities is after how many tries priorities that were tried are left out; 0: never.
	AvoidPriorities uint32 `json:"avoidPriorities,omitempty"`
}

// BackOff is a wait that is random, below Base at first and below twice as much each further time, and never above Max.
// If it is not zero, Base is set.
type BackOff struct {
	Base Duration `json:"base,omitzero"`
	Max  Duration `json:"max,omitzero"` // unset leaves it to the proxy; not below Base
}

// Reset is a header of a response that says when to come back: after so many seconds, or at a Unix time.
type Reset struct {
	Header string `json:"header"`
	Unix   bool   `json:"unix,omitempty"`
}
