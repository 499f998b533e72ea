package ir

// Fault is what goes wrong with a part of the requests of some callers, on purpose. What is set happens in the order of the
// fields, each to its own share.
type Fault struct {
	Policy  string      `json:"policy"` // KRI of the policy that asks for it
	Callers Callers     `json:"callers,omitempty"`
	Delay   *DelayFault `json:"delay,omitempty"`
	Abort   *AbortFault `json:"abort,omitempty"`
	Slow    *SlowFault  `json:"slow,omitempty"`
}

// DelayFault holds requests before they are passed on.
type DelayFault struct {
	For   Duration `json:"for"`
	Share Share    `json:"share"`
}

// AbortFault answers instead of the application.
type AbortFault struct {
	Status uint32 `json:"status"`
	Share  Share  `json:"share"`
}

// SlowFault limits how fast responses are sent.
type SlowFault struct {
	Kibps uint64 `json:"kibps"` // KiB per second
	Share Share  `json:"share"`
}
