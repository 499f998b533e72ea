package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"
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
	out.Peers = peerTimeouts(rules, out.All)
	return out
})

func inboundTimeoutRules(s *api.MeshTimeout) []policy.Inbound[api.MeshTimeoutConf] {
	return convert(s.Rules, func(rule api.MeshTimeoutRule) policy.Inbound[api.MeshTimeoutConf] {
		return policy.Inbound[api.MeshTimeoutConf](rule)
	})
}

// peerTimeouts: for each caller that a rule names, the merge of all rules that
// hold for it, least specific first; exact IDs before prefixes, longer prefixes
// before shorter.
func peerTimeouts(rules []policy.InboundRule[api.MeshTimeoutConf], all ir.Timeouts) []ir.PeerTimeout {
	var out []ir.PeerTimeout
	for _, rule := range rules {
		if rule.Match.SpiffeID == nil {
			continue
		}
		peer := peerMatch(rule.Match)
		if slices.ContainsFunc(out, func(o ir.PeerTimeout) bool { return o.Peer == peer }) {
			continue
		}
		t := all
		for _, other := range leastSpecificFirst(rules) {
			if other.Match.SpiffeID != nil && holds(other.Match, rule.Match) {
				t = timeoutsOf(other.Conf).Or(t)
			}
		}
		out = append(out, ir.PeerTimeout{Peer: peer, Timeout: t.Request, IdleTimeout: t.StreamIdle})
	}
	slices.SortStableFunc(out, func(a, b ir.PeerTimeout) int {
		return cmp.Or(-cmp.Compare(len(a.Peer.SpiffeID), len(b.Peer.SpiffeID)), -cmp.Compare(len(a.Peer.SpiffeIDPrefix), len(b.Peer.SpiffeIDPrefix)))
	})
	return out
}

// leastSpecificFirst orders rules so that the later wins: of rules that are
// equally specific the more important one stays last, as it is in the input.
func leastSpecificFirst(rules []policy.InboundRule[api.MeshTimeoutConf]) []policy.InboundRule[api.MeshTimeoutConf] {
	specific := func(m api.Match) (id, sni int) {
		if m.SNI != nil {
			sni = 1
		}
		switch {
		case m.SpiffeID == nil:
			return -1, sni
		case m.SpiffeID.Type == "Prefix":
			return len(m.SpiffeID.Value), sni
		}
		return math.MaxInt, sni
	}
	return slices.SortedStableFunc(slices.Values(rules), func(a, b policy.InboundRule[api.MeshTimeoutConf]) int {
		aID, aSNI := specific(a.Match)
		bID, bSNI := specific(b.Match)
		return cmp.Or(cmp.Compare(aID, bID), cmp.Compare(aSNI, bSNI))
	})
}

// holds reports whether every caller that is meets one also meets general.
func holds(general, one api.Match) bool {
	if general.SNI != nil && (one.SNI == nil || one.SNI.Value != general.SNI.Value) {
		return false
	}
	g, o := general.SpiffeID, one.SpiffeID
	if g.Type == "Prefix" {
		return strings.HasPrefix(o.Value, g.Value)
	}
	return o.Type != "Prefix" && o.Value == g.Value
}

func peerMatch(m api.Match) ir.PeerMatch {
	var p ir.PeerMatch
	if m.SpiffeID != nil {
		if m.SpiffeID.Type == "Prefix" {
			p.SpiffeIDPrefix = m.SpiffeID.Value
		} else {
			p.SpiffeID = m.SpiffeID.Value
		}
	}
	if m.SNI != nil {
		p.SNI = m.SNI.Value
	}
	return p
}
