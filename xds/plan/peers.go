package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// callerRule is what rules come to for callers for whom the same of them hold.
type callerRule[C any] struct {
	Callers ir.Callers
	policy.Rule[C]
}

// byCaller tells apart whom the rules of an inbound speak of: each caller meets
// exactly one of the results, or none if no rule is for it.
func byCaller[C any](rules []policy.InboundRule[C]) []callerRule[C] {
	var out []callerRule[C]
	var groups []int // by peer, the index in out
	peers := distinctPeers(rules)
	if _, ok := policy.CatchAll(rules); ok {
		peers = append(peers, ir.PeerMatch{})
	}
	for i, peer := range peers {
		rule := ruleFor(rules, peer)
		group := slices.IndexFunc(out, func(o callerRule[C]) bool { return slices.Equal(o.Sources(), rule.Sources()) })
		if group < 0 {
			group = len(out)
			out = append(out, callerRule[C]{Rule: rule})
		}
		caller := ir.Caller{Peer: peer}
		for j, narrower := range peers[:i] {
			if _, meet := both(narrower, peer); meet && groups[j] != group {
				caller.Except = append(caller.Except, narrower)
			}
		}
		caller.Except = slices.DeleteFunc(slices.Clone(caller.Except), func(p ir.PeerMatch) bool { // what another one says already
			return slices.ContainsFunc(caller.Except, func(wider ir.PeerMatch) bool { return wider != p && holds(wider, p) })
		})
		groups = append(groups, group)
		out[group].Callers = append(out[group].Callers, caller)
	}
	for i := range out {
		if slices.ContainsFunc(out[i].Callers, func(c ir.Caller) bool { return c.Peer.IsZero() && len(c.Except) == 0 }) {
			out[i].Callers = nil
		}
	}
	return out
}

// distinctPeers is the callers that rules name, and those that several of these
// name together, so that the first one that matches a caller is matched by all
// that the caller matches. Exact IDs stand before prefixes, longer prefixes
// before shorter, and of one ID those with a server name first.
func distinctPeers[C any](rules []policy.InboundRule[C]) []ir.PeerMatch {
	var out []ir.PeerMatch
	add := func(p ir.PeerMatch) {
		if !p.IsZero() && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, rule := range rules {
		add(peerMatch(rule.Match))
	}
	for i := 1; i < len(out); i++ {
		for _, other := range out[:i] {
			if p, ok := both(out[i], other); ok {
				add(p)
			}
		}
	}
	slices.SortFunc(out, func(a, b ir.PeerMatch) int {
		return cmp.Or(-cmp.Compare(narrowness(a), narrowness(b)), -cmp.Compare(a.SNI, b.SNI), cmp.Compare(a.SpiffeID, b.SpiffeID), cmp.Compare(a.SpiffeIDPrefix, b.SpiffeIDPrefix))
	})
	return out
}

func narrowness(p ir.PeerMatch) int {
	if p.SpiffeID != "" {
		return math.MaxInt
	}
	return len(p.SpiffeIDPrefix)
}

// ruleFor merges what rules say to a caller: of those that hold for it the
// narrower wins, of equally narrow ones the more important.
func ruleFor[C any](rules []policy.InboundRule[C], peer ir.PeerMatch) policy.Rule[C] {
	type one struct {
		peer ir.PeerMatch
		step policy.Step[C]
	}
	var hold []one
	for _, rule := range rules {
		if p := peerMatch(rule.Match); rule.Match.Caller == nil && holds(p, peer) {
			hold = append(hold, one{p, rule.Step})
		}
	}
	slices.SortStableFunc(hold, func(a, b one) int {
		named := func(p ir.PeerMatch) int { return min(len(p.SNI), 1) }
		return cmp.Or(cmp.Compare(narrowness(a.peer), narrowness(b.peer)), cmp.Compare(named(a.peer), named(b.peer)))
	})
	return policy.NewRule(convert(hold, func(o one) policy.Step[C] { return o.step }))
}

// holds reports whether every caller that one matches is matched by general too.
func holds(general, one ir.PeerMatch) bool {
	p, ok := both(general, one)
	return ok && p == one
}

// both matches the callers that a and b match; false if there can be none.
func both(a, b ir.PeerMatch) (ir.PeerMatch, bool) {
	if a.SNI != "" && b.SNI != "" && a.SNI != b.SNI {
		return ir.PeerMatch{}, false
	}
	sni := cmp.Or(a.SNI, b.SNI)
	if narrowness(a) < narrowness(b) {
		a, b = b, a
	}
	a.SNI = sni
	meet := a.SpiffeID == b.SpiffeID
	if b.SpiffeID == "" {
		meet = strings.HasPrefix(a.SpiffeID+a.SpiffeIDPrefix, b.SpiffeIDPrefix)
	}
	return a, meet
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
