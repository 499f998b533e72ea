package plan

import (
	"cmp"
	"iter"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Layout is what a proxy listens on and what it calls, with the names by which
// Envoy knows it. No plan reads it: it is for people who look at a proxy.
type Layout struct {
	Inbounds, Listeners []Listening
	Outbounds           []Calling // by name
	// SPIFFE is the proxy's SPIFFE ID; empty: none.
	SPIFFE string
}

// Listening is a port on which others reach the proxy.
type Listening struct {
	// Section is how policies name it, Name is Envoy's name.
	Section, Name string
	// Type is that of a zone proxy's listener, empty for inbounds.
	Type     string
	Port     uint32
	Protocol string
}

// Calling is an address behind which the proxy finds a port of a service.
type Calling struct {
	To       Port
	Name     string // Envoy's name of the listener
	Address  ir.Address
	Protocol string
}

// LayoutOf is the layout of a proxy; nil while its Dataplane is unknown.
var LayoutOf = incr.NewQuery("layout", func(r *incr.Run, id api.ID) *Layout {
	dp, ok := api.Dataplanes.Get(r, id)
	if !ok {
		return nil
	}
	who := identity.Get(r, id)
	out := &Layout{SPIFFE: who.ID}
	for _, in := range dp.Spec.Networking.Inbound {
		if in.Port != noServicePort {
			out.Inbounds = append(out.Inbounds, Listening{Section: in.Section(), Name: inboundName(in), Port: in.Port, Protocol: protocolOf(in.Protocol)})
		}
	}
	for _, l := range dp.Spec.Networking.Listeners {
		out.Listeners = append(out.Listeners, Listening{Section: l.Section(), Name: zoneListenerName(l), Type: l.Type, Port: l.Port})
	}
	for name, k := range newClient(r, classKey(r, dp, redirectionOf(r, dp), who)).listeners {
		out.Outbounds = append(out.Outbounds, Calling{To: k.Port, Name: name, Address: k.address(r), Protocol: k.Protocol})
	}
	slices.SortFunc(out.Outbounds, func(a, b Calling) int { return cmp.Compare(a.Name, b.Name) })
	return out
}, nil)

// Selected lists the Dataplanes behind a MeshService, those of its own zone.
func Selected(r db.Reader, svc *api.Object[api.MeshService]) iter.Seq[*api.Object[api.Dataplane]] {
	return func(yield func(*api.Object[api.Dataplane]) bool) {
		if ref := svc.Spec.Selector.DataplaneRef; ref != nil && !svc.Local() {
			// It is named as in its zone, which is not its name here.
			if dp, ok := api.Dataplanes.Get(r, api.ID{Kind: api.Dataplanes.Name, Mesh: svc.Mesh, Zone: svc.Zone, Namespace: svc.Namespace, Name: ref.Name}); ok {
				yield(dp)
			}
			return
		}
		for dp := range selected(r, svc) {
			if dp.Zone == svc.Zone && !yield(dp) {
				return
			}
		}
	}
}
