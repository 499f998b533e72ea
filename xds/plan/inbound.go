package plan

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// sectionKey is an inbound as policies see it.
type sectionKey struct {
	Class   policy.Class
	Section string
}

// noServicePort stands for the inbound of a pod that no service selects: it is
// there to give the proxy an identity.
const noServicePort = 49151

const inboundPrefix = "self_inbound_dp_"

func inboundName(in api.Inbound) string { return inboundPrefix + in.Section() }

// inboundTags is what patches select an inbound by.
func inboundTags(dp *api.Object[api.Dataplane], name string) map[string]string {
	if len(dp.Labels) == 0 {
		return nameTag(name)
	}
	return dp.Labels
}

// addInbounds names a listener and a cluster for each inbound. Of two with one
// name the first stays, as Envoy would have it.
func addInbounds(r *incr.Run, own *Set, dp *api.Object[api.Dataplane]) {
	records := recordsWanted.Get(r, dp.Mesh)
	for i, in := range dp.Spec.Networking.Inbound {
		if in.Port == noServicePort {
			continue
		}
		name := inboundName(in)
		if _, taken := own.Listeners[name]; !taken {
			own.Listeners[name] = inboundBytes.Ref(listenerKey{dp.ID, i})
			own.Clusters[name] = inboundClusterBytes.Ref(listenerKey{dp.ID, i})
			if records {
				inboundNeeds.Get(r, listenerKey{dp.ID, i}).enter(r, ownClass(r, dp), own)
			}
		}
	}
}

// inboundOf returns the Dataplane's inbound at the position of the key, and what
// policies see of it.
func inboundOf(r *incr.Run, k listenerKey) (*api.Object[api.Dataplane], api.Inbound, sectionKey) {
	dp, ok := api.Dataplanes.Get(r, k.Proxy)
	if !ok || k.Index >= len(dp.Spec.Networking.Inbound) {
		return nil, api.Inbound{}, sectionKey{}
	}
	in := dp.Spec.Networking.Inbound[k.Index]
	return dp, in, sectionOf(r, dp, in.Section())
}

// sectionOf is an inbound or a listener of the Dataplane.
func sectionOf(r *incr.Run, dp *api.Object[api.Dataplane], section string) sectionKey {
	return sectionKey{policy.Of(dp, serverKeys.Get(r, dp.Mesh), []string{section}).Class(), section}
}

var inbound = incr.NewQuery("inbound", func(r *incr.Run, k listenerKey) *ir.Listener {
	dp, in, section := inboundOf(r, k)
	if dp == nil {
		return nil
	}
	name := inboundName(in)
	protocol := protocolOf(in.Protocol)
	chain := ir.Chain{}
	if w := identity.Get(r, dp.ID); w.SPIFFE != "" {
		chain.TLS = &ir.ServerTLS{Identity: w.Secret, Bundle: bundleName, TrustDomains: trustDomains.Get(r, dp.Mesh)}
		chain.Permissions = permissionsIn.Get(r, section)
		chain.Logs = []ir.AccessLog{{Path: "/dev/stdout", Denied: true}}
	}
	limits := rateLimitsIn.Get(r, section)
	chain.Connections = limits.Connections
	logs, _ := sectionLogs(r, dp, section, inboundDestination(dp, in), isHTTP(protocol))
	chain.Logs = append(chain.Logs, logs...)
	timeouts := timeoutsIn.Get(r, section)
	all := timeouts.All
	if isHTTP(protocol) {
		tracing, _ := sectionTracing(r, dp, section)
		chain.HTTP = &ir.HTTP{
			Tracing: tracing, StatName: name, GRPC: protocol == "grpc", ForwardPeer: true, InternalCIDRs: settings(r).InternalCIDRs,
			IdleTimeout: timeouts.Listener, StreamIdleTimeout: generatorTimeouts.StreamIdle, RequestHeadersTimeout: all.RequestHeaders,
			Limits: limits.Requests,
			Faults: faultsIn.Get(r, section),
			Routes: &ir.RouteConfig{
				Name: name, Origin: ir.OriginInbound, RemoveRequestHeaders: []string{"x-kuma-tags"},
				Hosts: []ir.VirtualHost{{Name: name, Routes: []ir.Route{{Forward: &ir.Forward{
					Backends: []ir.Backend{{Cluster: name}}, Timeout: all.Request.Or(ir.Span(0)), IdleTimeout: all.StreamIdle, Peers: timeouts.Peers,
				}}}}},
			},
		}
	} else {
		chain.TCP = &ir.TCP{StatName: name, Backends: []ir.Backend{{Cluster: name}}, IdleTimeout: all.Idle}
	}
	chains := []ir.Chain{chain}
	if tls := tlsIn.Get(r, section); chain.TLS != nil {
		chain.TLS.Params = tls.Params
		if tls.Permissive {
			chains = permissive(chain, name, all.Idle)
		}
	}
	tags := inboundTags(dp, name)
	return &ir.Listener{
		Name: name, Origin: ir.OriginInbound, Direction: ir.Inbound, Tags: tags,
		Address:   ir.Address{Host: firstAddress(r, cmp.Or(in.Address, dp.Spec.Networking.Address)), Port: in.Port},
		ReusePort: reusePort(r, dp.ID), Chains: chains,
		Unbound: redirectionOf(r, dp).on(),
		Patches: listenerPatches(r, ownClass(r, dp), ir.OriginInbound, name, tags),
	}
}, func(a, b *ir.Listener) bool { return reflect.DeepEqual(a, b) })

