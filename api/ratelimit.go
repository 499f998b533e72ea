package api

import "time"

// MeshRateLimit limits how many requests or connections per time a proxy passes
// to its application; what is beyond is refused at once. Each proxy counts for
// itself, so that a service takes the limit times its proxies.
type MeshRateLimit struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are called, of kind Dataplane for rules, or one inbound
	// of them.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Limits nothing, and is read for compatibility: rules of the proxies that are
	// called limit.
	To []MeshRateLimitTo `json:"to,omitempty" idle:"limits nothing; use rules, with a targetRef of kind Dataplane: the proxies that are called"`
	// Limits, by caller; not together with to.
	Rules []MeshRateLimitRule `json:"rules,omitempty"`
}

// MeshRateLimitTo is read for compatibility; it limits nothing.
type MeshRateLimitTo struct {
	// Read for compatibility.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// Read for compatibility.
	Default MeshRateLimitConf `json:"default,omitzero"`
}

// MeshRateLimitRule is about calls from those that match; no matches: from all.
type MeshRateLimitRule struct {
	// The callers, any one of the list, which share the limit; absent: all. Of
	// several rules for one caller the narrower wins, value by value.
	Matches []Match `json:"matches,omitempty"`
	// The limits. For callers told apart by SPIFFE ID only http can be set.
	Default MeshRateLimitConf `json:"default,omitzero"`
}

// MeshRateLimitConf leaves unset what it does not speak of.
type MeshRateLimitConf struct {
	// Limits that each proxy counts alone, without a service for it.
	Local *LocalRateLimit `json:"local,omitempty"`
}

// LocalRateLimit is a limit that each proxy enforces alone.
type LocalRateLimit struct {
	// A limit of requests.
	HTTP *LocalHTTPRateLimit `json:"http,omitempty"`
	// A limit of new connections, whatever is spoken on them.
	TCP *LocalTCPRateLimit `json:"tcp,omitempty"`
}

// LocalHTTPRateLimit limits requests.
type LocalHTTPRateLimit struct {
	// Switches the limit off, where a wider policy switches it on; false switches
	// it on again.
	Disabled *bool `json:"disabled,omitempty"`
	// How many requests are passed on.
	RequestRate *Rate `json:"requestRate,omitempty"`
	// The answer to requests beyond the limit.
	OnRateLimit *OnRateLimit `json:"onRateLimit,omitempty"`
}

// LocalTCPRateLimit limits new connections.
type LocalTCPRateLimit struct {
	// Switches the limit off, where a wider policy switches it on.
	Disabled *bool `json:"disabled,omitempty"`
	// How many new connections are taken; others are closed at once.
	ConnectionRate *Rate `json:"connectionRate,omitempty"`
}

// Rate is how many per interval.
type Rate struct {
	// How many per interval: the tokens of a bucket, all of which may be used at
	// once.
	Num uint32 `json:"num" req:"true"`
	// When the bucket is filled again, more than 50ms.
	Interval Duration `json:"interval" req:"true"`
}

// OnRateLimit is the answer to a request beyond the limit; Envoy's status is 429.
type OnRateLimit struct {
	// The HTTP status, 400 or more. Absent, less, or none that Envoy knows: 429.
	Status *uint32 `json:"status,omitempty"`
	// Headers of the answer, such as {set: [{name: x-rate-limited, value:
	// "true"}]}.
	Headers *HeaderAddition `json:"headers,omitempty"`
}

// HeaderAddition sets and adds headers.
type HeaderAddition struct {
	// Headers that replace those of the same name.
	Set []HeaderKeyValue `json:"set,omitempty" maxItems:"16"`
	// Headers that are added to those of the same name.
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
