package api

// Convergence is what an instance of a zone says about its proxies: up to which
// revision every one of them has, and acknowledged, all that it should have. It
// is one row per instance, in memory, and flows up to global.
type Convergence struct {
	// Instance is the control plane instance whose proxies these are.
	Instance string `json:"instance"`
	// Enforced maps each source of rows ([Global], or the zone's own name) to the
	// newest revision of it that every proxy has.
	Enforced map[string]Mark `json:"enforced,omitempty"`
	// Proxies are connected; Behind lack something; Rejected refuse something.
	Proxies  int `json:"proxies"`
	Behind   int `json:"behind"`
	Rejected int `json:"rejected"`
	// Laggards names some of those, with the reason.
	Laggards []Laggard `json:"laggards,omitempty"`
}

// Mark is a revision of one source: a counter that only grows within an epoch.
type Mark struct {
	Epoch   string `json:"epoch"`
	Counter uint64 `json:"counter"`
}

// Laggard is a proxy that does not have what it should have.
type Laggard struct {
	Mesh   string `json:"mesh"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Convergences holds the reports of this zone's instances, at global of all.
var Convergences = newKind(Kind[Convergence]{Facts: Facts{
	Name: "Convergence", Plural: "convergences", Scope: GlobalScope, Flow: Up, Memory: true, ReadOnly: true, Hidden: true, Own: true, Kube: KubeNone,
}})
