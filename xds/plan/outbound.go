package plan

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// Class is what proxies have in common whose clients' side is the same: what
// policies can see of them, what they call, and the name of their certificate.
type Class struct {
	Policy    policy.Class
	Outbounds unique.Handle[string] // the Dataplane's, encoded; none with Virtual
	Identity  string
	Ways      unique.Handle[ways]
	// Virtual is the services that are called by their virtual addresses.
	Virtual virtual
	// SystemCA is where the host has its authorities, if services outside of the mesh
	// are called directly.
	SystemCA string
	// Redirected is what the host redirects of what goes out, where that needs
	// listeners of the proxy.
	Redirected redirection
}

func classKey(r *incr.Run, dp *api.Object[api.Dataplane], x redirection, w who) Class {
	k := Class{Policy: policy.Of(dp, clientKeys.Get(r, dp.Mesh), nil).Class(), Identity: w.Secret, Ways: unique.Make(waysOf(r, dp))}
	if anyDirect.Get(r, dp.Mesh) {
		if c, ok := api.Connections.Get(r, dp.ID.Key()); ok {
			k.SystemCA = c.SystemCA
		}
	}
	if !x.on() && !x.Bound {
		k.Outbounds = unique.Make(encodeOutbounds(dp.Spec.Networking.Outbound))
		return k
	}
	k.Outbounds, k.Virtual = unique.Make(""), virtualOf(r, dp, x)
	if !x.Bound {
		k.Redirected = redirection{Outbound: x.Outbound, IPv6: x.IPv6}
	}
	return k
}

// outbound is an outbound of a Dataplane in a form that is equal where the
// meaning is.
type outbound struct {
	Address            string
	Port               uint32
	Kind, Name, Labels string // of the backend; the labels encoded
	BackendPort        uint32
}

// encodeOutbounds writes outbounds as one comparable text; decodeOutbounds is its
// inverse. Every connected proxy has one made whenever its Dataplane changes, so
// it is short and takes no detour over reflection.
func encodeOutbounds(list []api.Outbound) string {
	var b strings.Builder
	b.Grow(80 * len(list))
	var room [binary.MaxVarintLen64]byte
	number := func(n uint32) { b.Write(binary.AppendUvarint(room[:0], uint64(n))) }
	text := func(s string) { number(uint32(len(s))); b.WriteString(s) }
	for _, out := range list {
		text(cmp.Or(out.Address, "127.0.0.1"))
		number(out.Port)
		text(out.BackendRef.Kind)
		text(out.BackendRef.Name)
		text(encodeLabels(out.BackendRef.Labels))
		number(out.BackendRef.Port)
	}
	return b.String()
}

func decodeOutbounds(rest string) (list []outbound) {
	number := func() uint64 {
		n, size := binary.Uvarint([]byte(rest[:min(len(rest), binary.MaxVarintLen64)]))
		rest = rest[size:]
		return n
	}
	text := func() (s string) {
		n := number()
		s, rest = rest[:n], rest[n:]
		return s
	}
	for rest != "" {
		list = append(list, outbound{Address: text(), Port: uint32(number()), Kind: text(), Name: text(), Labels: text(), BackendPort: uint32(number())})
	}
	return list
}

// class is what all proxies of a class share: for each destination a listener,
// routes, clusters and endpoints.
var class = incr.NewQuery("class", func(r *incr.Run, k Class) *Set {
	c := newClient(r, k)
	s := c.set()
	c.addThrough(s)
	structure.Get(r, k.Policy).restructure(s, true, func(_ wire.Type, name string) (ir.Origin, map[string]string) {
		if origin, ok := transparentOrigin(name); ok {
			return origin, nil
		}
		if origin, ok := systemOrigin(name); ok {
			return origin, nil
		}
		if k, ok := c.listeners[name]; ok {
			name = k.Port.Name()
		}
		return ir.OriginOutbound, nameTag(name)
	})
	return s
}, equalSets)

