package plan

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Proxies whose host redirects, and those that have sockets at virtual addresses,
// call each service there, without saying which. A class names the listeners of all
// services' ports before the services have addresses: an address changes a listener
// and no class.
//
//	services of the mesh ─▶ reachable ─▶ portsOf(service) ─▶ class ─▶ listener ◀─ VIPs(service)

// virtual is what a class calls by virtual addresses. It is comparable; the zero
// value is nothing.
type virtual struct {
	On      bool
	Unbound bool // connections are handed over, listeners have no sockets
	Limited bool // to Refs
	Refs    unique.Handle[string]
	// Own are the proxy's inbounds that are at virtual addresses, as those of
	// services whose addresses are their proxies' are.
	Own unique.Handle[string]
}

func virtualOf(r *incr.Run, dp *api.Object[api.Dataplane], x redirection) virtual {
	v := virtual{On: true, Unbound: x.on() && !x.Bound}
	if tp := dp.Spec.Networking.TransparentProxying; tp != nil && tp.ReachableBackends != nil {
		v.Limited, v.Refs = true, unique.Make(encodeRefs(tp.ReachableBackends.Refs))
	}
	var own []string
	for _, in := range dp.Spec.Networking.Inbound {
		if host := cmp.Or(in.Address, dp.Spec.Networking.Address); api.IsVIP(r, host) {
			own = append(own, net.JoinHostPort(host, strconv.Itoa(int(in.Port))))
		}
	}
	slices.Sort(own)
	v.Own = unique.Make(strings.Join(own, "\n"))
	return v
}

// reachableRef is services, and a port of them or all, in a comparable form.
type reachableRef struct {
	Kind, Name, Labels string // the labels encoded
	Port               uint32
}

func encodeRefs(refs []api.ReachableBackendRef) string {
	return wordOf(convert(refs, func(ref api.ReachableBackendRef) reachableRef {
		out := reachableRef{Kind: ref.Kind, Name: ref.Name, Labels: encodeLabels(ref.Labels), Port: value(ref.Port)}
		if ref.Namespace != "" {
			out.Name, out.Labels = "", encodeLabels(map[string]string{api.LabelDisplayName: ref.Name, api.LabelNamespace: ref.Namespace})
		}
		return out
	})).text.Value()
}

// reachable calls f for each service and port of a mesh that may be called, port 0
// for all of the service's.
func (v virtual) reachable(r *incr.Run, mesh string, f func(service api.ID, port uint32)) {
	if !v.Limited {
		for _, kind := range []string{api.RefService, api.RefExternalService, api.RefMultiZoneService} {
			for _, id := range labelled.Get(r, labelledKey{Kind: kind, Mesh: mesh}) {
				f(id, 0)
			}
		}
		return
	}
	for _, ref := range (word[[]reachableRef]{v.Refs}).value() {
		if ref.Name == "" {
			for _, id := range labelled.Get(r, labelledKey{ref.Kind, mesh, ref.Labels}) {
				f(id, ref.Port)
			}
		} else if id := serviceNamed.Get(r, labelledKey{Kind: ref.Kind, Mesh: mesh, Labels: ref.Name}); id != (api.ID{}) {
			f(id, ref.Port)
		}
	}
}

// serviceNamed is the ID of a service by its name at this control plane, which
// stands in place of the key's labels; the zero ID if there is none.
var serviceNamed = incr.NewQuery("service-named", func(r *incr.Run, k labelledKey) api.ID {
	if kind, ok := api.ByName(k.Kind); ok {
		if row, ok := kind.RowNamed(r, k.Mesh, k.Labels); ok {
			return row.Head().ID
		}
	}
	return api.ID{}
}, func(a, b api.ID) bool { return a == b })

// virtualPorts is what classes hear of a service: not its addresses, but how many.
type virtualPorts struct {
	Addresses int // at least one, which it may still wait for
	Ports     []virtualPort
}

type virtualPort struct {
	To     target
	Number uint32
}

var portsOf = incr.NewQuery("ports-of", func(r *incr.Run, id api.ID) virtualPorts {
	out := virtualPorts{Addresses: max(1, len(api.VIPs(r, id)))}
	kind, _ := api.ByName(id.Kind)
	if row, ok := kind.Row(r, id); ok {
		for p := range servicePorts(row) {
			out.Ports = append(out.Ports, virtualPort{target{PortOf(id, p.Section), p.Protocol}, uint32(p.Number)})
		}
	}
	return out
}, func(a, b virtualPorts) bool { return a.Addresses == b.Addresses && slices.Equal(a.Ports, b.Ports) })

// virtual adds the services that are called by their virtual addresses.
func (c *client) virtual() {
	v := c.class.Virtual
	if !v.On {
		return
	}
	var own []string
	if text := v.Own.Value(); text != "" {
		own = strings.Split(text, "\n")
	}
	named := map[Port]bool{}
	v.reachable(c.r, c.mesh, func(service api.ID, only uint32) {
		found := portsOf.Get(c.r, service)
		for _, p := range found.Ports {
			if only != 0 && only != p.Number || named[p.To.Port] {
				continue
			}
			named[p.To.Port] = true
			for n := range found.Addresses {
				k := outboundKey{Port: p.To.Port, Address: ir.Address{Port: p.Number}, Virtual: virtualAddress{Number: n + 1, Unbound: v.Unbound}}
				if len(own) > 0 && slices.Contains(own, net.JoinHostPort(k.address(c.r).Host, strconv.Itoa(int(p.Number)))) {
					continue // Envoy would refuse a second listener of one address
				}
				c.call(p.To, k)
			}
		}
	})
}

// virtualAddress says that a listener is at a virtual address of its service: at the
// one with the number, from 1. The zero value: it is not.
type virtualAddress struct {
	Number  int
	Unbound bool
}

// address is where the listener is; without host while its service has no address.
func (k outboundKey) address(r *incr.Run) ir.Address {
	at := k.Address
	if n := k.Virtual.Number; n > 0 {
		at.Host = ""
		if vips := api.VIPs(r, k.Port.Service()); n <= len(vips) {
			at.Host = vips[n-1]
		}
	}
	return at
}
