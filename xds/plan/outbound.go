package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
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
	Outbounds unique.Handle[string] // JSON of the Dataplane's outbounds
	Identity  string
}

// selectorKeys is the labels by which any policy of a mesh selects proxies.
// Other labels make no difference, so that proxies which differ only there (each
// has a name of its own) are one class.
var selectorKeys = incr.NewQuery("selector-keys", func(r *incr.Run, mesh string) []string {
	keys := slices.Concat(timeoutSet.Get(r, mesh).Keys(), permissionSet.Get(r, mesh).Keys(), httpRouteSet.Get(r, mesh).Keys())
	slices.Sort(keys)
	return slices.Compact(keys)
}, slices.Equal[[]string])

func classKey(r *incr.Run, dp *api.Object[api.Dataplane], w who) Class {
	outbounds, err := json.Marshal(dp.Spec.Networking.Outbound)
	if err != nil {
		r.Fail(fmt.Errorf("outbounds of %s: %w", dp.ID, err))
	}
	return Class{
		Policy:    policy.ProxyOf(&dp.Meta, selectorKeys.Get(r, dp.Mesh), nil).Class(),
		Outbounds: unique.Make(string(outbounds)),
		Identity:  w.Secret,
	}
}

// class is what all proxies of a class share: for each destination a listener,
// routes, clusters and endpoints.
var class = incr.NewQuery("class", func(r *incr.Run, k Class) *Set {
	var outbounds []api.Outbound
	if err := json.Unmarshal([]byte(k.Outbounds.Value()), &outbounds); err != nil {
		r.Fail(err)
		return newSet()
	}
	c := client{r: r, class: k, mesh: k.Policy.Proxy().Mesh, set: newSet()}
	for _, out := range outbounds {
		c.outbound(out)
	}
	return c.set
}, equalSets)

// client plans the outbounds of one class.
type client struct {
	r     *incr.Run
	class Class
	mesh  string
	set   *Set
}

func (c *client) outbound(out api.Outbound) {
	to := resolve.Get(c.r, Backend{
		Kind: out.BackendRef.Kind, Mesh: c.mesh, Name: out.BackendRef.Name,
		Labels: encodeLabels(out.BackendRef.Labels), Port: out.BackendRef.Port,
	})
	if to == (target{}) {
		return // a reference to nothing opens no listener; it appears when the service does
	}
	timeouts := outboundTimeouts(c.r, c.class.Policy, to.Port)
	key := outboundKey{Port: to.Port, Protocol: to.Protocol, Timeouts: timeouts,
		Address: ir.Address{Host: cmp.Or(out.Address, "127.0.0.1"), Port: out.Port}}
	backends := []target{to}
	if isHTTP(to.Protocol) {
		routes := httpRoutes.Get(c.r, routesKey{c.class.Policy, to})
		c.set.Routes[to.Port.Name()] = routesBytes.Ref(routes.Key)
		backends = append(backends, routes.Backends...)
		// What only the routes depend on must not make another listener.
		key.Timeouts.Request, key.Timeouts.StreamIdle = ir.Duration{}, ir.Duration{}
	}
	c.listener(key)
	for _, b := range backends {
		c.cluster(b)
	}
}

// listener adds the listener; a second one for the same port, at another
// address, has the address in its name.
func (c *client) listener(k outboundKey) {
	k.Name = k.Port.Name()
	if _, taken := c.set.Listeners[k.Name]; taken {
		k.Name = fmt.Sprintf("%s_%s_%d", k.Name, k.Address.Host, k.Address.Port)
	}
	k.Timeouts.Connect, k.Timeouts.MaxStream, k.Timeouts.MaxConnection = ir.Duration{}, ir.Duration{}, ir.Duration{}
	c.set.Listeners[k.Name] = outboundBytes.Ref(k)
}

func (c *client) cluster(to target) {
	k := clusterKey{Port: to.Port, Protocol: to.Protocol, Identity: c.class.Identity, Timeouts: outboundTimeouts(c.r, c.class.Policy, to.Port)}
	k.Timeouts.Request, k.Timeouts.StreamIdle, k.Timeouts.RequestHeaders = ir.Duration{}, ir.Duration{}, ir.Duration{}
	if _, ok := serviceTLS(c.r, k); !ok {
		return // a name that cannot be called over mTLS has no cluster: its calls fail, closed
	}
	c.set.Clusters[to.Port.Name()] = clusterBytes.Ref(k)
	c.set.Endpoints[to.Port.Name()] = endpointsBytes.Ref(endpointsKey{Port: to.Port})
}

// outboundKey is all that decides a client's listener for a port.
type outboundKey struct {
	Name     string
	Port     Port
	Protocol string
	Address  ir.Address
	Timeouts ir.Timeouts
}

var outboundListener = incr.NewQuery("outbound", func(r *incr.Run, k outboundKey) ir.Listener {
	name := k.Port.Name()
	chain := ir.Chain{}
	if isHTTP(k.Protocol) {
		chain.HTTP = &ir.HTTP{
			StatName: name, GRPC: k.Protocol == "grpc", NormalizePath: true, RouteName: name,
			InternalCIDRs: settings(r).InternalCIDRs, RequestHeadersTimeout: k.Timeouts.RequestHeaders,
		}
	} else {
		chain.TCP = &ir.TCP{StatName: name, Backends: []ir.Backend{{Cluster: name}}, IdleTimeout: k.Timeouts.Idle}
	}
	return ir.Listener{
		Name: k.Name, Origin: ir.OriginOutbound, Direction: ir.Outbound, Address: k.Address,
		Tags: map[string]string{"kuma.io/unified-name": name}, Chains: []ir.Chain{chain},
	}
}, func(a, b ir.Listener) bool { return reflect.DeepEqual(a, b) })

var outboundBytes = incr.NewQuery("encode.outbound", func(r *incr.Run, k outboundKey) *wire.Resource {
	return encode(r, wire.Listener, k.Name, envoy.Listener, outboundListener.Get(r, k))
}, sameBytes)
