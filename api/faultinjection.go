package api

import "regexp"

// MeshFaultInjection makes a share of the requests to a proxy fail, wait or
// answer slowly, to see how callers bear it. Use it for experiments; it
// concerns HTTP only.
type MeshFaultInjection struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are called, or one inbound of them; absent: all of the
	// mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Injects nothing, and is read for compatibility: rules of the proxies that are
	// called inject.
	To []MeshFaultInjectionTo `json:"to,omitempty" idle:"injects nothing; use rules, with a targetRef that selects the proxies that are called"`
	// Faults, by caller. All rules that match a request apply to it.
	Rules []MeshFaultInjectionRule `json:"rules,omitempty"`
}

// MeshFaultInjectionTo is read for compatibility.
type MeshFaultInjectionTo struct {
	// Read for compatibility.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// Read for compatibility.
	Default MeshFaultInjectionConf `json:"default,omitzero"`
}

// MeshFaultInjectionRule is about calls from those that match; no matches: from
// all.
type MeshFaultInjectionRule struct {
	// The callers, any one of the list; absent: all.
	Matches []Match `json:"matches,omitempty"`
	// What happens to their requests.
	Default MeshFaultInjectionConf `json:"default,omitzero"`
}

// MeshFaultInjectionConf is faults in the order in which they happen.
type MeshFaultInjectionConf struct {
	// Faults, applied in this order, each to its own share of the requests.
	HTTP []HTTPFault `json:"http,omitzero"`
}

// HTTPFault happens to a percentage of the requests each.
type HTTPFault struct {
	// Answers with an error at once, in place of the application.
	Abort *AbortFault `json:"abort,omitempty"`
	// Holds the request before it is passed on.
	Delay *DelayFault `json:"delay,omitempty"`
	// Limits how fast the response is sent.
	ResponseBandwidth *BandwidthFault `json:"responseBandwidth,omitempty"`
}

// AbortFault answers without asking the application.
type AbortFault struct {
	// The status of the answer, such as 503; below 200 is no answer, and nothing
	// happens.
	HTTPStatus int32 `json:"httpStatus" req:"true" range:"100,599"`
	// The share of the requests; decimals as text: "0.5".
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100"`
}

// DelayFault waits first.
type DelayFault struct {
	// How long the request is held.
	Value Duration `json:"value" req:"true" min:"0"`
	// The share of the requests; decimals as text: "0.5".
	Percentage IntOrString `json:"percentage" req:"true" range:"0,100"`
}

// BandwidthFault answers slowly.
type BandwidthFault struct {
	// Bits per second, a number with its unit, kbps, Mbps or Gbps: "50 Mbps".
	Limit string `json:"limit" req:"true"`
	// The share of the responses; decimals as text: "0.5".
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
