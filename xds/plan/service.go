package plan

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Port is a port of a service, which is what a proxy calls: clusters, routes
// and endpoints are per Port. It is one word, because plans look up hundreds of
// queries by it. The zero value is no port.
type Port struct{ of unique.Handle[port] }

type port struct {
	service       api.ID
	section, name string // the name follows from the others
}

// PortOf is the port of a service with the section: the port's name, else its
// number.
func PortOf(service api.ID, section string) Port {
	p := port{service: service, section: section}
	if k, ok := api.ByName(service.Kind); ok {
		p.name = k.Info().KRI(service, section)
	}
	return Port{unique.Make(p)}
}

// Service is whose port it is.
func (p Port) Service() api.ID { return p.of.Value().service }

// Section is the port's name, else its number.
func (p Port) Section() string { return p.of.Value().section }

// Name is the KRI by which Envoy knows the port.
func (p Port) Name() string { return p.of.Value().name }

// String is [Port.Name].
func (p Port) String() string {
	if p == (Port{}) {
		return "no port"
	}
	return p.Name()
}

func (p Port) destination() policy.Destination {
	return policy.Destination{ID: p.Service(), Section: p.Section()}
}

// Backend is a reference to a port as users write it: by the service's name at
// this control plane or by labels, and by the port's number or section.
type Backend struct {
	Kind, Mesh, Name string
	Labels           string // encoded
	Port             uint32
	Section          string
	// First is for older references, which name no port: the first.
	First bool
}

// target is a port that a reference resolves to.
type target struct {
	Port     Port
	Protocol string
}

// resolve finds the port of a reference; the zero target when there is none.
// Among several services with the labels the oldest wins.
var resolve = incr.NewQuery("resolve", func(r *incr.Run, b Backend) target {
	k, ok := api.ByName(b.Kind)
	if !ok {
		return target{}
	}
	var found api.Row
	if b.Labels != "" {
		found = oldest(k.RowsLabelled(r, b.Mesh, decodeLabels(b.Labels)), b.Name)
	} else if row, ok := k.RowNamed(r, b.Mesh, b.Name); ok {
		found = row
	}
	if found == nil {
		return target{}
	}
	first := b.First || b.Kind == api.MeshExternalServices.Name // which has one port
	for p := range servicePorts(found) {
		if p.is(b.Section) || b.Section == "" && uint32(p.Number) == b.Port || first && b.Section == "" && b.Port == 0 {
			return target{Port: PortOf(found.Head().ID, p.Section), Protocol: p.Protocol}
		}
	}
	return target{}
}, func(a, b target) bool { return a == b })

func oldest(rows iter.Seq[api.Row], name string) api.Row {
	var found api.Row
	for row := range rows {
		m := row.Head()
		if name != "" && m.Core != name {
			continue
		}
		if found == nil || cmp.Or(m.Created.Compare(found.Head().Created), cmp.Compare(m.ID.Key(), found.Head().ID.Key())) < 0 {
			found = row
		}
	}
	return found
}

// servicePort is a port of a service of any kind.
type servicePort struct {
	Section, Name string
	Number        int32
	Protocol      string
}

// is reports whether a section of a reference means this port.
func (p servicePort) is(section string) bool {
	return section != "" && (section == p.Section || section == strconv.Itoa(int(p.Number)))
}

func servicePorts(row api.Row) iter.Seq[servicePort] {
	return func(yield func(servicePort) bool) {
		switch spec := row.Body().(type) {
		case *api.MeshService:
			for _, p := range spec.Ports {
				if !yield(servicePort{p.Section(), p.Name, p.Port, protocolOf(p.AppProtocol)}) {
					return
				}
			}
		case *api.MeshExternalService:
			yield(servicePort{spec.Section(), "", spec.Match.Port, protocolOf(spec.Match.Protocol)})
		case *api.MeshMultiZoneService:
			for _, p := range spec.Ports {
				if !yield(servicePort{p.Section(), p.Name, p.Port, protocolOf(p.AppProtocol)}) {
					return
				}
			}
		}
	}
}

// protocolOf treats the empty protocol as tcp: such a port still has a chain.
func protocolOf(p string) string { return cmp.Or(p, "tcp") }

