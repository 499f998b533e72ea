package plan

import (
	"reflect"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
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
	return inboundTimeouts{All: generatorTimeouts, Listener: generatorTimeouts.Idle}.with(rules)
})

// with is what rules say where t holds when there is none for all callers.
func (t inboundTimeouts) with(rules []policy.InboundRule[api.MeshTimeoutConf]) inboundTimeouts {
	if all, ok := policy.CatchAll(rules); ok {
		t.All, t.Listener = timeoutsOf(all.Conf).Or(defaultTimeouts), ir.Span(0)
	}
	for _, peer := range distinctPeers(rules) {
		said := timeoutsOf(ruleFor(rules, peer).Conf).Or(t.All)
		t.Peers = append(t.Peers, ir.PeerTimeout{Peer: peer, Timeout: said.Request, IdleTimeout: said.StreamIdle})
	}
	return t
}

// askedKey is calls of a section that ask for a server name.
type askedKey struct {
	Section sectionKey
	SNI     string
}

// timeoutsAsked is what timeout policies say about the calls of one server name,
// where a chain of its own takes them: there rules with a server name hold for the
// connection and the cluster, too.
var timeoutsAsked = incr.NewQuery("timeouts-asked", func(r *incr.Run, k askedKey) inboundTimeouts {
	rules := policy.InboundRules(timeoutSet.selected(r, k.Section.Class), k.Section.Section, inboundTimeoutRules)
	return inboundTimeouts{
		All:      ir.Timeouts{Connect: systemConnect, StreamIdle: generatorTimeouts.StreamIdle},
		Listener: ir.Span(0), // the callers are proxies, which end their connections
	}.with(askingFor(rules, k.SNI))
}, func(a, b inboundTimeouts) bool { return reflect.DeepEqual(a, b) })

// askingFor is the rules that hold for callers who ask for a server name, without
// that condition: those that had it win over those that had not.
func askingFor[C any](rules []policy.InboundRule[C], sni string) []policy.InboundRule[C] {
	var all, named []policy.InboundRule[C]
	for _, rule := range rules {
		switch {
		case rule.Match.SNI == nil:
			all = append(all, rule)
		case rule.Match.SNI.Value == sni:
			rule.Match.SNI = nil
			named = append(named, rule)
		}
	}
	return append(all, named...)
}

func inboundTimeoutRules(s *api.MeshTimeout) []policy.Inbound[api.MeshTimeoutConf] {
	return convert(s.Rules, func(rule api.MeshTimeoutRule) policy.Inbound[api.MeshTimeoutConf] {
		return policy.Inbound[api.MeshTimeoutConf](rule)
	})
}
