package plan

import (
	"cmp"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// encode makes the bytes of a resource. A resource that cannot be built fails
// its own query: the last good one stays and everybody else goes on.
func encode[V any, M proto.Message](r *incr.Run, t wire.Type, name string, build func(V) (M, error), v V) *wire.Resource {
	return encoded(t, name, build, v).take(r)
}

// listenerBytes is the query for the bytes of the listeners of another; absent where
// they are nil.
func listenerBytes[K comparable](name string, of *incr.Query[K, *ir.Listener]) *incr.Query[K, *wire.Resource] {
	return incr.NewQuery(name, func(r *incr.Run, k K) *wire.Resource {
		l := of.Get(r, k)
		if l == nil {
			return nil
		}
		return encode(r, wire.Listener, l.Name, envoy.Listener, *l)
	}, sameBytes)
}

// clusterBytes is that for clusters.
func clusterBytes[K comparable](name string, of *incr.Query[K, *ir.Cluster]) *incr.Query[K, *wire.Resource] {
	return incr.NewQuery(name, func(r *incr.Run, k K) *wire.Resource {
		c := of.Get(r, k)
		if c == nil {
			return nil
		}
		return encode(r, wire.Cluster, c.Name, envoy.Cluster, *c)
	}, sameBytes)
}

// variant is a resource that several share, or why it cannot be built. It is not
// the variant that fails then but those who change over to it: they have a last
// good one.
type variant struct {
	res *wire.Resource
	err error
}

func encoded[V any, M proto.Message](t wire.Type, name string, build func(V) (M, error), v V) variant {
	m, err := build(v)
	if err != nil {
		return variant{err: err}
	}
	res, err := wire.Encode(t, name, m)
	return variant{res, err}
}

// take is the resource of the running query.
func (v variant) take(r *incr.Run) *wire.Resource {
	r.Fail(v.err)
	return v.res
}

func sameVariant(a, b variant) bool { return a.err == nil && b.err == nil && sameBytes(a.res, b.res) }

// clusterKey is a cluster of a class: of proxies that policies see alike and
// whose certificate has this name (empty: plaintext).
type clusterKey struct {
	Class    policy.Class
	Identity string
	To       target
}

// cluster is the variant that the policies of a class come to. Its key does not
// say what they come to, so that a class names the same when they change.
var cluster = incr.NewQuery("cluster", func(r *incr.Run, k clusterKey) *wire.Resource {
	return clusterVariant.Get(r, settingsOf(r, k)).take(r)
}, sameBytes)

func settingsOf(r *incr.Run, k clusterKey) clusterSettings {
	said := callsTo.Get(r, callsKey{Class: k.Class, Port: k.To.Port})
	t := said.Timeouts
	s := clusterSettings{Port: k.To.Port, Identity: k.Identity, Protocol: ir.HTTP2, Connect: t.Connect, Breaker: said.Breaker, Health: said.Health.of(k.To.Protocol),
		Balancer: said.Balance.Balancer, Weighted: len(said.Balance.Locality.value().Near) > 0,
	}
	if isExternal(k.To.Port) {
		s.Protocol = outsideProtocol(k.To.Protocol)
	}
	s.Patches = patchWord(clusterPatches(r, k.Class, ir.OriginOutbound, k.To.Port.Name()))
	if k.Identity != "" {
		s.TLS = tlsTo.Get(r, k.Class)
	}
	// Between proxies requests travel over HTTP/2 whatever the ends speak; not where
	// the other end is no proxy for requests: there the application itself gets them.
	if !isHTTP(k.To.Protocol) {
		s.Protocol = ir.AsCalled
	}
	if k.To.Protocol == "http" || k.To.Protocol == "http2" { // of grpc the contract leaves them out
		s.Idle, s.MaxStream, s.MaxConnection = t.Idle, t.MaxStream, t.MaxConnection
	}
	return s
}

// clusterSettings is all that decides how a client reaches a port.
type clusterSettings struct {
	Port                           Port
	Protocol                       ir.Protocol // of requests
	Identity                       string      // the client's own secret; empty: plaintext
	Connect                        ir.Duration
	Idle, MaxStream, MaxConnection ir.Duration
	Breaker                        word[ir.Breaker]
	TLS                            word[ir.TLSParams]
	Health                         word[ir.HealthCheck]
	Patches                        word[[]ir.Patch]
	Balancer                       word[ir.Balancer]
	Weighted                       bool // localities have weights
}

// callable reports whether proxies with an identity can call a port. A name that
// makes no server name cannot be called over mTLS: it has no cluster.
var callable = incr.NewQuery("callable", func(r *incr.Run, p Port) bool {
	_, ok := serverName(p)
	return ok || !servers.Get(r, p.Service()).TLS
}, func(a, b bool) bool { return a == b })

func serverName(p Port) (string, bool) {
	kind, ok := api.ByName(p.Service().Kind)
	if !ok {
		return "", false
	}
	return api.SNI(kind, p.Service(), p.Section())
}

// meshALPN is the protocol name by which clients say that they speak mesh TLS
// (contract).
const meshALPN = "kuma"

// clientTLS is how clients with the identity speak to a port; nil: plaintext.
func clientTLS(r *incr.Run, k clusterSettings) *ir.ClientTLS {
	if k.Identity == "" {
		return nil
	}
	s := servers.Get(r, k.Port.Service())
	if !s.TLS {
		return nil
	}
	sni, _ := serverName(k.Port)
	return &ir.ClientTLS{Identity: k.Identity, Bundle: bundleName, SNI: sni, ALPN: []string{meshALPN}, SpiffeIDs: s.IDs, Params: k.TLS.value()}
}

func (k clusterSettings) cluster(r *incr.Run) ir.Cluster {
	out := ir.Cluster{
		Name: k.Port.Name(), Origin: ir.OriginOutbound, ConnectTimeout: k.Connect,
		Protocol: k.Protocol, IdleTimeout: k.Idle, MaxStream: k.MaxStream, MaxConnection: k.MaxConnection,
		TLS: clientTLS(r, k), Breaker: k.Breaker.value(), TrackRemaining: true,
		Patches: k.Patches.value(), Balancer: k.Balancer.value(), WeightedLocalities: k.Weighted,
	}
	if k.Health != (word[ir.HealthCheck]{}) {
		out.HealthCheck = new(k.Health.value())
	}
	return out
}

var clusterVariant = incr.NewQuery("encode.cluster", func(r *incr.Run, k clusterSettings) variant {
	return encoded(wire.Cluster, k.Port.Name(), envoy.Cluster, k.cluster(r))
}, sameVariant)

// View is what a client's place means for the endpoints it is given.
type View struct {
	// Ingress views see only what is in this zone: an ingress never sends on.
	Ingress bool
	// Locality is what policies say of the client's zone and place.
	Locality word[locality]
}

type endpointsKey struct {
	Port Port
	View View
}

var endpoints = incr.NewQuery("endpoints", func(r *incr.Run, k endpointsKey) ir.Endpoints {
	e := ir.Endpoints{Cluster: k.Port.Name()}
	add := func(l ir.Locality) {
		if len(l.Endpoints) > 0 {
			e.Localities = append(e.Localities, l)
		}
	}
	here, said := settings(r).Site.Zone, k.View.Locality.value()
	e.Spill = said.Spill
	switch k.Port.Service().Kind {
	case "MeshService":
		svc, ok := api.MeshServices.Get(r, k.Port.Service())
		if !ok {
			return e
		}
		if isRemote(r, &svc.Meta) {
			if !k.View.Ingress {
				add(remote(r, svc))
			}
		} else {
			for _, l := range said.local(here, members.Get(r, k.Port)) {
				add(l)
			}
		}
	case "MeshExternalService":
		add(ir.Locality{Endpoints: exitEndpoints(r, k.Port.Service())})
	case "MeshMultiZoneService":
		var local []ir.Endpoint
		zones := map[string]ir.Locality{}
		name := k.Port.Section()
		for svc := range api.Behind(r, k.Port.Service()) {
			i := slices.IndexFunc(svc.Spec.Ports, func(p api.MeshServicePort) bool { return p.Section() == name })
			if i < 0 {
				continue
			}
			if !isRemote(r, &svc.Meta) {
				local = append(local, members.Get(r, PortOf(svc.ID, name))...)
			} else if !k.View.Ingress && svc.Spec.State == "Available" {
				if p, ok := said.priority(here, svc.Zone); ok {
					l := remote(r, svc)
					l.Priority = p
					zones[svc.Zone] = l
				}
			}
		}
		for _, l := range said.local(here, sortEndpoints(local)) {
			add(l)
		}
		for _, l := range zones {
			add(l)
		}
	}
	if len(said.Near) > 0 { // where localities have weights, one without gets nothing
		for i := range e.Localities {
			e.Localities[i].Weight = max(1, e.Localities[i].Weight)
		}
	}
	slices.SortFunc(e.Localities, func(a, b ir.Locality) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.SubZone, b.SubZone))
	})
	return e
}, func(a, b ir.Endpoints) bool { return reflect.DeepEqual(a, b) })