// isHTTP reports whether requests can be told apart in the protocol.
func isHTTP(protocol string) bool {
	return protocol == "http" || protocol == "http2" || protocol == "grpc"
}

// isRemote reports whether a service lives in another zone.
func isRemote(r db.Reader, m *api.Meta) bool {
	return m.Zone != "" && m.Zone != settings(r).Site.Zone
}

// selected lists the Dataplanes behind a local MeshService.
func selected(r db.Reader, svc *api.Object[api.MeshService]) iter.Seq[*api.Object[api.Dataplane]] {
	sel := svc.Spec.Selector
	switch {
	case sel.DataplaneRef != nil:
		return func(yield func(*api.Object[api.Dataplane]) bool) {
			if dp, ok := api.Dataplanes.Named(r, svc.Mesh, sel.DataplaneRef.Name); ok {
				yield(dp)
			}
		}
	case sel.DataplaneLabels != nil:
		return api.Dataplanes.Labelled(r, svc.Mesh, sel.DataplaneLabels.MatchLabels)
	case len(sel.DataplaneTags) > 0:
		// No index has tags: whatever changes in a Dataplane of the mesh is looked at.
		return func(yield func(*api.Object[api.Dataplane]) bool) {
			for dp := range api.Dataplanes.In(r, svc.Mesh) {
				if api.HasTags(dp, sel.DataplaneTags) && !yield(dp) {
					return
				}
			}
		}
	}
	return func(func(*api.Object[api.Dataplane]) bool) {}
}

// members is the healthy endpoints of a port of a local MeshService, sorted by
// address: those that other proxies of this zone, and its ingress, send to.
var members = incr.NewQuery("members", func(r *incr.Run, p Port) []ir.Endpoint {
	svc, ok := api.MeshServices.Get(r, p.Service())
	if !ok || isRemote(r, &svc.Meta) {
		return nil
	}
	i := slices.IndexFunc(svc.Spec.Ports, func(sp api.MeshServicePort) bool { return sp.Section() == p.Section() })
	if i < 0 {
		return nil
	}
	port := svc.Spec.Ports[i]
	var out []ir.Endpoint
	for dp := range selected(r, svc) {
		if isRemote(r, &dp.Meta) || isJoining(r, dp) {
			continue
		}
		for _, in := range dp.Spec.Networking.Inbound {
			if !port.Targets(in) || !in.Healthy() || !svc.Spec.Selector.Takes(dp, &in) {
				continue
			}
			for _, address := range addressesOf(r, cmp.Or(in.Address, dp.Spec.Networking.Address)) {
				out = append(out, ir.Endpoint{
					Address: ir.Address{Host: address, Port: in.Port}, Weight: 1,
					Tags: endpointTags(dp.Labels, in.Protocol),
				})
			}
		}
	}
	return sortEndpoints(out)
}, equalEndpoints)

// isJoining reports whether the proxy does not listen yet.
func isJoining(r db.Reader, dp *api.Object[api.Dataplane]) bool {
	_, joining := api.Joinings.Get(r, dp.ID.Key())
	return joining
}

// endpointTags are the labels that load balancing may look at.
func endpointTags(labels map[string]string, protocol string) map[string]string {
	tags := maps.Clone(labels)
	if tags == nil {
		tags = map[string]string{}
	}
	delete(tags, api.LabelService)
	if protocol != "" {
		tags[api.LabelProtocol] = protocol
	}
	return tags
}

func sortEndpoints(list []ir.Endpoint) []ir.Endpoint {
	slices.SortFunc(list, func(a, b ir.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Address.Host, b.Address.Host), cmp.Compare(a.Address.Port, b.Address.Port))
	})
	return slices.CompactFunc(list, func(a, b ir.Endpoint) bool { return a.Address == b.Address })
}

func equalEndpoints(a, b []ir.Endpoint) bool {
	return slices.EqualFunc(a, b, func(a, b ir.Endpoint) bool {
		return a.Address == b.Address && a.Weight == b.Weight && maps.Equal(a.Tags, b.Tags)
	})
}

