// Package plan computes what each proxy gets, as queries from rows to encoded
// resources.
//
// It owns the queries and the meaning of the kinds for a proxy: which services
// it reaches, by which clusters, routes and endpoints, whom it lets in. Package
// xds holds the result of [Proxy] for each connected proxy and of each resource
// named there; inspection reads the same queries; the doors for people ask [Judge]. It never builds Envoy's
// protobufs (xds/envoy does), never writes the database, knows no stream.
//
//	Dataplane, Connection ─▶ classKey ─▶ class ─┐ names → resources
//	        │                                   ├▶ Proxy ─▶ Plan
//	        └────────▶ inbounds, ingress ───────┘
//	resources: cluster, routes(service port, what policies see) ─▶ variant(service port, effective policy)
//	           endpoints(service port, view) · listener(service port, address) · inbound(proxy, port) · secret(proxy) · bundle(mesh)
//
// # Why
//
// Proxies that differ in nothing that any rule reads are one class: what they
// may call is planned once. Clusters and routes are two queries each. One is keyed
// by what goes into it (the service port and the effective policy), so that equal
// variants are one resource, encoded once, whoever uses them. The other one, which
// classes name, is keyed by the service port and by what policies can see of the
// class, and finds the variant: a policy changes its content and not its name, so
// that neither classes nor proxies are planned again, and a policy for the mesh
// costs the services that it speaks of and not each caller of each. What depends on
// rows is two queries as well, one to the IR and one to bytes, so that nothing is
// encoded when the IR comes out equal. What policies say of one destination or one
// inbound is a query, too: there a change ends for all others.
//
// What many queries are looked up by is interned (a [Port] is one word and knows
// its name): a look-up hashes no long texts.
//
// Where the contract is left: routes of clients go over RDS, so that changing them
// drains no listener. Of two listeners with one name the second has its address in
// the name, of two with one address the first stays, where upstream lets the later
// replace the earlier. Whether a local service is called over mTLS follows from
// what its proxies do now, not from what they once did. Requests that are routed to a
// port that speaks tcp arrive there in the version of HTTP in which they were sent:
// upstream sends HTTP/2, which few applications behind such a port expect. Services
// outside of the mesh are called with what MeshTLS says, as far as the egress: it is a
// proxy like others. Who cannot prove who it is has no way there, and a server that is
// to be verified is never called without authorities to verify it by. Where its
// endpoints have several names each is asked for by its own, and their priorities are
// counted without gaps. A proxy without a readiness port, or with an administration
// that is not on loopback, is served all but the admin listener. A limit of requests
// belongs to the inbound and not to routes: callers whom other policies tell apart
// share it, and so do the callers of one rule. Limits stand before injected faults, so
// that what is refused anyway is not held. responseBandwidth is bits per second. Rules
// for a server name act at inbounds, too. A permissive inbound takes a client that says
// nothing for five seconds for a plain one, where upstream closes it. A bound of TLS
// versions beyond Envoy's other one moves that along. x-kuma-tags is taken from requests
// and never added: nothing here tells callers apart by it. Where all
// inbounds are strict, nothing is let in beside them: upstream passes in plaintext what
// is made to the port of an inbound at another address of the host. What policies let
// out is the union of what each match says: upstream lets a match for addresses hide
// those for names. Calls of services outside of the mesh are traced as well, by their callers
// and by the egress, and where the collector of a policy is not there nothing is: upstream
// leaves out the former and goes on without anybody who gets the spans.
package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// Ref is a resource's key: which resource, in which variant.
type Ref = incr.Ref[*wire.Resource]

// Names maps Envoy's names of one type to resources.
type Names map[string]Ref

// Set is names of every type. It is immutable.
type Set struct{ Clusters, Endpoints, Secrets, Listeners, Routes Names }

// Of returns the names of a type; nil for types that are not planned.
func (s *Set) Of(t wire.Type) Names {
	switch t {
	case wire.Cluster:
		return s.Clusters
	case wire.Endpoints:
		return s.Endpoints
	case wire.Secret:
		return s.Secrets
	case wire.Listener:
		return s.Listeners
	case wire.Route:
		return s.Routes
	}
	return nil
}

// Plan is what one proxy gets. Own resources win over those of the class.
type Plan struct {
	Own *Set
	// Class is shared by all proxies of the class; compare by pointer.
	Class *Set
}

