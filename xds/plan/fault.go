package plan

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var faultSet = newPolicySet("faults", api.MeshFaultInjections, func(s *api.MeshFaultInjection) *api.TargetRef { return s.TargetRef })

// faultsIn is the faults of the requests to an inbound. Rules are not merged: a
// caller meets those of all that hold for it, and of each once, however many of
// its matches hold.
var faultsIn = incr.NewQuery("faults-in", func(r *incr.Run, k sectionKey) []ir.Fault {
	var out []ir.Fault
	var done []policy.Source
	rules := policy.InboundRules(faultSet.selected(r, k.Class), k.Section, faultRules)
	for _, rule := range rules {
		if slices.Contains(done, rule.Source) {
			continue
		}
		done = append(done, rule.Source)
		var who ir.Callers
		everybody := false
		for _, other := range rules {
			if other.Source != rule.Source {
				continue
			}
			for _, peer := range faulty(r, k.Class.Proxy().Mesh, other.Match) {
				who = append(who, ir.Caller{Peer: peer})
				everybody = everybody || peer.IsZero()
			}
		}
		switch {
		case everybody:
			who = nil
		case len(who) == 0:
			continue
		}
		for _, f := range rule.Conf.HTTP {
			out = append(out, faultOf(api.MeshFaultInjections.KRI(rule.Policy.ID, ""), who, f))
		}
	}
	return out
}, func(a, b []ir.Fault) bool { return reflect.DeepEqual(a, b) })

func faultRules(s *api.MeshFaultInjection) []policy.Inbound[api.MeshFaultInjectionConf] {
	return convert(s.Rules, func(rule api.MeshFaultInjectionRule) policy.Inbound[api.MeshFaultInjectionConf] {
		return policy.Inbound[api.MeshFaultInjectionConf](rule)
	})
}

// faulty is whom a match means. Of older ones, which name callers by tags, those
// that others call by as well are left out: these were not meant to fail.
func faulty(r *incr.Run, mesh string, m api.Match) []ir.PeerMatch {
	if m.Caller == nil || len(m.Caller.Tags) == 0 {
		return []ir.PeerMatch{peerMatch(m)}
	}
	ids := callers.Get(r, callersKey{mesh, encodeLabels(m.Caller.Tags), settings(r).Site.Zone}).Own
	return convert(ids, func(id string) ir.PeerMatch { return ir.PeerMatch{SpiffeID: id} })
}

func faultOf(kri string, who ir.Callers, f api.HTTPFault) ir.Fault {
	share := func(p api.IntOrString) ir.Share { return ir.Share(p.Decimal() * 10_000) }
	out := ir.Fault{Policy: kri, Callers: who}
	if d := f.Delay; d != nil && d.Value.Duration > 0 {
		out.Delay = &ir.DelayFault{For: ir.Span(d.Value.Duration), Share: share(d.Percentage)}
	}
	if a := f.Abort; a != nil && a.HTTPStatus >= 200 { // less is no answer
		out.Abort = &ir.AbortFault{Status: uint32(a.HTTPStatus), Share: share(a.Percentage)}
	}
	if b := f.ResponseBandwidth; b != nil {
		out.Slow = &ir.SlowFault{Kibps: kibibytes(b.Limit), Share: share(b.Percentage)}
	}
	return out
}

// kibibytes is a number of bits per second, such as 50 Mbps, in KiB per second; at
// least one.
func kibibytes(limit string) uint64 {
	unit := strings.IndexAny(limit, "kMG")
	if unit < 0 {
		return 1
	}
	n, _ := strconv.ParseFloat(strings.TrimSpace(limit[:unit]), 64)
	n *= map[byte]float64{'k': 1e3, 'M': 1e6, 'G': 1e9}[limit[unit]]
	return uint64(max(1, n/8/1024))
}
