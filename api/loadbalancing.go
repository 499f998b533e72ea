package api

import (
	"reflect"
	"strings"
)

// MeshLoadBalancingStrategy says which endpoint of a destination gets a call:
// by which algorithm, what is near first, and which zones help out. Without it,
// endpoints of the own zone are used in turn and other zones only when these
// fail.
type MeshLoadBalancingStrategy struct {
	// The proxies that call; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Strategies, by destination.
	To []MeshLoadBalancingStrategyTo `json:"to,omitempty"`
}

// MeshLoadBalancingStrategyTo is about calls to a destination.
type MeshLoadBalancingStrategyTo struct {
	// The destination: all of them (Mesh), services, or requests that take a
	// MeshHTTPRoute (hashPolicies only).
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// The strategy; entries that say more exactly which destination they mean
	// win, value by value.
	Default MeshLoadBalancingStrategyConf `json:"default,omitzero"`
}

// MeshLoadBalancingStrategyConf leaves unset what it does not speak of.
type MeshLoadBalancingStrategyConf struct {
	// What is preferred within the zone, and when other zones are called.
	// Absent: the own zone first, then all others alike.
	LocalityAwareness *LocalityAwareness `json:"localityAwareness,omitempty"`
	// The algorithm among endpoints that are equally preferred. Absent:
	// RoundRobin.
	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`
	// What of a request RingHash and Maglev hash; the hashes of all that apply
	// are combined. Absent: a random one, so that nothing sticks.
	HashPolicies []HashPolicy `json:"hashPolicies,omitzero"`
}

// LocalityAwareness prefers what is near.
type LocalityAwareness struct {
	// true treats the endpoints of all zones alike.
	Disabled *bool `json:"disabled,omitempty"`
	// Preferences within the own zone.
	LocalZone *LocalZone `json:"localZone,omitempty"`
	// When and where other zones are called. Absent while localZone is set:
	// never.
	CrossZone *CrossZone `json:"crossZone,omitempty"`
}

// LocalZone prefers endpoints that have the same values of tags, in this order.
type LocalZone struct {
	// Tags whose value should be that of the caller, most important first, such
	// as k8s.io/node, then topology.kubernetes.io/zone.
	AffinityTags []AffinityTag `json:"affinityTags,omitzero"`
}

// AffinityTag is one tag; all have a weight, or none.
type AffinityTag struct {
	// A label of the Dataplanes; those without it, on either side, are not
	// preferred by it.
	Key string `json:"key" req:"true"`
	// The share of traffic for endpoints with this tag, relative to the others,
	// where those without any have 1; set on all tags or on none. Absent: nine
	// in ten for the first tag, nine in ten of the rest for the next.
	Weight *uint32 `json:"weight,omitempty" above:"0"`
}

// CrossZone says where calls go when the local zone cannot take them.
type CrossZone struct {
	// Rules in the order in which they are tried: each is used when the zones of
	// those before are not healthy enough. Absent or no rule that fits: no other
	// zone is called.
	Failover []Failover `json:"failover,omitzero"`
	// When calls begin to go to other zones. Absent: below 50% healthy
	// endpoints.
	FailoverThreshold *FailoverThreshold `json:"failoverThreshold,omitempty"`
}

// Failover is a rule for some zones; From nil is all.
type Failover struct {
	// Callers of which zones the rule is for; absent: all.
	From *FailoverFrom `json:"from,omitempty"`
	// Which zones are called.
	To FailoverTo `json:"to" req:"true"`
}

// FailoverFrom is the zones of the callers.
type FailoverFrom struct {
	// Names of zones, at least one.
	Zones []string `json:"zones" req:"true"`
}

// FailoverTo is the zones that are called.
type FailoverTo struct {
	// None ends the list, Only is the zones listed, Any every other zone,
	// AnyExcept every other but these.
	Type string `json:"type" req:"true" enum:"None,Only,Any,AnyExcept"`
	// Names of zones; for Only and AnyExcept.
	Zones []string `json:"zones,omitempty"`
}

// FailoverThreshold is the percentage of local endpoints below which calls go
// to other zones.
type FailoverThreshold struct {
	// When fewer than so many percent of the endpoints that come first are
	// healthy, calls spill over; decimals as text.
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100" above:"0"`
}

