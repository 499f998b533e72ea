package plan

import (
	"fmt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

const (
	adminName     = "system_envoy_admin"
	readinessName = "system_probe_readiness"
)

// systemConnect is the connect timeout of clusters that no policy speaks of.
var systemConnect = ir.Span(5e9)

// addAdmin adds the clusters of the proxy's own administration and readiness, and
// the listener that offers them to the control plane:
//
//	control plane ─mTLS─▶ <address of the Dataplane>:<admin port> ─▶ administration, on loopback or a Unix socket
//	anybody ───/ready───▶                  ″                      ─▶ readiness
func addAdmin(r *incr.Run, own *Set, dp *api.Object[api.Dataplane]) {
	c, ok := api.Connections.Get(r, dp.ID.Key())
	if !ok {
		return
	}
	host, err := adminHost(c)
	if err != nil { // the listener's query says so
		own.Listeners[adminName] = adminListenerBytes.Ref(dp.ID)
		return
	}
	if c.AdminSocket != "" || c.AdminPort != 0 {
		at := ir.Address{Host: host, Port: c.AdminPort}
		if c.AdminSocket != "" {
			at = ir.Address{Pipe: c.AdminSocket}
		}
		own.Clusters[adminName] = adminClusterBytes.Ref(newAdminKey(r, dp, adminName, at))
	}
	if c.ReadinessPort != 0 {
		own.Clusters[readinessName] = adminClusterBytes.Ref(newAdminKey(r, dp, readinessName, ir.Address{Host: host, Port: c.ReadinessPort}))
	}
	if adminOffer(r, dp.ID) != "" {
		own.Listeners[adminName] = adminListenerBytes.Ref(dp.ID)
	}
}

// adminHost is where an administration that listens on TCP is dialled. Only
// loopback is taken: with any other address a proxy would make its listener a
// gateway to somebody else.
func adminHost(c *api.Connection) (string, error) {
	switch c.AdminAddress {
	case "", "0.0.0.0", "127.0.0.1":
		return "127.0.0.1", nil
	case "::", "::1":
		return "::1", nil
	}
	return "", fmt.Errorf("the administration of Envoy is at %q, which is none of 127.0.0.1, 0.0.0.0, :: and ::1", c.AdminAddress)
}

// adminOffer is the address of the Dataplane, if the administration is offered
// there. Where it is the address of the administration itself nothing needs to be
// offered.
func adminOffer(r db.Reader, proxy api.ID) string {
	dp, known := api.Dataplanes.Get(r, proxy)
	c, connected := api.Connections.Get(r, proxy.Key())
	if !known || !connected || c.AdminPort == 0 || c.ReadinessPort == 0 {
		return ""
	}
	if host, err := adminHost(c); err != nil || host == dp.Spec.Networking.Address {
		return ""
	}
	return dp.Spec.Networking.Address
}

type adminKey struct {
	Name    string
	Address ir.Address
	Patches word[[]ir.Patch]
}

func newAdminKey(r *incr.Run, dp *api.Object[api.Dataplane], name string, at ir.Address) adminKey {
	return adminKey{name, at, patchWord(clusterPatches(r, ownClass(r, dp), ir.OriginAdmin, name))}
}

var adminClusterBytes = incr.NewQuery("encode.admin-cluster", func(r *incr.Run, k adminKey) *wire.Resource {
	return encode(r, wire.Cluster, k.Name, envoy.Cluster, ir.Cluster{
		Name: k.Name, Origin: ir.OriginAdmin, ConnectTimeout: systemConnect, TrackRemaining: true,
		Static:  []ir.Locality{{Endpoints: []ir.Endpoint{{Address: k.Address}}}},
		Patches: k.Patches.value(),
	})
}, sameBytes)

// adminListenerBytes is nil until the proxy has its certificate. Its IR holds a key
// and is nobody's to look at, so it is not a query of its own.
var adminListenerBytes = incr.NewQuery("encode.admin-listener", func(r *incr.Run, proxy api.ID) *wire.Resource {
	c, ok := api.Connections.Get(r, proxy.Key())
	if !ok {
		return nil
	}
	if _, err := adminHost(c); err != nil {
		r.Fail(err)
		return nil
	}
	address := adminOffer(r, proxy)
	leaf, ok := api.AdminLeaves.Get(r, proxy.Key())
	if !ok || address == "" || leaf.Name != address {
		return nil
	}
	dp, ok := api.Dataplanes.Get(r, proxy)
	if !ok {
		return nil
	}
	to := func(cluster string, match ir.PathMatch) ir.Route {
		return ir.Route{Match: ir.RouteMatch{Path: match}, Forward: &ir.Forward{Backends: []ir.Backend{{Cluster: cluster}}}}
	}
	serve := func(routes ...ir.Route) *ir.HTTP {
		return &ir.HTTP{
			InternalCIDRs: []string{"127.0.0.1/32", "::1/128"},
			Routes:        &ir.RouteConfig{Origin: ir.OriginAdmin, Hosts: []ir.VirtualHost{{Name: adminName, Routes: routes}}},
		}
	}
	ready := to(readinessName, ir.PathMatch{Match: ir.Exact, Value: "/ready"})
	return encode(r, wire.Listener, adminName, envoy.Listener, ir.Listener{
		Name: adminName, Origin: ir.OriginAdmin, Direction: ir.Inbound,
		Address:   ir.Address{Host: firstAddress(r, address), Port: c.AdminPort},
		ReusePort: reusePort(r, proxy),
		Patches:   listenerPatches(r, ownClass(r, dp), ir.OriginAdmin, adminName, nil),
		Chains: []ir.Chain{
			{HTTP: serve(ready)},
			{
				Match: ir.ChainMatch{Transport: "tls"},
				TLS:   &ir.ServerTLS{Inline: &ir.Inline{Chain: leaf.Chain, Key: leaf.Key, CA: leaf.CA, Client: api.AdminClient}},
				HTTP:  serve(ready, to(adminName, ir.PathMatch{})),
			},
		},
	})
}, sameBytes)
