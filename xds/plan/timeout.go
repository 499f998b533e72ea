package plan

import (
	"cmp"
	"slices"
	"strings"
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

var timeoutSet = incr.NewQuery("timeouts", func(r *incr.Run, mesh string) *policy.Set[api.MeshTimeout] {
	return policy.NewSet(slices.Collect(api.MeshTimeouts.In(r, mesh)), func(s *api.MeshTimeout) *api.TargetRef { return s.TargetRef }, false)
}, (*policy.Set[api.MeshTimeout]).Equal)

// timeoutsTo is the timeout rules of a class for what it calls.
var timeoutsTo = incr.NewQuery("timeouts-to", func(r *incr.Run, c policy.Class) *timeoutRules {
	p := c.Proxy()
	return policy.NewToRules(timeoutSet.Get(r, p.Mesh).Select(p), func(s *api.MeshTimeout) []policy.To[api.MeshTimeoutConf] {
		out := make([]policy.To[api.MeshTimeoutConf], len(s.To))
		for i, t := range s.To {
			out[i] = policy.To[api.MeshTimeoutConf](t)
		}
		return out
	}, resolver(r, p.Mesh), policy.NewRule)
}, (*timeoutRules).Equal)

type timeoutRules = policy.ToRules[policy.Rule[api.MeshTimeoutConf]]

// resolver finds what the targetRef of a to entry selects, and records it.
func resolver(r *incr.Run, mesh string) policy.Resolve {
	return func(kind string, labels map[string]string) []api.ID {
		return labelled.Get(r, labelledKey{kind, mesh, encodeLabels(labels)})
	}
}

type labelledKey struct{ Kind, Mesh, Labels string }

// labelled lists the IDs of the rows with the labels: whoever asks depends on
// which there are, not on what they say.
var labelled = incr.NewQuery("labelled", func(r *incr.Run, k labelledKey) []api.ID {
	kind, ok := api.ByName(k.Kind)
	if !ok {
		return nil
	}
	var ids []api.ID
	for row := range kind.RowsLabelled(r, k.Mesh, decodeLabels(k.Labels)) {
		ids = append(ids, row.Head().ID)
	}
	return ids
}, slices.Equal[[]api.ID])

// outboundTimeouts is the effective timeouts of a class towards a port, or
// towards a route of its.
func outboundTimeouts(r *incr.Run, c policy.Class, p Port, routes ...policy.Destination) ir.Timeouts {
	rule, _, ok := timeoutsTo.Get(r, c).Lookup(append(routes, policy.Destination{ID: p.Service, Section: p.Section})...)
	if !ok {
		return defaultTimeouts
	}
	return timeoutsOf(rule.Conf).Or(defaultTimeouts)
}

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
}

func timeoutsIn(r *incr.Run, k sectionKey) inboundTimeouts {
	p := k.Class.Proxy()
	rules := policy.InboundRules(timeoutSet.Get(r, p.Mesh).Select(p), k.Section, func(s *api.MeshTimeout) []policy.Inbound[api.MeshTimeoutConf] {
		out := make([]policy.Inbound[api.MeshTimeoutConf], len(s.Rules))
		for i, rule := range s.Rules {
			out[i] = policy.Inbound[api.MeshTimeoutConf](rule)
		}
		return out
	})
	if len(rules) == 0 {
		return inboundTimeouts{All: defaultTimeouts}
	}
	out := inboundTimeouts{All: generatorTimeouts}
	if all, ok := policy.CatchAll(rules); ok {
		out.All = timeoutsOf(all.Conf).Or(defaultTimeouts)
	}
	out.Peers = peerTimeouts(rules, out.All)
	return out
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
		for _, other := range slices.Backward(rules) {
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
