package plan

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var rateLimitSet = newPolicySet("rate-limits", api.MeshRateLimits, func(s *api.MeshRateLimit) *api.TargetRef { return s.TargetRef })

// inboundLimits is what rate limit policies say about one inbound or listener.
type inboundLimits struct {
	Connections *ir.Rate
	// Named is the limits of connections that ask for a server name, where they are
	// not Connections.
	Named    map[string]*ir.Rate
	Requests []ir.RequestLimit
}

// connections is the limit of a chain for connections that ask for the name.
func (l inboundLimits) connections(sni string) *ir.Rate {
	if rate, ok := l.Named[sni]; ok {
		return rate
	}
	return l.Connections
}

var rateLimitsIn = newInPolicy("rate-limits-in", rateLimitSet, rateLimitRules, func(rules []policy.InboundRule[api.MeshRateLimitConf]) inboundLimits {
	out := inboundLimits{Named: map[string]*ir.Rate{}}
	for _, rule := range byCaller(rules) {
		local := value(rule.Conf.Local)
		if h := local.HTTP; h != nil && !value(h.Disabled) && h.RequestRate != nil {
			out.Requests = append(out.Requests, requestLimit(rule.Callers, h))
		}
	}
	if all, ok := policy.CatchAll(rules); ok {
		out.Connections = connectionRate(all.Conf)
	}
	for _, peer := range distinctPeers(rules) {
		if peer.SNI != "" && peer == (ir.PeerMatch{SNI: peer.SNI}) {
			out.Named[peer.SNI] = connectionRate(ruleFor(rules, peer).Conf)
		}
	}
	return out
})

func rateLimitRules(s *api.MeshRateLimit) []policy.Inbound[api.MeshRateLimitConf] {
	return convert(s.Rules, func(rule api.MeshRateLimitRule) policy.Inbound[api.MeshRateLimitConf] {
		return policy.Inbound[api.MeshRateLimitConf](rule)
	})
}

func connectionRate(c api.MeshRateLimitConf) *ir.Rate {
	t := value(c.Local).TCP
	if t == nil || value(t.Disabled) || t.ConnectionRate == nil {
		return nil
	}
	return new(rateOf(t.ConnectionRate))
}

func rateOf(r *api.Rate) ir.Rate {
	return ir.Rate{Num: r.Num, Interval: ir.Span(r.Interval.Duration)}
}

func requestLimit(callers ir.Callers, h *api.LocalHTTPRateLimit) ir.RequestLimit {
	out := ir.RequestLimit{Callers: callers, Rate: rateOf(h.RequestRate)}
	answer := value(h.OnRateLimit)
	out.Status = value(answer.Status)
	if a := answer.Headers; a != nil {
		out.Headers = headerChange(&api.HeaderModifier{Set: a.Set, Add: a.Add})
	}
	return out
}
