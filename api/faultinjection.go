package api

import "regexp"

// MeshFaultInjection makes some of the calls to a proxy fail, to see what
// happens.
type MeshFaultInjection struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// To is read for compatibility; it injects nothing.
	To    []MeshFaultInjectionTo   `json:"to,omitempty"`
	Rules []MeshFaultInjectionRule `json:"rules,omitempty"`
}

// MeshFaultInjectionTo is read for compatibility.
type MeshFaultInjectionTo struct {
	TargetRef TargetRef              `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshFaultInjectionConf `json:"default,omitzero"`
}

// MeshFaultInjectionRule is about calls from those that match; no matches: from
// all.
type MeshFaultInjectionRule struct {
	Matches []Match                `json:"matches,omitempty"`
	Default MeshFaultInjectionConf `json:"default,omitzero"`
}

// MeshFaultInjectionConf is faults in the order in which they happen.
type MeshFaultInjectionConf struct {
	HTTP []HTTPFault `json:"http,omitzero"`
}

// HTTPFault happens to a percentage of the requests each.
type HTTPFault struct {
	Abort             *AbortFault     `json:"abort,omitempty"`
	Delay             *DelayFault     `json:"delay,omitempty"`
	ResponseBandwidth *BandwidthFault `json:"responseBandwidth,omitempty"`
}

// AbortFault answers without asking the application.
type AbortFault struct {
	HTTPStatus int32       `json:"httpStatus" req:"true" range:"100,599"`
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100"`
}

// DelayFault waits first.
type DelayFault struct {
	Value      Duration    `json:"value" req:"true" min:"0"`
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100"`
}

// BandwidthFault answers slowly.
type BandwidthFault struct {
	// Limit is a number with its unit: "50 Mbps".
	Limit      string      `json:"limit" req:"true"`
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100"`
}

// MeshFaultInjections are written anywhere.
var MeshFaultInjections = newKind(Kind[MeshFaultInjection]{
	Facts: Facts{
		Name: "MeshFaultInjection", Plural: "meshfaultinjections", Short: "mfi", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true, Rules: true, Callers: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateFaultInjection,
	Place:    func(path string) string { return faultPath.ReplaceAllString(path, ".http.$2[$1]") },
})

// faultPath finds the index that is reported behind the name of the fault.
var faultPath = regexp.MustCompile(`\.http\[(\d+)\]\.(abort|delay|responseBandwidth)`)

func validateFaultInjection(_ *Meta, s *MeshFaultInjection, r *Report) {
	checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
	if s.TargetRef != nil && s.TargetRef.Kind != RefMesh && len(s.To) > 0 {
		r.At("to").Add("must not be defined")
	}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, []string{RefMesh}, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		for j, m := range rule.Matches {
			checkMatch(m, at.Index("matches", j))
		}
		rule.Default.check(at.At("default"))
	}
}

var bandwidth = regexp.MustCompile(`^\d+\s?[GMk]bps$`)

func (c *MeshFaultInjectionConf) check(r *Report) {
	for i, f := range c.HTTP {
		if b := f.ResponseBandwidth; b != nil && !bandwidth.MatchString(b.Limit) {
			r.Index("http", i).At("responseBandwidth.limit").Add("must be in kbps/Mbps/Gbps units")
		}
	}
}