// inboundNeeds is the clusters that an inbound's listener names beside its own.
var inboundNeeds = incr.NewQuery("inbound-needs", func(r *incr.Run, k listenerKey) systemClusters {
	dp, in, section := inboundOf(r, k)
	if dp == nil {
		return nil
	}
	_, need := sectionLogs(r, dp, section, inboundDestination(dp, in), isHTTP(protocolOf(in.Protocol)))
	if isHTTP(protocolOf(in.Protocol)) {
		_, traces := sectionTracing(r, dp, section)
		need = append(need, traces...)
	}
	return need
}, slices.Equal[systemClusters])

func firstAddress(r db.Reader, address string) string {
	if list := addressesOf(r, address); len(list) > 0 {
		return list[0]
	}
	return address
}

var inboundBytes = listenerBytes("encode.inbound", inbound)

var inboundCluster = incr.NewQuery("inbound-cluster", func(r *incr.Run, k listenerKey) *ir.Cluster {
	dp, in, section := inboundOf(r, k)
	if dp == nil {
		return nil
	}
	all := timeoutsIn.Get(r, section).All
	c := &ir.Cluster{
		Name: inboundName(in), Origin: ir.OriginInbound, ConnectTimeout: all.Connect, Breaker: breakersIn.Get(r, section), TrackRemaining: true,
		Static: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{
			Host: applicationOf(r, dp, in),
			Port: cmp.Or(in.ServicePort, in.Port),
		}}}}},
	}
	c.SourceAddress = redirectionOf(r, dp).passSource(applicationOf(r, dp, in))
	c.Patches = clusterPatches(r, ownClass(r, dp), c.Origin, c.Name)
	switch protocolOf(in.Protocol) {
	case "http":
		c.Protocol, c.IdleTimeout, c.MaxStream, c.MaxConnection = ir.HTTP1, all.Idle, all.MaxStream, all.MaxConnection
	case "http2":
		c.Protocol, c.IdleTimeout, c.MaxStream, c.MaxConnection = ir.HTTP2, all.Idle, all.MaxStream, all.MaxConnection
	case "grpc":
		c.Protocol, c.IdleTimeout = ir.HTTP2, generatorTimeouts.Idle
	}
	return c
}, func(a, b *ir.Cluster) bool { return reflect.DeepEqual(a, b) })

var inboundClusterBytes = clusterBytes("encode.inbound-cluster", inboundCluster)

var permissionSet = newPolicySet("permissions", api.MeshTrafficPermissions, func(s *api.MeshTrafficPermission) *api.TargetRef { return s.TargetRef })

// permissionsIn is what calls an inbound takes; none while no policy speaks.
var permissionsIn = incr.NewQuery("permissions-in", func(r *incr.Run, k sectionKey) *ir.Permissions {
	mesh := k.Class.Proxy().Mesh
	found := policy.PermissionsFor(permissionSet.selected(r, k.Class), k.Section, func(tags map[string]string) (own, shared []string) {
		c := callers.Get(r, callersKey{mesh, encodeLabels(tags), settings(r).Site.Zone})
		for _, one := range c.Shared {
			shared = append(shared, one.ID)
		}
		return c.Own, shared
	})
	list := func(from []policy.Permission) []ir.Permission {
		var out []ir.Permission
		for _, one := range from {
			out = append(out, ir.Permission{
				Policy:  api.MeshTrafficPermissions.KRI(one.Policy.ID, ""),
				Peer:    peerMatch(one.Match.Peer()),
				Request: requestMatch(one.Match),
			})
		}
		return out
	}
	return &ir.Permissions{Deny: list(found.Deny), Allow: list(found.Allow), AllowShadowDeny: list(found.AllowWithShadowDeny)}
}, func(a, b *ir.Permissions) bool { return reflect.DeepEqual(a, b) })

// requestMatch is the conditions of a permission on requests: all of them, also
// several of one header, since leaving one out would let in more.
func requestMatch(m api.PermissionMatch) ir.RouteMatch {
	out := routeMatch(api.HTTPMatch{Path: m.Path, Method: m.Method})
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h))
	}
	return out
}
