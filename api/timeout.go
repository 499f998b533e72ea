package api

// MeshTimeout limits how long connections and requests may take.
type MeshTimeout struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef        `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshTimeoutTo   `json:"to,omitempty"`
	Rules     []MeshTimeoutRule `json:"rules,omitempty"`
}

// MeshTimeoutTo is about calls to a destination.
type MeshTimeoutTo struct {
	TargetRef TargetRef       `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshTimeoutConf `json:"default,omitzero"`
}

// MeshTimeoutRule is about calls from those that match; no matches: from all.
type MeshTimeoutRule struct {
	Matches []Match         `json:"matches,omitempty"`
	Default MeshTimeoutConf `json:"default,omitzero"`
}

// MeshTimeoutConf leaves unset what it does not speak of.
type MeshTimeoutConf struct {
	ConnectionTimeout *Duration        `json:"connectionTimeout,omitempty"`
	IdleTimeout       *Duration        `json:"idleTimeout,omitempty"`
	HTTP              *MeshTimeoutHTTP `json:"http,omitempty"`
}

// MeshTimeoutHTTP is the part about HTTP, HTTP/2 and gRPC.
type MeshTimeoutHTTP struct {
	RequestTimeout        *Duration `json:"requestTimeout,omitempty"`
	StreamIdleTimeout     *Duration `json:"streamIdleTimeout,omitempty"`
	MaxStreamDuration     *Duration `json:"maxStreamDuration,omitempty"`
	MaxConnectionDuration *Duration `json:"maxConnectionDuration,omitempty"`
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