// LoadBalancer is an algorithm; the member of another type has no effect.
type LoadBalancer struct {
	// LeastRequest takes the less busy of a few at random, RingHash and Maglev
	// the same endpoint for the same hash. What the other members say has no
	// effect.
	Type string `json:"type" req:"true" enum:"RoundRobin,LeastRequest,RingHash,Random,Maglev"`
	// Settings of LeastRequest.
	LeastRequest *LeastRequest `json:"leastRequest,omitempty"`
	// Settings of RingHash.
	RingHash *RingHash `json:"ringHash,omitempty"`
	// Settings of Maglev.
	Maglev *Maglev `json:"maglev,omitempty"`
}

// LeastRequest takes the least busy of ChoiceCount endpoints.
type LeastRequest struct {
	// How many endpoints are drawn at random, of which the least busy is taken.
	// Absent: 2.
	ChoiceCount *uint32 `json:"choiceCount,omitempty" min:"2"`
	// How strongly requests under way count where endpoints have weights: 0 not
	// at all, more than 1 more strongly. Absent: "1.0".
	ActiveRequestBias *IntOrString `json:"activeRequestBias,omitempty" min:"0"`
}

// RingHash keeps callers of one hash at one endpoint.
type RingHash struct {
	_ struct{} `gone:"hashPolicies" use:"hashPolicies beside loadBalancer"`

	// MurmurHash2 is for compatibility with other software. Absent: XXHash.
	HashFunction string `json:"hashFunction,omitempty" enum:"XXHash,MurmurHash2"`
	// Entries of the ring at least; more of them spread calls more evenly.
	// Absent: 1024.
	MinRingSize *uint32 `json:"minRingSize,omitempty" min:"1" max:"8000000"`
	// Entries of the ring at most, which bounds memory. Absent: 8388608.
	MaxRingSize *uint32 `json:"maxRingSize,omitempty" min:"1" max:"8000000"`
}

// Maglev is like RingHash, faster and less steady.
type Maglev struct {
	_ struct{} `gone:"hashPolicies" use:"hashPolicies beside loadBalancer"`

	// Entries of the table, a prime number, far more than there are endpoints.
	// Absent: 65537.
	TableSize *uint32 `json:"tableSize,omitempty" min:"1" max:"5000011"`
}

// HashPolicy is a part of a request that is hashed. Terminal ends the list if
// the part is there.
type HashPolicy struct {
	// Which of the members says what is hashed.
	Type string `json:"type" req:"true" enum:"Header,Cookie,Connection,QueryParameter,FilterState"`
	// Ends the list if this part is there: what follows is only for requests
	// without it. Absent: false.
	Terminal *bool `json:"terminal,omitempty"`
	// The value of a header.
	Header *HashHeader `json:"header,omitempty" when:"Header"`
	// The value of a cookie, which keeps a browser at one endpoint.
	Cookie *HashCookie `json:"cookie,omitempty" when:"Cookie"`
	// Where the request comes from.
	Connection *HashConnection `json:"connection,omitempty" when:"Connection"`
	// The value of a parameter.
	QueryParameter *HashQueryParameter `json:"queryParameter,omitempty" when:"QueryParameter"`
	// An object that an Envoy filter left.
	FilterState *HashFilterState `json:"filterState,omitempty" when:"FilterState"`
}

// HashHeader is a header of the request.
type HashHeader struct {
	// The header, such as x-user-id.
	Name string `json:"name" req:"true" minLen:"1"`
}

// HashCookie is a cookie, which Envoy makes if TTL is set and it is absent.
type HashCookie struct {
	// The name of the cookie.
	Name string `json:"name" req:"true" minLen:"1"`
	// Has Envoy set the cookie in the response if it is absent, for so long; 0s
	// is until the browser ends. Absent: it is never set.
	TTL *Duration `json:"ttl,omitempty" min:"0"`
	// The path of a cookie that Envoy sets, absolute. Absent: that of the
	// request.
	Path *string `json:"path,omitempty"`
}

// HashConnection is the address of the caller.
type HashConnection struct {
	// Hashes the IP address of the caller.
	SourceIP *bool `json:"sourceIP,omitempty"`
}

