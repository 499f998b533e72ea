package api

import (
	"iter"
	"net/netip"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api/db"
)

// VirtualIP says whose an address is. The address is the name of the row, so
// that one address is given to one service, however many instances of a control
// plane give away addresses at the same time.
type VirtualIP struct {
	// The address.
	Address string `json:"address" req:"true"`
	// The service that it leads to.
	Service ServiceID `json:"service" req:"true"`
	// Since when there is no such service. The address is kept for it for a while,
	// lest a caller that still knows it meets another service there. Absent: there
	// is one.
	Released *time.Time `json:"released,omitempty"`
}

// ServiceID is an [ID] of a service, as it is written down.
type ServiceID struct {
	// The kind: MeshService, MeshExternalService or MeshMultiZoneService.
	Kind string `json:"kind" req:"true"`
	// The mesh that it is in.
	Mesh string `json:"mesh" req:"true"`
	// The zone that it comes from. Absent: global.
	Zone string `json:"zone,omitempty"`
	// Its namespace on Kubernetes.
	Namespace string `json:"namespace,omitempty"`
	// Its name where it was written.
	Name string `json:"name" req:"true"`
}

// vipByService finds the addresses of a service.
var vipByService = db.NewIndex("service", func(o *Object[VirtualIP]) []string { return []string{ID(o.Spec.Service).String()} })

// VirtualIPs are of one zone: each gives every service that it knows an address
// of its own. They are stored, so that services keep their addresses.
var VirtualIPs = newKind(Kind[VirtualIP]{Facts: Facts{
	Name: "VirtualIP", Plural: "virtualips", Scope: GlobalScope, Unhashed: true, ReadOnly: true, Hidden: true, Own: true,
}}, vipByService)

// VirtualIPID is the ID of the row of an address. Its name fits where rows are
// files or objects of Kubernetes, too.
func VirtualIPID(address netip.Addr) ID {
	return ID{Kind: VirtualIPs.Name, Name: strings.ReplaceAll(address.StringExpanded(), ":", "-")}
}

// VirtualIPsOf lists the rows that name the service, also while there is no such
// service, by address. There is more than one only for the moment after several
// instances gave it an address at the same time; see [HeldBy].
func VirtualIPsOf(r db.Reader, service ID) iter.Seq[*Object[VirtualIP]] {
	return vipByService.Of(r, service.String())
}

// HeldBy is the row of the service's address, or nil while it has none: of
// several the one that was stored first, which all instances agree on.
func HeldBy(r db.Reader, service ID) *Object[VirtualIP] {
	var held *Object[VirtualIP]
	for o := range VirtualIPsOf(r, service) {
		if held == nil || o.Revision < held.Revision {
			held = o
		}
	}
	return held
}

// VIPs lists the virtual addresses by which proxies of this zone call a service
// of any kind; none while it has none.
func VIPs(r db.Reader, service ID) []string {
	if o := HeldBy(r, service); o != nil {
		return []string{o.Spec.Address}
	}
	return nil
}

// IsVIP reports whether the address is among the [VIPs] of some service.
func IsVIP(r db.Reader, address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	_, ok := VirtualIPs.Get(r, VirtualIPID(ip))
	return ok
}

// Exhaustion says that services of a kind lack addresses because all are taken.
type Exhaustion struct {
	// Kind of the services, CIDR the range that is full.
	Kind, CIDR string
}

// Exhaustions holds at most one row per kind of services.
var Exhaustions = db.NewTable(Schema, "exhaustions", func(e *Exhaustion) string { return e.Kind })
