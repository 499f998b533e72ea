package plan

import (
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Defaults of whatever a timeout policy leaves out, and of what no policy
// speaks of (contract: MeshTimeout).
var defaultTimeouts = ir.Timeouts{
	Connect: ir.Span(5 * time.Second), Idle: ir.Span(time.Hour), Request: ir.Span(15 * time.Second),
	StreamIdle: ir.Span(30 * time.Minute), MaxStream: ir.Span(0), MaxConnection: ir.Span(0), RequestHeaders: ir.Span(0),
}

// Defaults of an inbound that has rules for some callers and none for all.
var generatorTimeouts = ir.Timeouts{
	Connect: ir.Span(10 * time.Second), Idle: ir.Span(2 * time.Hour), StreamIdle: ir.Span(time.Hour), Request: ir.Span(0),
}

var timeoutSet = newPolicySet("timeouts", api.MeshTimeouts, func(s *api.MeshTimeout) *api.TargetRef { return s.TargetRef })

var timeoutsTo = newToPolicy("timeouts-to", timeoutSet, func(s *api.MeshTimeout) []policy.To[api.MeshTimeoutConf] {
	return convert(s.To, func(t api.MeshTimeoutTo) policy.To[api.MeshTimeoutConf] { return policy.To[api.MeshTimeoutConf](t) })
}, timeoutsOf)

func timeoutsOf(c api.MeshTimeoutConf) ir.Timeouts {
	t := ir.Timeouts{Connect: duration(c.ConnectionTimeout), Idle: duration(c.IdleTimeout)}
	if h := c.HTTP; h != nil {
		t.Request, t.StreamIdle = duration(h.RequestTimeout), duration(h.StreamIdleTimeout)
		t.MaxStream, t.MaxConnection = duration(h.MaxStreamDuration), duration(h.MaxConnectionDuration)
		t.RequestHeaders = duration(h.RequestHeadersTimeout)
	}
	return t
}

func duration(d *api.Duration) ir.Duration {
	if d == nil {
		return ir.Duration{}
	}
	return ir.Span(d.Duration)
}

// inboundTimeouts is what timeout policies say about one inbound.
type inboundTimeouts struct {
	All   ir.Timeouts
	Peers []ir.PeerTimeout // most specific first
	// Listener is how long the inbound's listener keeps a connection without
	// requests. Where timeouts hold for all callers it is the cluster that does.
	Listener ir.Duration
}

var timeoutsIn = newInPolicy("timeouts-in", timeoutSet, inboundTimeoutRules, func(rules []policy.InboundRule[api.MeshTimeoutConf]) inboundTimeouts {
	if len(rules) == 0 {
		return inboundTimeouts{All: defaultTimeouts, Listener: ir.Span(0)}
	}
	out := inboundTimeouts{All: generatorTimeouts, Listener: generatorTimeouts.Idle}
	if all, ok := policy.CatchAll(rules); ok {
		out.All, out.Listener = timeoutsOf(all.Conf).Or(defaultTimeouts), ir.Span(0)
	}
	for _, peer := range distinctPeers(rules) {
		t := timeoutsOf(ruleFor(rules, peer).Conf).Or(out.All)
		out.Peers = append(out.Peers, ir.PeerTimeout{Peer: peer, Timeout: t.Request, IdleTimeout: t.StreamIdle})
	}
	return out
})

func inboundTimeoutRules(s *api.MeshTimeout) []policy.Inbound[api.MeshTimeoutConf] {
	return convert(s.Rules, func(rule api.MeshTimeoutRule) policy.Inbound[api.MeshTimeoutConf] {
		return policy.Inbound[api.MeshTimeoutConf](rule)
	})
}