// Get returns the resource of Envoy's name.
func (p *Plan) Get(t wire.Type, name string) (Ref, bool) {
	if p == nil {
		return Ref{}, false
	}
	if ref, ok := p.Own.Of(t)[name]; ok {
		return ref, true
	}
	ref, ok := p.Class.Of(t)[name]
	return ref, ok
}

// All calls yield for every name of a type, own resources first.
func (p *Plan) All(t wire.Type, yield func(name string, ref Ref) bool) {
	if p == nil {
		return
	}
	own := p.Own.Of(t)
	for name, ref := range own {
		if !yield(name, ref) {
			return
		}
	}
	for name, ref := range p.Class.Of(t) {
		if _, hidden := own[name]; !hidden && !yield(name, ref) {
			return
		}
	}
}

// ownOrigin is the origin and the tags of a resource of the proxy's own.
func ownOrigin(dp *api.Object[api.Dataplane], name string) (ir.Origin, map[string]string) {
	if origin, ok := transparentOrigin(name); ok {
		return origin, nil
	}
	if origin, ok := systemOrigin(name); ok {
		return origin, nil
	}
	switch {
	case name == dynamicName:
		return ir.OriginDynamic, nil
	case strings.HasPrefix(name, inboundPrefix):
		return ir.OriginInbound, inboundTags(dp, name)
	case strings.HasPrefix(name, egressPrefix), strings.HasPrefix(name, "kri_"+api.MeshExternalServices.Short+"_"):
		return ir.OriginEgress, nil
	case name == adminName || name == readinessName:
		return ir.OriginAdmin, nil
	}
	return ir.OriginIngress, nil
}

func newSet() *Set {
	return &Set{Clusters: Names{}, Endpoints: Names{}, Secrets: Names{}, Listeners: Names{}, Routes: Names{}}
}

// include adds the names of another set.
func (s *Set) include(other *Set) {
	for _, t := range wire.Types() {
		maps.Copy(s.Of(t), other.Of(t))
	}
}

func equalSets(a, b *Set) bool {
	return a == b || maps.Equal(a.Clusters, b.Clusters) && maps.Equal(a.Endpoints, b.Endpoints) &&
		maps.Equal(a.Secrets, b.Secrets) && maps.Equal(a.Listeners, b.Listeners) && maps.Equal(a.Routes, b.Routes)
}

// Proxy is the plan of a connected proxy; nil while its Dataplane is unknown.
var Proxy = incr.NewQuery("proxy", proxyPlan, func(a, b *Plan) bool {
	return a == b || a != nil && b != nil && a.Class == b.Class && equalSets(a.Own, b.Own)
})

func proxyPlan(r *incr.Run, id api.ID) *Plan {
	dp, ok := api.Dataplanes.Get(r, id)
	if !ok {
		return nil
	}
	own := newSet()
	who := identity.Get(r, id)
	if who.SPIFFE != "" {
		own.Secrets[who.Secret] = secretBytes.Ref(id)
		own.Secrets[bundleName] = bundleBytes.Ref(id.Mesh)
	}
	addInbounds(r, own, dp)
	addIngress(r, own, dp)
	addEgress(r, own, dp, who)
	addAdmin(r, own, dp)
	x := redirectionOf(r, dp)
	addTransparent(r, own, dp, x, who)
	addMetrics(r, own, dp)
	addDynamic(r, own, dp, x)
	structure.Get(r, ownClass(r, dp)).restructure(own, false, func(_ wire.Type, name string) (ir.Origin, map[string]string) {
		return ownOrigin(dp, name)
	})
	c := classKey(r, dp, x, who)
	addNearby(r, own, c, dp)
	return &Plan{Own: own, Class: class.Get(r, c)}
}

// Equality of resources is equality of bytes; the older pointer stays.
func sameBytes(a, b *wire.Resource) bool {
	return a == b || a != nil && b != nil && a.Version == b.Version && a.Name == b.Name
}

// settings is the control plane's own row; the zero value before it is there.
func settings(r db.Reader) api.Settings {
	if s, ok := api.SettingsTable.Get(r, ""); ok {
		return *s
	}
	return api.Settings{}
}

// encodeLabels writes labels as one comparable text, sorted; decodeLabels is
// its inverse. Label names and values hold neither newline nor '='.
func encodeLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	var room [8]string
	names := slices.AppendSeq(room[:0], maps.Keys(labels))
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(labels[name])
		b.WriteByte('\n')
	}
	return b.String()
}

func decodeLabels(text string) map[string]string {
	labels := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		labels[name] = value
	}
	return labels
}