// addressesOf is the IP address of an address that may be a host name: the
// first of those it resolves to, none while it does not resolve.
func addressesOf(r db.Reader, address string) []string {
	if _, err := netip.ParseAddr(address); err == nil {
		return []string{address}
	}
	if res, ok := api.Resolutions.Get(r, address); ok && len(res.Addresses) > 0 {
		return res.Addresses[:1]
	}
	return nil
}

// Service computes the state of a local MeshService.
var Service = incr.NewQuery("service", func(r *incr.Run, id api.ID) *api.ServiceState {
	st := &api.ServiceState{Service: id}
	svc, ok := api.MeshServices.Get(r, id)
	if !ok {
		return st
	}
	ids := map[string]bool{}
	for dp := range selected(r, svc) {
		st.Total++
		if _, ok := api.Connections.Get(r, dp.ID.Key()); ok {
			st.Connected++
		}
		if servesAll(svc, dp) && !isJoining(r, dp) {
			st.Healthy++
		}
		if spiffe := identity.Get(r, dp.ID).ID; spiffe != "" {
			ids[spiffe] = true
		}
	}
	st.Available = st.Healthy > 0
	st.Identities = slices.Sorted(maps.Keys(ids))
	return st
}, func(a, b *api.ServiceState) bool {
	return slices.Equal(a.Identities, b.Identities) && a.Available == b.Available &&
		a.Connected == b.Connected && a.Healthy == b.Healthy && a.Total == b.Total
})

func servesAll(svc *api.Object[api.MeshService], dp *api.Object[api.Dataplane]) bool {
	for _, port := range svc.Spec.Ports {
		if !slices.ContainsFunc(dp.Spec.Networking.Inbound, func(in api.Inbound) bool {
			return port.Targets(in) && in.Healthy() && svc.Spec.Selector.Takes(dp, &in)
		}) {
			return false
		}
	}
	return true
}

// peers is whom a client may meet behind a service: SPIFFE IDs, sorted.
type peers struct {
	IDs []string
	TLS bool // whether they speak mTLS
}

// servers is the peers behind a service of any kind.
var servers = incr.NewQuery("servers", func(r *incr.Run, id api.ID) peers {
	switch id.Kind {
	case "MeshService":
		return serversOf.Get(r, id)
	case "MeshExternalService":
		return peers{IDs: exits.Get(r, id.Mesh).IDs, TLS: true}
	case "MeshMultiZoneService":
		all := peers{TLS: true}
		for svc := range api.Behind(r, id) {
			all.IDs = append(all.IDs, serversOf.Get(r, svc.ID).IDs...)
		}
		slices.Sort(all.IDs)
		all.IDs = slices.Compact(all.IDs)
		return all
	}
	return peers{}
}, equalPeers)

func equalPeers(a, b peers) bool { return a.TLS == b.TLS && slices.Equal(a.IDs, b.IDs) }

// serversOf is the peers behind one MeshService.
var serversOf = incr.NewQuery("servers-of", func(r *incr.Run, id api.ID) peers {
	svc, ok := api.MeshServices.Get(r, id)
	if !ok {
		return peers{}
	}
	if !isRemote(r, &svc.Meta) {
		return localServers(r, svc)
	}
	var ids []string
	for _, one := range svc.Spec.Identities {
		if one.Type == "SpiffeID" {
			ids = append(ids, one.Value)
		}
	}
	slices.Sort(ids)
	return peers{IDs: slices.Compact(ids), TLS: true}
}, equalPeers)

// localServers: a local service speaks mTLS when each proxy behind it has an
// identity. Upstream keeps that decision once it is made; here it is a function
// of the rows, so that instances cannot disagree.
func localServers(r *incr.Run, svc *api.Object[api.MeshService]) peers {
	p := peers{TLS: true}
	for dp := range selected(r, svc) {
		who := identity.Get(r, dp.ID)
		if who.SPIFFE == "" {
			p.TLS = false
		}
		if who.ID != "" {
			p.IDs = append(p.IDs, who.ID)
		}
	}
	slices.Sort(p.IDs)
	p.IDs = slices.Compact(p.IDs)
	return p
}
