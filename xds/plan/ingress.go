package plan

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// exposed is a port of this zone that other zones may call, and its SNI.
type exposed struct {
	Port Port
	SNI  string
}

// exposures is what the ingresses of this zone offer for a mesh: its own
// services and all multi-zone services, sorted by SNI. Of two with one SNI the
// first stays.
var exposures = incr.NewQuery("exposures", func(r *incr.Run, mesh string) []exposed {
	var out []exposed
	add := func(k api.AnyKind, row api.Row) {
		for p := range servicePorts(row) {
			if sni, ok := api.SNI(k, row.Head().ID, p.Section); ok {
				out = append(out, exposed{PortOf(row.Head().ID, p.Section), sni})
			}
		}
	}
	for svc := range api.MeshServices.In(r, mesh) {
		if !isRemote(r, &svc.Meta) {
			add(api.MeshServices, svc)
		}
	}
	for svc := range api.MeshMultiZoneServices.In(r, mesh) {
		add(api.MeshMultiZoneServices, svc)
	}
	slices.SortFunc(out, func(a, b exposed) int { return cmp.Compare(a.SNI, b.SNI) })
	return slices.CompactFunc(out, func(a, b exposed) bool { return a.SNI == b.SNI })
}, slices.Equal[[]exposed])

// ingressSet is the clusters and endpoints behind an ingress, the same for all
// ingresses of the zone that get the same patches. An ingress sees only TLS: it reads the server name and
// passes the bytes on.
var ingressSet = incr.NewQuery("ingress-set", func(r *incr.Run, c policy.Class) *Set {
	s := newSet()
	for _, x := range exposures.Get(r, c.Proxy().Mesh) {
		name := x.Port.Name()
		s.Clusters[name] = ingressClusterBytes.Ref(ingressClusterKey{x.Port, patchWord(clusterPatches(r, c, ir.OriginIngress, name))})
		s.Endpoints[name] = endpointsBytes.Ref(endpointsKey{x.Port, View{Ingress: true}})
	}
	return s
}, equalSets)

type ingressClusterKey struct {
	Port    Port
	Patches word[[]ir.Patch]
}

var ingressClusterBytes = incr.NewQuery("encode.ingress-cluster", func(r *incr.Run, k ingressClusterKey) *wire.Resource {
	name := k.Port.Name()
	return encode(r, wire.Cluster, name, envoy.Cluster, ir.Cluster{
		Name: name, Origin: ir.OriginIngress, ConnectTimeout: systemConnect, TrackRemaining: true, Patches: k.Patches.value(),
	})
}, sameBytes)

// listenerKey is a listener that a Dataplane declares: an inbound or, for zone
// proxies, a listener, by its position.
type listenerKey struct {
	Proxy api.ID
	Index int
}

var ingressListenerBytes = listenerBytes("encode.ingress-listener", ingressListener)

// ingressListener is nil when there is nothing to expose.
var ingressListener = incr.NewQuery("ingress-listener", func(r *incr.Run, k listenerKey) *ir.Listener {
	dp, ok := api.Dataplanes.Get(r, k.Proxy)
	if !ok || k.Index >= len(dp.Spec.Networking.Listeners) {
		return nil
	}
	d := dp.Spec.Networking.Listeners[k.Index]
	l := zoneListener(r, dp, d, ir.OriginIngress)
	section := sectionOf(r, dp, d.Section())
	limits := rateLimitsIn.Get(r, section)
	for _, x := range exposures.Get(r, k.Proxy.Mesh) {
		name := x.Port.Name()
		logs, _ := sectionLogs(r, dp, section, name, false)
		l.Chains = append(l.Chains, ir.Chain{
			Match: ir.ChainMatch{Transport: "tls", SNI: []string{x.SNI}},
			// Between zones a connection lives long: that it is there is worth a line.
			TCP:         &ir.TCP{StatName: name, Backends: []ir.Backend{{Cluster: name}}, LogConnect: len(logs) > 0},
			Logs:        logs,
			Connections: limits.connections(x.SNI),
		})
	}
	if len(l.Chains) == 0 {
		return nil
	}
	return l
}, func(a, b *ir.Listener) bool { return reflect.DeepEqual(a, b) })

// zoneListener is a listener of a zone proxy before it has chains.
func zoneListener(r *incr.Run, dp *api.Object[api.Dataplane], d api.ZoneListener, origin ir.Origin) *ir.Listener {
	name := zoneListenerName(d)
	return &ir.Listener{
		Name: name, Origin: origin, Direction: ir.Inbound,
		Address:   ir.Address{Host: firstAddress(r, d.Address), Port: d.Port},
		ReusePort: reusePort(r, dp.ID), Patches: listenerPatches(r, ownClass(r, dp), origin, name, nil),
	}
}

const (
	ingressPrefix = "self_zoneingress_dp_"
	egressPrefix  = "self_zoneegress_dp_"
)

// ingressNeeds is the clusters that a zone proxy's listener names beside those of
// what it exposes.
var ingressNeeds = incr.NewQuery("ingress-needs", func(r *incr.Run, k listenerKey) systemClusters {
	dp, ok := api.Dataplanes.Get(r, k.Proxy)
	if !ok || k.Index >= len(dp.Spec.Networking.Listeners) {
		return nil
	}
	_, need := sectionLogs(r, dp, sectionOf(r, dp, dp.Spec.Networking.Listeners[k.Index].Section()), "", false)
	return need
}, slices.Equal[systemClusters])

func zoneListenerName(l api.ZoneListener) string {
	kind := ingressPrefix
	if l.Type == "ZoneEgress" {
		kind = egressPrefix
	}
	return kind + l.Section()
}

func reusePort(r db.Reader, proxy api.ID) ir.Switch {
	c, ok := api.Connections.Get(r, proxy.Key())
	return ir.SwitchOf(ok && c.ReusePort)
}

// addIngress adds what a zone ingress serves.
func addIngress(r *incr.Run, own *Set, dp *api.Object[api.Dataplane]) {
	for i, l := range dp.Spec.Networking.Listeners {
		if l.Type != "ZoneIngress" {
			continue
		}
		own.include(ingressSet.Get(r, ownClass(r, dp)))
		own.Listeners[zoneListenerName(l)] = ingressListenerBytes.Ref(listenerKey{dp.ID, i})
		if recordsWanted.Get(r, dp.Mesh) {
			ingressNeeds.Get(r, listenerKey{dp.ID, i}).enter(r, ownClass(r, dp), own)
		}
	}
}