// client is the outbounds of one class: the keys of their resources, by name.
type client struct {
	r     *incr.Run
	class Class
	mesh  string
	taken map[ir.Address]bool

	listeners map[string]outboundKey
	routes    map[string]routesKey
	clusters  map[string]clusterKey
	outside   map[string]directKey
	system    systemClusters
}

func newClient(r *incr.Run, k Class) *client {
	c := &client{
		r: r, class: k, mesh: k.Policy.Proxy().Mesh, taken: map[ir.Address]bool{},
		listeners: map[string]outboundKey{}, routes: map[string]routesKey{}, clusters: map[string]clusterKey{}, outside: map[string]directKey{},
	}
	for _, out := range decodeOutbounds(k.Outbounds.Value()) {
		c.outbound(out)
	}
	c.virtual()
	return c
}

func (c *client) set() *Set {
	s := newSet()
	for name, k := range c.listeners {
		s.Listeners[name] = outboundBytes.Ref(k)
	}
	for name, k := range c.routes {
		s.Routes[name] = routes.Ref(k)
	}
	for name, k := range c.clusters {
		s.Clusters[name] = cluster.Ref(k)
		s.Endpoints[name] = assigned.Ref(assignedKey{Class: k.Class, Port: k.To.Port})
	}
	for _, k := range c.outside {
		k.enter(c.r, s)
	}
	c.system.enter(c.r, c.class.Policy, s)
	return s
}

func (c *client) outbound(out outbound) {
	to := resolve.Get(c.r, Backend{Kind: out.Kind, Mesh: c.mesh, Name: out.Name, Labels: out.Labels, Port: out.BackendPort, First: out.BackendPort == 0})
	if to == (target{}) {
		return // a reference to nothing opens no listener; it appears when the service does
	}
	address := ir.Address{Host: out.Address, Port: out.Port}
	if c.taken[address] {
		return // Envoy would refuse a second listener of one address: the first stays
	}
	if c.call(to, outboundKey{Address: address}) {
		c.taken[address] = true
	}
}

// call adds what it takes to call a port at the address of the key; false if
// nothing listens for it.
func (c *client) call(to target, k outboundKey) bool {
	needs := reach.Get(c.r, reachKey{c.class.Policy, to})
	if needs.Protocol == "" {
		return false
	}
	as := target{to.Port, needs.Protocol}
	k.Port, k.Protocol, k.Timeout, k.Connects = to.Port, needs.Protocol, needs.Timeout, needs.Connects
	k.Split, k.Hash, k.Logs = needs.Split, needs.Hash, c.logs(as, needs)
	if isHTTP(needs.Protocol) {
		k.Tracing = c.tracingOf(to.Port)
	}
	c.listener(k)
	if isHTTP(needs.Protocol) {
		c.routes[to.Port.Name()] = routesKey{c.class.Policy, as}
	}
	for _, b := range needs.Backends {
		c.cluster(b)
	}
	return true
}

// logs is where the listener for a port logs: of what takes a route of its own logs
// to there, and of all else.
func (c *client) logs(to target, n needs) word[[]ir.AccessLog] {
	if n.Logs == (logBackends{}) && len(n.RouteLogs) == 0 {
		return word[[]ir.AccessLog]{}
	}
	g := logger{c.r, c.class.Ways.Value(), c.mesh, callingParties(c.r, c.mesh, to.Port.Name()), isHTTP(to.Protocol), &c.system}
	var others ir.AccessLog
	var out []ir.AccessLog
	for _, l := range n.RouteLogs {
		others.NotRoutes = append(others.NotRoutes, l.Route)
		out = append(out, g.logs(l.Backends, ir.AccessLog{Route: l.Route})...)
	}
	return wordOf(slices.Concat(g.logs(n.Logs, others), out))
}

// listener adds the listener; a second one for the same port, at another
// address, has the address in its name.
func (c *client) listener(k outboundKey) {
	_, k.Second = c.listeners[k.name()]
	k.Patches = patchWord(listenerPatches(c.r, c.class.Policy, ir.OriginOutbound, k.name(), nameTag(k.Port.Name())))
	c.listeners[k.name()] = k
}

