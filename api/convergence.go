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
	// Proxies that are connected to the instance.
	Proxies int `json:"proxies"`
	// Of these, how many lack something that they should have.
	Behind int `json:"behind"`
	// Of these, how many refused something.
	Rejected int `json:"rejected"`
	// Some of those that are behind or refused something, with the reason.
	Laggards []Laggard `json:"laggards,omitempty"`
}

// Mark is a revision of one source: a counter that only grows within an epoch.
type Mark struct {
	// Changes when a source begins to count anew; counters of different epochs
	// cannot be compared.
	Epoch string `json:"epoch"`
	// Number of the revision.
	Counter uint64 `json:"counter"`
}

// Laggard is a proxy that does not have what it should have.
type Laggard struct {
	// The mesh of the proxy.
	Mesh string `json:"mesh"`
	// The name of its Dataplane.
	Name string `json:"name"`
	// What it lacks or refused, and why.
	Reason string `json:"reason"`
}

// Convergences holds the reports of this zone's instances, at global of all.
var Convergences = newKind(Kind[Convergence]{Facts: Facts{
	Name: "Convergence", Plural: "convergences", Scope: GlobalScope, Flow: Up, Memory: true, ReadOnly: true, Hidden: true, Own: true, Kube: KubeNone,
}})
