package plan

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// A host that redirects the connections of an application to the proxy beside it
// gives them all to two ports. The listeners there know where each was made to and
// hand it to the listener of that address; what is made to no such address passes:
//
//	application ──▶ 241.0.0.3:80 ─┐               ┌▶ listener 241.0.0.3:80, unbound ─▶ service
//	            ──▶ 93.184.0.1:443┴▶ :15001 ──────┴▶ passes, as MeshPassthrough says
//	others ─────▶ 10.0.0.7:8080 ──┬▶ :15006 ──────┬▶ inbound 10.0.0.7:8080, unbound ─▶ application
//	       ─────▶ 10.0.0.7:22   ──┘               └▶ passes, unless inbounds are strict
//
// What goes out is the same for all proxies of a class, and part of it.

const transparentPrefix = "self_transparentproxy_"

// noDestinationName is the name of a cluster without endpoints: connections to there
// end.
func noDestinationName(d ir.Direction) string {
	return transparentPrefix + "no_destination_" + string(d)
}

// throughName is the name of the listener and of the cluster of what passes.
func throughName(d ir.Direction, v6 bool) string {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	return transparentPrefix + "passthrough_" + string(d) + "_" + family
}

// olderThroughName is its name in earlier releases, which patches may still use.
func olderThroughName(name string) string {
	rest, ok := strings.CutPrefix(name, transparentPrefix+"passthrough_")
	if !ok {
		return name
	}
	direction, family, _ := strings.Cut(rest, "_")
	return direction + ":passthrough:" + family
}

// redirection is what the host of a proxy redirects to it. It is comparable.
type redirection struct {
	// Ports to which connections are redirected; 0: they are not.
	Inbound, Outbound uint32
	IPv6, DNS         bool
	// Bound: services are called by their virtual addresses without redirection,
	// because listeners have sockets there.
	Bound bool
}

// on reports whether the host redirects at all.
func (x redirection) on() bool { return x.Inbound != 0 || x.Outbound != 0 }

// families calls f for each family of addresses that is redirected.
func (x redirection) families(f func(v6 bool)) {
	f(false)
	if x.IPv6 {
		f(true)
	}
}

// redirectionOf: what the proxy says of its host goes before its Dataplane.
func redirectionOf(r db.Reader, dp *api.Object[api.Dataplane]) redirection {
	var host api.Redirection
	c, connected := api.Connections.Get(r, dp.ID.Key())
	switch tp := dp.Spec.Networking.TransparentProxying; {
	case connected && c.Redirection != nil:
		host = *c.Redirection
	case tp != nil:
		host = api.Redirection{Inbound: tp.RedirectPortInbound, Outbound: tp.RedirectPortOutbound, IPv4Only: tp.IPFamilyMode == "IPv4", DNS: connected && c.DNSPort != 0}
	}
	out := redirection{Bound: connected && c.BindOutbounds}
	if host.IPv4Only && isIPv6(dp.Spec.Networking.Address) {
		return out // nothing that is made to the proxy is redirected
	}
	out.Inbound, out.Outbound, out.DNS = host.Inbound, host.Outbound, host.DNS
	out.IPv6 = !host.IPv4Only && !(connected && c.NoIPv6)
	return out
}

func isIPv6(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.Is6() && !ip.Is4In6()
}

// passSource is the address from which a proxy speaks to its own application where
// the host redirects: what comes from there is not redirected again. An
// application on loopback needs none, as nothing to there is redirected.
func (x redirection) passSource(application string) string {
	ip, err := netip.ParseAddr(application)
	switch {
	case !x.on() || err == nil && ip.IsLoopback():
		return ""
	case isIPv6(application):
		return "::6"
	}
	return "127.0.0.6"
}

// throughKey is a listener of what passes, as a class of proxies has it.
type throughKey struct {
	Class  policy.Class
	Port   uint32
	IPv6   bool
	Closed bool // inbound: nothing passes
	// Outbound: where connections are logged, and requests.
	Logs, RequestLogs word[[]ir.AccessLog]
}

