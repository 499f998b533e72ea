package api

// Lease says which instance of a control plane does a duty that is done by one
// instance at a time.
type Lease struct {
	// The instance that does it; empty: given up, anybody may take it.
	Holder string `json:"holder,omitempty"`
	// How long it holds without a renewal.
	Term Duration `json:"term" req:"true"`
	// How often it was renewed. Its changes are what others see of the holder; they
	// measure time by their own clocks.
	Renewals uint64 `json:"renewals,omitempty"`
}

// Leases are of one control plane. They are stored, so that what is written in the
// name of one can be made to depend on it.
var Leases = newKind(Kind[Lease]{Facts: Facts{
	Name: "Lease", Plural: "leases", Scope: GlobalScope, Unhashed: true, ReadOnly: true, Hidden: true, Own: true,
}})

// LeaseID is the ID of the lease of a duty.
func LeaseID(duty string) ID { return ID{Kind: Leases.Name, Name: duty} }