// remote is how a service of another zone is reached: through that zone's
// ingress addresses, after all endpoints of this zone. Whoever calls it means that
// zone, so what policies say of other zones is not about it: upstream would let a
// preference within the own zone, said for the mesh, take all its endpoints away.
func remote(r *incr.Run, svc *api.Object[api.MeshService]) ir.Locality {
	return ir.Locality{Zone: svc.Zone, Priority: 1, Endpoints: zoneAddresses.Get(r, zoneKey{svc.Mesh, svc.Zone})}
}

type zoneKey struct{ Mesh, Zone string }

// zoneAddresses is the ingress addresses of another zone for one mesh; none
// while the mesh has no identity, because crossing zones takes mTLS.
var zoneAddresses = incr.NewQuery("zone-addresses", func(r *incr.Run, k zoneKey) []ir.Endpoint {
	any := false
	for range api.MeshIdentities.In(r, k.Mesh) {
		any = true
		break
	}
	if !any {
		return nil
	}
	var out []ir.Endpoint
	for a := range api.MeshZoneAddresses.Labelled(r, k.Mesh, map[string]string{api.LabelZone: k.Zone}) {
		for _, ip := range addressesOf(r, a.Spec.Address) {
			out = append(out, ir.Endpoint{
				Address: ir.Address{Host: ip, Port: uint32(a.Spec.Port)}, Weight: 1,
				Tags: map[string]string{api.LabelZone: k.Zone},
			})
		}
	}
	return sortEndpoints(out)
}, equalEndpoints)

var endpointsBytes = incr.NewQuery("encode.endpoints", func(r *incr.Run, k endpointsKey) *wire.Resource {
	e := endpoints.Get(r, k)
	return encode(r, wire.Endpoints, e.Cluster, envoy.Endpoints, e)
}, sameBytes)