func (k throughKey) address() ir.Address {
	if k.IPv6 {
		return ir.Address{Host: "::", Port: k.Port}
	}
	return ir.Address{Host: "0.0.0.0", Port: k.Port}
}

func (k throughKey) listener(r *incr.Run, d ir.Direction, chains []ir.Chain) ir.Listener {
	name := throughName(d, k.IPv6)
	return ir.Listener{
		Name: name, Origin: ir.OriginTransparent, Direction: d, Address: k.address(), Transparent: true, Chains: chains,
		Patches: listenerPatches(r, k.Class, ir.OriginTransparent, name, nil),
	}
}

func through(cluster string) []ir.Chain {
	return []ir.Chain{{TCP: &ir.TCP{Backends: []ir.Backend{{Cluster: cluster}}}}}
}

// addTransparent adds what takes the incoming connections that the host redirects.
// Where every inbound demands mTLS, and the proxy knows to be that strict, nothing
// else is let in.
func addTransparent(r *incr.Run, own *Set, dp *api.Object[api.Dataplane], x redirection, w who) {
	if x.Outbound == 0 || x.Bound {
		return
	}
	c := ownClass(r, dp)
	closed := strictInbounds(r, dp, w)
	x.families(func(v6 bool) {
		name := throughName(ir.Inbound, v6)
		if x.Inbound != 0 {
			own.Listeners[name] = throughInBytes.Ref(throughKey{Class: c, Port: x.Inbound, IPv6: v6, Closed: closed})
		}
		if !closed {
			own.Clusters[name] = throughClusterBytes.Ref(throughClusterKey{Class: c, Name: name})
		}
	})
	if closed {
		nowhere := noDestinationName(ir.Inbound)
		own.Clusters[nowhere] = throughClusterBytes.Ref(throughClusterKey{Class: c, Name: nowhere})
	}
}

// strictInbounds reports whether callers reach the proxy by mTLS alone.
func strictInbounds(r *incr.Run, dp *api.Object[api.Dataplane], w who) bool {
	c, connected := api.Connections.Get(r, dp.ID.Key())
	if !connected || !c.StrictInbounds || w.SPIFFE == "" || len(dp.Spec.Networking.Inbound) == 0 {
		return false
	}
	return !slices.ContainsFunc(dp.Spec.Networking.Inbound, func(in api.Inbound) bool {
		return permissiveIn.Get(r, sectionOf(r, dp, in.Section()))
	})
}

// permissiveIn reports whether an inbound also takes callers without mesh TLS.
var permissiveIn = incr.NewQuery("permissive-in", func(r *incr.Run, k sectionKey) bool {
	return tlsIn.Get(r, k).Permissive
}, func(a, b bool) bool { return a == b })

var throughIn = incr.NewQuery("through-in", func(r *incr.Run, k throughKey) ir.Listener {
	to := throughName(ir.Inbound, k.IPv6)
	if k.Closed {
		to = noDestinationName(ir.Inbound)
	}
	return k.listener(r, ir.Inbound, through(to))
}, func(a, b ir.Listener) bool { return reflect.DeepEqual(a, b) })

var throughInBytes = incr.NewQuery("encode.through-in", func(r *incr.Run, k throughKey) *wire.Resource {
	l := throughIn.Get(r, k)
	return encode(r, wire.Listener, l.Name, envoy.Listener, l)
}, sameBytes)

// throughClusterKey is a cluster of what passes, in or out.
type throughClusterKey struct {
	Class    policy.Class
	Name     string
	Protocol ir.Protocol
}

var throughCluster = incr.NewQuery("through-cluster", func(r *incr.Run, k throughClusterKey) *ir.Cluster {
	c := ir.Cluster{Name: k.Name, Origin: ir.OriginTransparent, AsAddressed: true, ConnectTimeout: systemConnect, Protocol: k.Protocol, TrackRemaining: true}
	switch k.Name {
	case noDestinationName(ir.Inbound), noDestinationName(ir.Outbound):
		c.AsAddressed, c.Static = false, []ir.Locality{{}}
	case throughName(ir.Inbound, false):
		c.SourceAddress = "127.0.0.6"
	case throughName(ir.Inbound, true):
		c.SourceAddress = "::6"
	case throughName(ir.Outbound, false), throughName(ir.Outbound, true):
		if !passthroughFor.Get(r, k.Class).All {
			return nil
		}
	default:
		c.Origin = ir.OriginPassthrough
	}
	c.Patches = clusterPatches(r, k.Class, c.Origin, c.Name)
	return &c
}, func(a, b *ir.Cluster) bool { return reflect.DeepEqual(a, b) })

