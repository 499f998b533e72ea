package api

import "time"

// MeshRateLimit limits how often a proxy is called. Each proxy counts for
// itself.
type MeshRateLimit struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef          `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshRateLimitTo   `json:"to,omitempty"`
	Rules     []MeshRateLimitRule `json:"rules,omitempty"`
}

// MeshRateLimitTo is read for compatibility; it limits nothing.
type MeshRateLimitTo struct {
	TargetRef TargetRef         `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshRateLimitConf `json:"default,omitzero"`
}

// MeshRateLimitRule is about calls from those that match; no matches: from all.
type MeshRateLimitRule struct {
	Matches []Match           `json:"matches,omitempty"`
	Default MeshRateLimitConf `json:"default,omitzero"`
}

// MeshRateLimitConf leaves unset what it does not speak of.
type MeshRateLimitConf struct {
	Local *LocalRateLimit `json:"local,omitempty"`
}

// LocalRateLimit is a limit that each proxy enforces alone.
type LocalRateLimit struct {
	HTTP *LocalHTTPRateLimit `json:"http,omitempty"`
	TCP  *LocalTCPRateLimit  `json:"tcp,omitempty"`
}

// LocalHTTPRateLimit limits requests.
type LocalHTTPRateLimit struct {
	Disabled    *bool        `json:"disabled,omitempty"`
	RequestRate *Rate        `json:"requestRate,omitempty"`
	OnRateLimit *OnRateLimit `json:"onRateLimit,omitempty"`
}

// LocalTCPRateLimit limits new connections.
type LocalTCPRateLimit struct {
	Disabled       *bool `json:"disabled,omitempty"`
	ConnectionRate *Rate `json:"connectionRate,omitempty"`
}

// Rate is how many per interval.
type Rate struct {
	Num      uint32   `json:"num" req:"true"`
	Interval Duration `json:"interval" req:"true"`
}

// OnRateLimit is the answer to a request beyond the limit; Envoy's status is 429.
type OnRateLimit struct {
	Status  *uint32         `json:"status,omitempty"`
	Headers *HeaderAddition `json:"headers,omitempty"`
}

// HeaderAddition sets and adds headers.
type HeaderAddition struct {
	Set []HeaderKeyValue `json:"set,omitempty" maxItems:"16"`
	Add []HeaderKeyValue `json:"add,omitempty" maxItems:"16"`
}

// MeshRateLimits are written anywhere.
var MeshRateLimits = newKind(Kind[MeshRateLimit]{
	Facts: Facts{
		Name: "MeshRateLimit", Plural: "meshratelimits", Short: "mrl", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true, Rules: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateRateLimit,
})

func validateRateLimit(_ *Meta, s *MeshRateLimit, r *Report) {
	checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
	checkToOrRules(s.TargetRef, len(s.To), len(s.Rules), r)
	if whole := s.TargetRef == nil || s.TargetRef.Kind == RefMesh; whole && len(s.Rules) > 0 && !s.TargetRef.wasFrom() {
		r.At("rules").Add("must not be defined")
	} else if !whole && len(s.To) > 0 {
		r.At("to").Add("must not be defined")
	}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, []string{RefMesh}, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		rule.Default.check(at.At("default"))
		if byCaller := checkMatches(rule.Matches, at); byCaller && rule.Default.Local != nil && rule.Default.Local.TCP != nil {
			at.At("default.local.tcp").Add(byCallerReason)
		}
	}
}

func (c *MeshRateLimitConf) check(r *Report) {
	at := r.At("local")
	switch {
	case c.Local == nil:
		at.Add("must be defined")
		return
	case c.Local.HTTP == nil && c.Local.TCP == nil:
		at.Add("must have at least one defined: http, tcp")
	}
	if h := c.Local.HTTP; h != nil {
		if h.Disabled == nil && h.RequestRate == nil && h.OnRateLimit == nil {
			at.At("http").Add("must have at least one defined: disabled, requestRate, onRateLimit")
		}
		h.RequestRate.check(at.At("http.requestRate"))
		if h.OnRateLimit != nil && h.OnRateLimit.Status != nil && *h.OnRateLimit.Status == 0 {
			at.At("http.onRateLimit.status").Add("must be greater than 0")
		}
	}
	if t := c.Local.TCP; t != nil {
		if t.Disabled == nil && t.ConnectionRate == nil {
			at.At("tcp").Add("must have at least one defined: disabled, connectionRate")
		}
		t.ConnectionRate.check(at.At("tcp.connectionRate"))
	}
}

// check: Envoy fills its buckets at most every 50 ms.
func (rate *Rate) check(r *Report) {
	if rate == nil {
		return
	}
	if rate.Num == 0 {
		r.At("num").Add("must be greater than 0")
	}
	if rate.Interval.Duration <= 50*time.Millisecond {
		r.At("interval").Add("must be greater than: 50ms")
	}
}
