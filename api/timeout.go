package api

// MeshTimeout limits how long connections and requests may take, for calls that
// proxies make (to) and get (rules). Use it where the limits of the mesh do not
// suit a service: slow reports, long streams.
type MeshTimeout struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are configured; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Limits for calls that the proxies make, by destination.
	To []MeshTimeoutTo `json:"to,omitempty"`
	// Limits for calls that the proxies get, by caller; not together with to.
	Rules []MeshTimeoutRule `json:"rules,omitempty"`
}

// MeshTimeoutTo is about calls to a destination.
type MeshTimeoutTo struct {
	// The destination: all of them (Mesh), services, or requests that take a
	// MeshHTTPRoute.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// The limits; entries that say more exactly which destination they mean win,
	// value by value.
	Default MeshTimeoutConf `json:"default,omitzero"`
}

// MeshTimeoutRule is about calls from those that match; no matches: from all.
type MeshTimeoutRule struct {
	// The callers, any one of the list; absent: all.
	Matches []Match `json:"matches,omitempty"`
	// The limits. For callers told apart by SPIFFE ID only http.requestTimeout
	// and http.streamIdleTimeout can be set.
	Default MeshTimeoutConf `json:"default,omitzero"`
}

// MeshTimeoutConf leaves unset what it does not speak of.
type MeshTimeoutConf struct {
	// How long establishing a TCP connection to the destination (or, inbound, to
	// the application) may take. Absent: 5s.
	ConnectionTimeout *Duration `json:"connectionTimeout,omitempty"`
	// How long a connection may carry neither bytes nor requests before Envoy
	// closes it; 0s never closes it. Absent: 1h.
	IdleTimeout *Duration `json:"idleTimeout,omitempty"`
	// Limits of HTTP, HTTP/2 and gRPC traffic only.
	HTTP *MeshTimeoutHTTP `json:"http,omitempty"`
}

// MeshTimeoutHTTP is the part about HTTP, HTTP/2 and gRPC.
type MeshTimeoutHTTP struct {
	// From the end of the request until the whole response has arrived, all
	// retries included; Envoy answers 504. 0s is no limit, which streams need.
	// Absent: 15s.
	RequestTimeout *Duration `json:"requestTimeout,omitempty"`
	// How long one request may go without a byte in either direction. 0s is no
	// limit. Absent: 30m.
	StreamIdleTimeout *Duration `json:"streamIdleTimeout,omitempty"`
	// How long one request and its response may take altogether, streams
	// included. Absent or 0s: no limit.
	MaxStreamDuration *Duration `json:"maxStreamDuration,omitempty"`
	// How old a connection may become before Envoy drains it and opens another,
	// which spreads long-lived clients anew. Absent or 0s: no limit.
	MaxConnectionDuration *Duration `json:"maxConnectionDuration,omitempty"`
	// How long a client may take to send the headers of a request, against
	// clients that trickle them. Absent or 0s: no limit.
	RequestHeadersTimeout *Duration `json:"requestHeadersTimeout,omitempty"`
}

// MeshTimeouts are written anywhere.
var MeshTimeouts = newKind(Kind[MeshTimeout]{
	Facts: Facts{
		Name: "MeshTimeout", Plural: "meshtimeouts", Short: "mt", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true, Rules: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateTimeout,
})

func validateTimeout(_ *Meta, s *MeshTimeout, r *Report) {
	checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
	checkToOrRules(s.TargetRef, len(s.To), len(s.Rules), r)
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService, RefHTTPRoute}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		rule.Default.check(at.At("default"))
		if checkMatches(rule.Matches, at) {
			rule.Default.only(byCallerReason, at.At("default"))
		}
	}
}

func (c *MeshTimeoutConf) check(r *Report) {
	if c.ConnectionTimeout == nil && c.IdleTimeout == nil && c.HTTP == nil {
		r.Add("at least one timeout should be configured")
		return
	}
	checkPositive(c.ConnectionTimeout, r.At("connectionTimeout"))
	checkNotNegative(c.IdleTimeout, r.At("idleTimeout"))
	h := c.HTTP
	if h == nil {
		return
	}
	at := r.At("http")
	if h.RequestTimeout == nil && h.StreamIdleTimeout == nil && h.MaxStreamDuration == nil && h.MaxConnectionDuration == nil {
		at.Add("at least one timeout in this section should be configured")
	}
	checkNotNegative(h.RequestTimeout, at.At("requestTimeout"))
	checkNotNegative(h.StreamIdleTimeout, at.At("streamIdleTimeout"))
	checkNotNegative(h.MaxStreamDuration, at.At("maxStreamDuration"))
	checkNotNegative(h.MaxConnectionDuration, at.At("maxConnectionDuration"))
	checkNotNegative(h.RequestHeadersTimeout, at.At("requestHeadersTimeout"))
}

// only refuses all but requestTimeout and streamIdleTimeout: the others belong
// to a connection, which is made before a request or a caller is known.
func (c *MeshTimeoutConf) only(reason string, r *Report) {
	no := func(d *Duration, field string) {
		if d != nil {
			r.At(field).Add("%s", reason)
		}
	}
	no(c.ConnectionTimeout, "connectionTimeout")
	no(c.IdleTimeout, "idleTimeout")
	if h := c.HTTP; h != nil {
		no(h.MaxStreamDuration, "http.maxStreamDuration")
		no(h.MaxConnectionDuration, "http.maxConnectionDuration")
		no(h.RequestHeadersTimeout, "http.requestHeadersTimeout")
	}
}