var throughClusterBytes = clusterBytes("encode.through-cluster", throughCluster)

// addThrough adds what takes the outgoing connections that hosts redirect.
func (c *client) addThrough(s *Set) {
	out := c.class.Redirected
	if out.Outbound == 0 {
		return
	}
	out.families(func(v6 bool) {
		name := throughName(ir.Outbound, v6)
		s.Listeners[name] = throughOutBytes.Ref(c.throughKey(v6))
		s.Clusters[name] = throughClusterBytes.Ref(throughClusterKey{Class: c.class.Policy, Name: name})
		for _, to := range passthroughClusters.Get(c.r, passthroughKey{c.class.Policy, v6}) {
			s.Clusters[to.Name] = throughClusterBytes.Ref(throughClusterKey{c.class.Policy, to.Name, to.Protocol})
		}
	})
	c.system.enter(c.r, c.class.Policy, s) // what the logs need
}

// throughKey is the listener of what passes to outside.
func (c *client) throughKey(v6 bool) throughKey {
	k := throughKey{Class: c.class.Policy, Port: c.class.Redirected.Outbound, IPv6: v6}
	if said := logsThrough.Get(c.r, c.class.Policy); said != (logBackends{}) {
		g := logger{c.r, c.class.Ways.Value(), c.mesh, callingParties(c.r, c.mesh, "external"), false, &c.system}
		k.Logs = wordOf(g.logs(said, ir.AccessLog{}))
		g.http = true
		k.RequestLogs = wordOf(g.logs(said, ir.AccessLog{}))
	}
	return k
}

// logsThrough is where calls of what is no service are logged: with those of
// everything.
var logsThrough = incr.NewQuery("logs-through", func(r *incr.Run, c policy.Class) logBackends {
	return logsTo.at(r, c)
}, func(a, b logBackends) bool { return a == b })

var throughOut = incr.NewQuery("through-out", func(r *incr.Run, k throughKey) ir.Listener {
	allowed := passthroughFor.Get(r, k.Class)
	l := k.listener(r, ir.Outbound, allowed.chains(k.IPv6))
	switch {
	case allowed.All:
		l.Chains = through(l.Name)
	case len(l.Chains) == 0: // the listener says so, which is heard at once: clusters go when nothing refers to them
		l.Chains = through(noDestinationName(ir.Outbound))
	default:
		l.Ordered, l.ServerFirst = true, allowed.serverFirst()
	}
	for i := range l.Chains {
		l.Chains[i].Logs = k.Logs.value()
		if l.Chains[i].HTTP != nil {
			l.Chains[i].Logs = k.RequestLogs.value()
		}
	}
	return l
}, func(a, b ir.Listener) bool { return reflect.DeepEqual(a, b) })

var throughOutBytes = incr.NewQuery("encode.through-out", func(r *incr.Run, k throughKey) *wire.Resource {
	l := throughOut.Get(r, k)
	return encode(r, wire.Listener, l.Name, envoy.Listener, l)
}, sameBytes)

// transparentOrigin is the origin of a resource by its name, if it is one of these.
func transparentOrigin(name string) (ir.Origin, bool) {
	switch {
	case strings.HasPrefix(name, transparentPrefix):
		return ir.OriginTransparent, true
	case strings.HasPrefix(name, passthroughPrefix):
		return ir.OriginPassthrough, true
	}
	return "", false
}

// applicationOf is where the application of an inbound listens.
func applicationOf(r db.Reader, dp *api.Object[api.Dataplane], in api.Inbound) string {
	return firstAddress(r, cmp.Or(in.ServiceAddress, in.Address, dp.Spec.Networking.Address))
}