func (c *client) cluster(to target) {
	if isDirect(c.r, to.Port) {
		c.outside[to.Port.Name()] = directKey{c.class.Policy, to, c.class.SystemCA}
		return
	}
	if c.class.Identity != "" && !callable.Get(c.r, to.Port) || c.class.Identity == "" && isExternal(to.Port) {
		return // its calls fail, closed
	}
	c.clusters[to.Port.Name()] = clusterKey{c.class.Policy, c.class.Identity, to}
}

// needs is what policies add to what a class names for a port. The rest of what
// they say changes only the content of what is named.
type needs struct {
	Protocol string   // what the listener speaks; empty: there is none
	Backends []target // ports that calls are forwarded to
	// Of the listener, see [outboundKey].
	Timeout  ir.Duration
	Connects uint32
	Split    word[[]ir.Backend]
	Hash     word[*ir.Hash]
	Logs     logBackends
	// RouteLogs are the routes whose logs go elsewhere.
	RouteLogs []routeLogs
}

type reachKey struct {
	Class policy.Class
	To    target
}

var reach = incr.NewQuery("reach", needsOf, func(a, b needs) bool { return reflect.DeepEqual(a, b) })

// outboundKey is all that decides a client's listener for a port. What only its
// routes or clusters depend on is not here: it must not make another listener.
type outboundKey struct {
	Port     Port
	Second   bool // of several for one port, not the first
	Protocol string
	Address  ir.Address
	Virtual  virtualAddress
	Timeout  ir.Duration        // http: for the headers of a request; tcp: of a connection without traffic
	Connects uint32             // tcp: how often connecting is tried
	Split    word[[]ir.Backend] // tcp: where connections go; the zero word: to the port itself
	Hash     word[*ir.Hash]     // tcp: what connections are hashed by
	Patches  word[[]ir.Patch]
	Logs     word[[]ir.AccessLog]
	Tracing  word[*ir.Tracing] // http
}

func (k outboundKey) name() string {
	if k.Second && k.Virtual.Number > 0 {
		return fmt.Sprintf("%s_%d_%d", k.Port.Name(), k.Virtual.Number, k.Address.Port)
	}
	if k.Second {
		return fmt.Sprintf("%s_%s_%d", k.Port.Name(), k.Address.Host, k.Address.Port)
	}
	return k.Port.Name()
}

var outboundListener = incr.NewQuery("outbound", func(r *incr.Run, k outboundKey) ir.Listener {
	name := k.Port.Name()
	chain := ir.Chain{Logs: k.Logs.value()}
	if isHTTP(k.Protocol) {
		chain.HTTP = &ir.HTTP{
			StatName: name, GRPC: k.Protocol == "grpc", NormalizePath: true, RouteName: name,
			InternalCIDRs: settings(r).InternalCIDRs, RequestHeadersTimeout: k.Timeout,
			Tracing:     k.Tracing.value(),
			IdleTimeout: ir.Span(0), // connections of the application end when it wants
		}
	} else {
		chain.TCP = &ir.TCP{StatName: name, Backends: k.Split.value(), IdleTimeout: k.Timeout, Connects: k.Connects, Hash: k.Hash.value()}
		if len(chain.TCP.Backends) == 0 {
			chain.TCP.Backends = []ir.Backend{{Cluster: name}}
		}
	}
	return ir.Listener{
		Name: k.name(), Origin: ir.OriginOutbound, Direction: ir.Outbound, Address: k.address(r), Unbound: k.Virtual.Unbound,
		Tags: nameTag(name), Chains: []ir.Chain{chain}, Patches: k.Patches.value(),
	}
}, func(a, b ir.Listener) bool { return reflect.DeepEqual(a, b) })

// nameTag is the tags of what has none of its own.
func nameTag(name string) map[string]string { return map[string]string{"kuma.io/unified-name": name} }

var outboundBytes = incr.NewQuery("encode.outbound", func(r *incr.Run, k outboundKey) *wire.Resource {
	l := outboundListener.Get(r, k)
	if l.Address.Host == "" {
		return nil // the service has no address yet
	}
	return encode(r, wire.Listener, k.name(), envoy.Listener, l)
}, sameBytes)
