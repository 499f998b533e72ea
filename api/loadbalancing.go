package api

import (
	"reflect"
	"strings"
)

// MeshLoadBalancingStrategy says which endpoint of a destination gets a call.
type MeshLoadBalancingStrategy struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef                    `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshLoadBalancingStrategyTo `json:"to,omitempty"`
}

// MeshLoadBalancingStrategyTo is about calls to a destination.
type MeshLoadBalancingStrategyTo struct {
	TargetRef TargetRef                     `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshLoadBalancingStrategyConf `json:"default,omitzero"`
}

// MeshLoadBalancingStrategyConf leaves unset what it does not speak of.
type MeshLoadBalancingStrategyConf struct {
	LocalityAwareness *LocalityAwareness `json:"localityAwareness,omitempty"`
	LoadBalancer      *LoadBalancer      `json:"loadBalancer,omitempty"`
	// HashPolicies say what RingHash and Maglev hash, the first that applies.
	HashPolicies []HashPolicy `json:"hashPolicies,omitzero"`
}

// LocalityAwareness prefers what is near.
type LocalityAwareness struct {
	Disabled  *bool      `json:"disabled,omitempty"`
	LocalZone *LocalZone `json:"localZone,omitempty"`
	CrossZone *CrossZone `json:"crossZone,omitempty"`
}

// LocalZone prefers endpoints that have the same values of tags, in this order.
type LocalZone struct {
	AffinityTags []AffinityTag `json:"affinityTags,omitzero"`
}

// AffinityTag is one tag; all have a weight, or none.
type AffinityTag struct {
	Key    string  `json:"key" req:"true"`
	Weight *uint32 `json:"weight,omitempty" above:"0"`
}

// CrossZone says where calls go when the local zone cannot take them.
type CrossZone struct {
	Failover          []Failover         `json:"failover,omitzero"`
	FailoverThreshold *FailoverThreshold `json:"failoverThreshold,omitempty"`
}

// Failover is a rule for some zones; From nil is all.
type Failover struct {
	From *FailoverFrom `json:"from,omitempty"`
	To   FailoverTo    `json:"to" req:"true"`
}

// FailoverFrom is the zones of the callers.
type FailoverFrom struct {
	Zones []string `json:"zones" req:"true"`
}

// FailoverTo is the zones that are called.
type FailoverTo struct {
	Type  string   `json:"type" req:"true" enum:"None,Only,Any,AnyExcept"`
	Zones []string `json:"zones,omitempty"`
}

// FailoverThreshold is the percentage of local endpoints below which calls go
// to other zones.
type FailoverThreshold struct {
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100" above:"0"`
}

// LoadBalancer is an algorithm; the member of another type has no effect.
type LoadBalancer struct {
	Type         string        `json:"type" req:"true" enum:"RoundRobin,LeastRequest,RingHash,Random,Maglev"`
	LeastRequest *LeastRequest `json:"leastRequest,omitempty"`
	RingHash     *RingHash     `json:"ringHash,omitempty"`
	Maglev       *Maglev       `json:"maglev,omitempty"`
}

// LeastRequest takes the least busy of ChoiceCount endpoints.
type LeastRequest struct {
	ChoiceCount       *uint32      `json:"choiceCount,omitempty" min:"2"`
	ActiveRequestBias *IntOrString `json:"activeRequestBias,omitempty" min:"0"`
}

// RingHash keeps callers of one hash at one endpoint.
type RingHash struct {
	_ struct{} `gone:"hashPolicies" use:"hashPolicies beside loadBalancer"`

	HashFunction string  `json:"hashFunction,omitempty" enum:"XXHash,MurmurHash2"`
	MinRingSize  *uint32 `json:"minRingSize,omitempty" min:"1" max:"8000000"`
	MaxRingSize  *uint32 `json:"maxRingSize,omitempty" min:"1" max:"8000000"`
}

// Maglev is like RingHash, faster and less steady.
type Maglev struct {
	_ struct{} `gone:"hashPolicies" use:"hashPolicies beside loadBalancer"`

	TableSize *uint32 `json:"tableSize,omitempty" min:"1" max:"5000011"`
}

// HashPolicy is a part of a request that is hashed. Terminal ends the list if
// the part is there.
type HashPolicy struct {
	Type           string              `json:"type" req:"true" enum:"Header,Cookie,Connection,QueryParameter,FilterState"`
	Terminal       *bool               `json:"terminal,omitempty"`
	Header         *HashHeader         `json:"header,omitempty" when:"Header"`
	Cookie         *HashCookie         `json:"cookie,omitempty" when:"Cookie"`
	Connection     *HashConnection     `json:"connection,omitempty" when:"Connection"`
	QueryParameter *HashQueryParameter `json:"queryParameter,omitempty" when:"QueryParameter"`
	FilterState    *HashFilterState    `json:"filterState,omitempty" when:"FilterState"`
}

// HashHeader is a header of the request.
type HashHeader struct {
	Name string `json:"name" req:"true" minLen:"1"`
}

// HashCookie is a cookie, which Envoy makes if TTL is set and it is absent.
type HashCookie struct {
	Name string    `json:"name" req:"true" minLen:"1"`
	TTL  *Duration `json:"ttl,omitempty" min:"0"`
	Path *string   `json:"path,omitempty"`
}

// HashConnection is the address of the caller.
type HashConnection struct {
	SourceIP *bool `json:"sourceIP,omitempty"`
}

// HashQueryParameter is a parameter in the path.
type HashQueryParameter struct {
	Name string `json:"name" req:"true" minLen:"1"`
}

// HashFilterState is an object that an Envoy filter left.
type HashFilterState struct {
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
