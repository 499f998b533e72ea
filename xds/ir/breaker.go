package ir

// Breaker bounds what is open towards a cluster and takes endpoints that fail out of use. The zero value bounds nothing
// beyond the proxy's own defaults and ejects nobody.
type Breaker struct {
	Limits         Limits    `json:"limits,omitzero"`
	Outliers       *Outliers `json:"outliers,omitempty"`       // nil: nobody is ejected
	PanicThreshold *float64  `json:"panicThreshold,omitempty"` // percent; with fewer healthy endpoints all are used. nil: the proxy's own
}

// Limits is how much may be open at the same time; 0 leaves it to the proxy.
type Limits struct {
	Connections uint32 `json:"connections,omitempty"`
	Pools       uint32 `json:"pools,omitempty"`
	Pending     uint32 `json:"pending,omitempty"` // requests that wait for a connection
	Retries     uint32 `json:"retries,omitempty"`
	Requests    uint32 `json:"requests,omitempty"`
}

// Outliers ejects endpoints for a while that one of the detectors finds; a detector that is nil is off. Unset and 0 leave a
// field to the proxy.
type Outliers struct {
	Interval           Duration           `json:"interval,omitzero"`
	BaseEjection       Duration           `json:"baseEjection,omitzero"`
	MaxEjectionPercent *uint32            `json:"maxEjectionPercent,omitempty"`
	SplitLocal         bool               `json:"splitLocal,omitempty"` // failures of the network are counted apart
	Total              *Consecutive       `json:"total,omitempty"`
	Gateway            *Consecutive       `json:"gateway,omitempty"`
	Local              *Consecutive       `json:"local,omitempty"`
	SuccessRate        *SuccessRate       `json:"successRate,omitempty"`
	FailurePercentage  *FailurePercentage `json:"failurePercentage,omitempty"`
}

// Consecutive finds so many failures in a row.
type Consecutive struct {
	Failures uint32 `json:"failures,omitempty"`
}

// SuccessRate finds endpoints that are worse than the others by so many standard deviations.
type SuccessRate struct {
	MinimumHosts  uint32  `json:"minimumHosts,omitempty"`
	RequestVolume uint32  `json:"requestVolume,omitempty"`
	Deviations    float64 `json:"deviations,omitempty"`
}

// FailurePercentage finds endpoints of which at least a share of the requests failed.
type FailurePercentage struct {
	MinimumHosts  uint32  `json:"minimumHosts,omitempty"`
	RequestVolume uint32  `json:"requestVolume,omitempty"`
	Threshold     *uint32 `json:"threshold,omitempty"` // percent
}
