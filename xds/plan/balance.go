package plan

import (
	"cmp"
	"maps"
	"math"
	"math/big"
	"slices"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var balanceSet = newPolicySet("balances", api.MeshLoadBalancingStrategies, func(s *api.MeshLoadBalancingStrategy) *api.TargetRef { return s.TargetRef })

var balanceTo = newToPolicy("balances-to", balanceSet, func(s *api.MeshLoadBalancingStrategy) []policy.To[api.MeshLoadBalancingStrategyConf] {
	return convert(s.To, func(t api.MeshLoadBalancingStrategyTo) policy.To[api.MeshLoadBalancingStrategyConf] {
		return policy.To[api.MeshLoadBalancingStrategyConf](t)
	})
}, balanceOf)

// balance is how an endpoint is chosen. A part of it that nothing is said of is the
// zero word.
type balance struct {
	Balancer word[ir.Balancer]
	Hash     word[[]ir.Hash]
	Locality word[locality]
}

// locality is what of endpoints depends on where they are.
type locality struct {
	Same     bool       // zones are alike; nothing else is then set
	Near     []near     `json:",omitempty"` // preferred in the own zone, most important first
	Strict   bool       // other zones are called only as Failover says, of which the first rule that fits holds
	Failover []failover `json:",omitempty"`
	Spill    uint32     // overprovisioning factor in percent; 0 leaves it to the proxy
}

// near prefers endpoints that carry a tag with the caller's value. Value is filled
// in for callers that have the tag; others have no such element.
type near struct {
	Key, Value string
	Weight     uint32
}

type failover struct {
	From []string `json:",omitempty"` // zones of callers; none: all
	Type string
	To   []string `json:",omitempty"`
}

func balanceOf(c api.MeshLoadBalancingStrategyConf) balance {
	var out balance
	if c.LoadBalancer != nil {
		if l := balancerOf(c.LoadBalancer); l != (ir.Balancer{}) {
			out.Balancer = wordOf(l)
		}
	}
	if list := hashesOf(c.HashPolicies); len(list) > 0 {
		out.Hash = wordOf(list)
	}
	if c.LocalityAwareness != nil {
		if l := localityOf(c.LocalityAwareness); l.Same || l.Strict {
			out.Locality = wordOf(l)
		}
	}
	return out
}

// balancerOf mends sizes that Envoy refuses, and with them all that comes in the
// same message: a ring whose smallest size is above the largest, a table whose size
// is no prime number.
func balancerOf(l *api.LoadBalancer) ir.Balancer {
	switch l.Type {
	case "LeastRequest":
		out := ir.Balancer{Algorithm: ir.LeastRequest}
		if s := l.LeastRequest; s != nil {
			out.Choices = value(s.ChoiceCount)
			if s.ActiveRequestBias != nil {
				out.Bias = new(s.ActiveRequestBias.Decimal())
			}
		}
		return out
	case "RingHash":
		out := ir.Balancer{Algorithm: ir.RingHash}
		if s := l.RingHash; s != nil {
			out.Murmur = s.HashFunction == "MurmurHash2"
			out.MinRing, out.MaxRing = value(s.MinRingSize), value(s.MaxRingSize)
			const usual = 1024 // Envoy's smallest ring
			if out.MaxRing > 0 && cmp.Or(out.MinRing, usual) > out.MaxRing {
				out.MinRing = out.MaxRing
			}
		}
		return out
	case "Maglev":
		out := ir.Balancer{Algorithm: ir.Maglev}
		if s := l.Maglev; s != nil && s.TableSize != nil {
			for out.Table = *s.TableSize; !big.NewInt(int64(out.Table)).ProbablyPrime(0); out.Table++ { // right for all of 64 bits
			}
		}
		return out
	case "Random":
		return ir.Balancer{Algorithm: ir.Random}
	}
	return ir.Balancer{}
}

func hashesOf(list []api.HashPolicy) []ir.Hash {
	var out []ir.Hash
	for _, p := range list {
		h := ir.Hash{Terminal: value(p.Terminal)}
		switch {
		case p.Type == "Header" && p.Header != nil:
			h.Header = p.Header.Name
		case p.Type == "Cookie" && p.Cookie != nil:
			h.Cookie, h.CookieTTL, h.CookiePath = p.Cookie.Name, duration(p.Cookie.TTL), value(p.Cookie.Path)
		case p.Type == "QueryParameter" && p.QueryParameter != nil:
			h.Query = p.QueryParameter.Name
		case p.Type == "FilterState" && p.FilterState != nil:
			h.State = p.FilterState.Key
		case p.Type == "Connection" && p.Connection != nil && value(p.Connection.SourceIP):
			h.SourceIP = true
		default:
			continue // nothing of the connection is to be hashed
		}
		out = append(out, h)
	}
	return out
}

// connectionHash is the first part that a connection has, of which it can have one.
func (b balance) connectionHash() *ir.Hash {
	for _, h := range b.Hash.value() {
		if h.SourceIP || h.State != "" {
			return &h
		}
	}
	return nil
}

func localityOf(l *api.LocalityAwareness) locality {
	if value(l.Disabled) {
		return locality{Same: true}
	}
	out := locality{Strict: l.LocalZone != nil || l.CrossZone != nil, Spill: 200}
	if l.LocalZone != nil {
		tags := l.LocalZone.AffinityTags
		for i, t := range tags {
			// Nine in ten for the first, nine in ten of the rest for the next.
			usual := 9 * math.Pow10(len(tags)-i-1)
			out.Near = append(out.Near, near{Key: t.Key, Weight: cmp.Or(value(t.Weight), uint32(min(usual, 1e8)))})
		}
	}
	if c := l.CrossZone; c != nil {
		for _, f := range c.Failover {
			rule := failover{Type: f.To.Type, To: f.To.Zones}
			if f.From != nil {
				rule.From = f.From.Zones
			}
			out.Failover = append(out.Failover, rule)
		}
		if t := c.FailoverThreshold; t != nil && t.Percentage.Decimal() > 0 {
			// With so many percent healthy a factor of 100/percentage makes just all.
			// Upstream cuts the quotient, so that 70 would mean 100.
			out.Spill = uint32(min(math.Round(10_000/t.Percentage.Decimal()), math.MaxUint32))
		}
	}
	return out
}

// priority is how late a zone is called, 0 first; ok is false if never.
func (l locality) priority(here, zone string) (p uint32, ok bool) {
	switch {
	case l.Same:
		return 0, true
	case !l.Strict:
		return 1, true
	}
	for i, rule := range l.Failover {
		if len(rule.From) > 0 && !slices.Contains(rule.From, here) {
			continue
		}
		listed := slices.Contains(rule.To, zone)
		switch {
		case rule.Type == "None":
			return 0, false
		case rule.Type == "Any", rule.Type == "Only" && listed, rule.Type == "AnyExcept" && !listed:
			return uint32(i + 1), true
		}
	}
	return 0, false
}

// local groups the endpoints of the own zone by the first tag in which they equal
// the caller.
func (l locality) local(zone string, all []ir.Endpoint) []ir.Locality {
	groups := make([]ir.Locality, len(l.Near)+1)
	for i, n := range l.Near {
		groups[i] = ir.Locality{Zone: zone, SubZone: n.Key + "=" + n.Value, Weight: n.Weight}
	}
	groups[len(l.Near)] = ir.Locality{Zone: zone}
	for _, e := range all {
		i := slices.IndexFunc(l.Near, func(n near) bool { return n.Value != "" && e.Tags[n.Key] == n.Value })
		if i < 0 {
			i = len(l.Near)
		}
		groups[i].Endpoints = append(groups[i].Endpoints, e)
	}
	return groups
}

// affinityKeys are the tags by which what is near is told, in policies that a class
// gets.
var affinityKeys = incr.NewQuery("affinity-keys", func(r *incr.Run, c policy.Class) []string {
	var keys []string
	for _, s := range balanceSet.selected(r, c) {
		for _, to := range s.Policy.Spec.To {
			if l := to.Default.LocalityAwareness; l != nil && l.LocalZone != nil {
				for _, t := range l.LocalZone.AffinityTags {
					keys = append(keys, t.Key)
				}
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}, slices.Equal[[]string])

// place is the tags of a proxy by which something is near to it: a tag of an
// inbound, else a label. The zero place has none.
type place = unique.Handle[string]

func placeOf(r *incr.Run, c policy.Class, dp *api.Object[api.Dataplane]) place {
	keys := affinityKeys.Get(r, c)
	if len(keys) == 0 {
		return place{}
	}
	tags := map[string]string{}
	for _, key := range keys {
		tags[key] = dp.Labels[key]
		for _, in := range dp.Spec.Networking.Inbound {
			if v := in.Tags[key]; v != "" {
				tags[key] = v
				break
			}
		}
	}
	maps.DeleteFunc(tags, func(_, v string) bool { return v == "" })
	if len(tags) == 0 {
		return place{}
	}
	return unique.Make(encodeLabels(tags))
}

// nearby is the endpoints of a class's ports that are others in this place. They
// are no part of the class: its proxies stay one class wherever they are.
var nearby = incr.NewQuery("nearby", func(r *incr.Run, k nearbyKey) Names {
	out := Names{}
	for name, c := range newClient(r, k.Class).clusters {
		if said := callsTo.Get(r, callsKey{Class: c.Class, Port: c.To.Port}); len(said.Balance.Locality.value().Near) > 0 {
			out[name] = assigned.Ref(assignedKey{c.Class, c.To.Port, k.Place})
		}
	}
	return out
}, maps.Equal[Names, Names])

type nearbyKey struct {
	Class Class
	Place place
}

func addNearby(r *incr.Run, own *Set, c Class, dp *api.Object[api.Dataplane]) {
	if at := placeOf(r, c.Policy, dp); at != (place{}) {
		maps.Copy(own.Endpoints, nearby.Get(r, nearbyKey{c, at}))
	}
}

// assignedKey is the endpoints of a port for a class, seen from a place.
type assignedKey struct {
	Class policy.Class
	Port  Port
	Place place
}

// view is what the policies of the class make of the place.
func (k assignedKey) view(r *incr.Run) View {
	said := callsTo.Get(r, callsKey{Class: k.Class, Port: k.Port}).Balance.Locality
	l := said.value()
	if len(l.Near) == 0 {
		return View{Locality: said}
	}
	var tags map[string]string
	if k.Place != (place{}) {
		tags = decodeLabels(k.Place.Value())
	}
	for i := range l.Near {
		l.Near[i].Value = tags[l.Near[i].Key]
	}
	return View{Locality: wordOf(l)}
}

// assigned is the variant of the endpoints that the policies of a class come to,
// see [cluster].
var assigned = incr.NewQuery("assigned", func(r *incr.Run, k assignedKey) *wire.Resource {
	return endpointsBytes.Get(r, endpointsKey{k.Port, k.view(r)})
}, sameBytes)