// HashQueryParameter is a parameter in the path.
type HashQueryParameter struct {
	// The name of the parameter.
	Name string `json:"name" req:"true" minLen:"1"`
}

// HashFilterState is an object that an Envoy filter left.
type HashFilterState struct {
	// The name of the object.
	Key string `json:"key" req:"true" minLen:"1"`
}

// MeshLoadBalancingStrategies are written anywhere.
var MeshLoadBalancingStrategies = newKind(Kind[MeshLoadBalancingStrategy]{
	Facts: Facts{
		Name: "MeshLoadBalancingStrategy", Plural: "meshloadbalancingstrategies", Short: "mlbs", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true},
	},
	Cross:    crossesAsProducer,
	Upgrade:  upgradeHashPolicies,
	Validate: validateLoadBalancing,
})

// upgradeHashPolicies takes hash policies out of the load balancer in use, where
// release 2 had them.
func upgradeHashPolicies(spec map[string]any, r *Report) {
	items, _ := spec["to"].([]any)
	for i, item := range items {
		to, _ := item.(map[string]any)
		conf, _ := to["default"].(map[string]any)
		balancer, _ := conf["loadBalancer"].(map[string]any)
		kind, _ := balancer["type"].(string)
		field := map[string]string{"RingHash": "ringHash", "Maglev": "maglev"}[kind]
		member, _ := balancer[field].(map[string]any)
		older := member["hashPolicies"]
		if older == nil {
			continue
		}
		if newer := conf["hashPolicies"]; newer != nil && !reflect.DeepEqual(older, newer) {
			r.Index("to", i).At("default.loadBalancer." + field + ".hashPolicies").Add("must not differ from hashPolicies beside loadBalancer, which replaces it")
		} else {
			conf["hashPolicies"] = older
		}
		delete(member, "hashPolicies")
	}
}

func validateLoadBalancing(_ *Meta, s *MeshLoadBalancingStrategy, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService, RefHTTPRoute}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(to.TargetRef.Kind, at.At("default"))
	}
}

func (c *MeshLoadBalancingStrategyConf) check(to string, r *Report) {
	if to == RefHTTPRoute {
		const reason = "field is not allowed when targetRef.kind is MeshHTTPRoute, only hashPolicies is supported"
		if c.LocalityAwareness != nil {
			r.At("localityAwareness").Add(reason)
		}
		if c.LoadBalancer != nil {
			r.At("loadBalancer").Add(reason)
		}
	}
	if l := c.LocalityAwareness; l != nil {
		at := r.At("localityAwareness")
		if l.LocalZone != nil {
			checkAffinity(l.LocalZone.AffinityTags, at.At("localZone.affinityTags"))
		}
		if l.CrossZone != nil {
			if to == RefService {
				at.At("crossZone").Add("must not be set: MeshService traffic is local")
			}
			for i, f := range l.CrossZone.Failover {
				f.check(at.Index("crossZone.failover", i))
			}
		}
	}
	for i, p := range c.HashPolicies {
		if p.Cookie != nil && p.Cookie.Path != nil && !strings.HasPrefix(*p.Cookie.Path, "/") {
			r.Index("hashPolicies", i).At("cookie.path").Add("must be an absolute path")
		}
	}
}

func checkAffinity(tags []AffinityTag, r *Report) {
	weights := 0
	for i, t := range tags {
		if t.Key == "" {
			r.Index("", i).At("key").Add("must not be empty")
		}
		if t.Weight != nil {
			weights++
		}
	}
	if weights != 0 && weights != len(tags) {
		r.Add("all or none affinity tags should have weight")
	}
}

func (f *Failover) check(r *Report) {
	if f.From != nil && len(f.From.Zones) == 0 {
		r.At("from.zones").Add("must not be empty")
	}
	names := f.To.Type == "Only" || f.To.Type == "AnyExcept"
	switch at := r.At("to.zones"); {
	case names && len(f.To.Zones) == 0:
		at.Add("must not be empty when type is %s", f.To.Type)
	case !names && len(f.To.Zones) > 0:
		at.Add("must be empty when type is %s", f.To.Type)
	}
}
