package plan

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// A service outside of the mesh is always called through an egress of the
// caller's zone, which is where permissions to call it are enforced:
//
//	caller ─mTLS, server name of the service─▶ egress ─as the service speaks─▶ endpoint of the service
//
// So caller and egress need an identity. Without an egress, or without an
// identity, calls fail; they never leave the mesh in another way.

// isExternal reports whether the port is of a service outside of the mesh.
func isExternal(p Port) bool { return p.Service().Kind == api.MeshExternalServices.Name }

// outsideProtocol is what the endpoints of a service outside speak.
func outsideProtocol(protocol string) ir.Protocol {
	switch protocol {
	case "http":
		return ir.HTTP1
	case "http2", "grpc":
		return ir.HTTP2
	}
	return ir.Bytes
}

// exit is the way out of the zone for a mesh: where its egresses listen, and by
// which SPIFFE IDs they prove themselves; both sorted.
type exit struct {
	Endpoints []ir.Endpoint
	IDs       []string
}

var exits = incr.NewQuery("exits", func(r *incr.Run, mesh string) exit {
	var out exit
	for dp := range api.Dataplanes.Labelled(r, mesh, map[string]string{api.LabelEgress: "enabled"}) {
		who := identity.Get(r, dp.ID)
		if isRemote(r, &dp.Meta) || isJoining(r, dp) || who.SPIFFE == "" {
			continue
		}
		for _, l := range dp.Spec.Networking.Listeners {
			if l.Type != "ZoneEgress" || !l.Ready() {
				continue
			}
			for _, ip := range addressesOf(r, l.Address) {
				out.Endpoints = append(out.Endpoints, ir.Endpoint{Address: ir.Address{Host: ip, Port: l.Port}, Weight: 1})
				out.IDs = append(out.IDs, who.SPIFFE)
			}
		}
	}
	out.Endpoints = sortEndpoints(out.Endpoints)
	slices.Sort(out.IDs)
	out.IDs = slices.Compact(out.IDs)
	return out
}, func(a, b exit) bool { return equalEndpoints(a.Endpoints, b.Endpoints) && slices.Equal(a.IDs, b.IDs) })

// exitEndpoints is how a caller reaches a service outside: by any egress.
func exitEndpoints(r *incr.Run, id api.ID) []ir.Endpoint {
	svc, ok := api.MeshExternalServices.Get(r, id)
	if !ok {
		return nil
	}
	return convert(exits.Get(r, id.Mesh).Endpoints, func(e ir.Endpoint) ir.Endpoint {
		e.Tags = svc.Labels
		return e
	})
}

// external is a service outside of the mesh as an egress tells it from others.
type external struct {
	Port          Port
	Protocol, SNI string
	Certificate   bool // it is shown one
}

// externals is the services that the egresses of this zone serve for a mesh,
// sorted by SNI. Those without endpoints, or whose TLS material is not there, are
// not served.
var externals = incr.NewQuery("externals", func(r *incr.Run, mesh string) []external {
	var out []external
	for svc := range api.MeshExternalServices.In(r, mesh) {
		sni, ok := api.SNI(api.MeshExternalServices, svc.ID, svc.Spec.Section())
		if ok && len(svc.Spec.Endpoints) > 0 && materials.Get(r, svc.ID).Complete {
			_, shown := clientCertificate(svc)
			out = append(out, external{PortOf(svc.ID, svc.Spec.Section()), protocolOf(svc.Spec.Match.Protocol), sni, shown})
		}
	}
	slices.SortFunc(out, func(a, b external) int { return cmp.Compare(a.SNI, b.SNI) })
	return out
}, slices.Equal[[]external])

// verificationOf is how an egress verifies a service that it speaks TLS to; false
// if it speaks none.
func verificationOf(svc *api.Object[api.MeshExternalService]) (api.ExternalVerification, bool) {
	t := svc.Spec.TLS
	if t == nil || !t.Enabled {
		return api.ExternalVerification{}, false
	}
	return value(t.Verification), true
}

// clientCertificate is where the certificate is that the service is shown.
func clientCertificate(svc *api.Object[api.MeshExternalService]) (v api.ExternalVerification, ok bool) {
	v, ok = verificationOf(svc)
	return v, ok && v.ClientCert != nil && v.Mode != "SkipAll"
}

// material is what a service's TLS refers to, as PEM.
type material struct {
	CA, Chain, Key string
	Complete       bool
}

// materials is the TLS material of a service. One that cannot be used leaves the
// last that could.
var materials = incr.NewQuery("materials", func(r *incr.Run, id api.ID) material {
	svc, ok := api.MeshExternalServices.Get(r, id)
	if !ok {
		return material{}
	}
	out := material{Complete: true}
	read := func(field string, from *api.RemoteDataSource) (text string) {
		text, err := bytesOf(r, id.Mesh, from)
		if err != nil {
			out.Complete = false
			r.Fail(fmt.Errorf("tls.verification.%s of %s: %w", field, id, err))
		}
		return text
	}
	if v, ok := verificationOf(svc); ok && v.CACert != nil && verifies(v) {
		out.CA = read("caCert", v.CACert)
		if out.Complete && !x509.NewCertPool().AppendCertsFromPEM([]byte(out.CA)) {
			out.Complete = false
			r.Fail(fmt.Errorf("tls.verification.caCert of %s: no certificate in PEM", id))
		}
	}
	if v, ok := clientCertificate(svc); ok {
		out.Chain, out.Key = read("clientCert", v.ClientCert), read("clientKey", v.ClientKey)
		if out.Complete {
			_, err := tls.X509KeyPair([]byte(out.Chain), []byte(out.Key))
			if out.Complete = err == nil; err != nil {
				r.Fail(fmt.Errorf("tls.verification.clientCert and clientKey of %s: %w", id, err))
			}
		}
	}
	return out
}, func(a, b material) bool { return a == b })

// bytesOf reads what a source of bytes says, or the Secret that it names.
func bytesOf(r db.Reader, mesh string, from *api.RemoteDataSource) (string, error) {
	switch {
	case from == nil:
		return "", fmt.Errorf("is missing")
	case from.InsecureInline != nil:
		return from.InsecureInline.Value, nil
	case from.SecretRef == nil:
		return "", fmt.Errorf("says neither a Secret nor bytes")
	}
	secret, ok := api.Secrets.Named(r, mesh, from.SecretRef.Name)
	if !ok {
		return "", fmt.Errorf("there is no Secret %q in mesh %q", from.SecretRef.Name, mesh)
	}
	return string(secret.Spec.Data), nil
}

// verifies reports whether it matters who signed the service's certificate.
func verifies(v api.ExternalVerification) bool { return v.Mode != "SkipCA" && v.Mode != "SkipAll" }

// outsideTLS is how an egress whose system has its authorities at the path speaks
// to a service; nil: no TLS. Endpoints with names of their own are each asked for
// by their own name, else a failover to another name would be refused there.
func outsideTLS(r *incr.Run, svc *api.Object[api.MeshExternalService], systemCA string) *ir.OutsideTLS {
	v, ok := verificationOf(svc)
	if !ok {
		return nil
	}
	checksNames := v.Mode != "SkipSAN" && v.Mode != "SkipAll"
	out := &ir.OutsideTLS{Renegotiate: svc.Spec.TLS.AllowRenegotiation, Unverified: !verifies(v)}
	var names []string
	for _, e := range svc.Spec.Endpoints {
		if !slices.Contains(names, e.Address) {
			names = append(names, e.Address)
		}
	}
	isName := func(host string) bool { _, err := netip.ParseAddr(host); return err != nil }
	if checksNames && v.ServerName != "" {
		out.SNI, names = v.ServerName, []string{v.ServerName}
	} else if i := slices.IndexFunc(names, isName); i >= 0 {
		out.SNI = names[i]
		out.OwnNames = len(names) > 1 && !slices.ContainsFunc(names, func(n string) bool { return !isName(n) })
	}
	if out.Unverified {
		checksNames = false // of a certificate that anybody may have signed
	}
	if checksNames {
		for _, n := range names {
			out.Names = append(out.Names, ir.NameMatch{Match: ir.Exact, Value: n})
		}
		for _, san := range v.SubjectAltNames {
			out.Names = append(out.Names, ir.NameMatch{Match: matchType(san.Type), Value: san.Value})
		}
	}
	if !out.Unverified {
		if out.CA = materials.Get(r, svc.ID).CA; out.CA == "" {
			out.CAPath = systemCA
		}
	}
	if _, shown := clientCertificate(svc); shown {
		out.Identity = secretName(svc.ID)
	}
	out.Params = tlsParams(api.MeshTLSConf{TLSVersion: svc.Spec.TLS.Version})
	return out
}

// secretName is Envoy's name of the certificate that a service is shown.
func secretName(id api.ID) string { return api.MeshExternalServices.KRI(id, "") }

// outsideEndpoints is where a service is. Priorities are counted without gaps, as
// Envoy wants them.
func outsideEndpoints(svc *api.Object[api.MeshExternalService]) []ir.Locality {
	groups := map[uint32]*ir.Locality{}
	var priorities []uint32
	for _, e := range svc.Spec.Endpoints {
		p := value(e.Priority)
		if groups[p] == nil {
			groups[p] = &ir.Locality{SubZone: "priority-" + strconv.Itoa(int(p))}
			priorities = append(priorities, p)
		}
		groups[p].Endpoints = append(groups[p].Endpoints, ir.Endpoint{Address: ir.Address{Host: e.Address, Port: uint32(e.Port)}, Weight: 1, Tags: svc.Labels})
	}
	slices.Sort(priorities)
	var out []ir.Locality
	for i, p := range priorities {
		groups[p].Priority = uint32(i)
		groups[p].Endpoints = sortEndpoints(groups[p].Endpoints)
		out = append(out, *groups[p])
	}
	return out
}

// egressKey is all that decides the clusters of an egress but the services.
type egressKey struct {
	Section  sectionKey   // of its first listener
	Own      policy.Class // for patches
	SystemCA string
}

// egressSet is what is behind an egress, the same for all of the zone that do not
// differ in its key.
var egressSet = incr.NewQuery("egress-set", func(r *incr.Run, k egressKey) *Set {
	s := newSet()
	for _, x := range externals.Get(r, k.Section.Class.Proxy().Mesh) {
		s.Clusters[x.Port.Name()] = egressClusterBytes.Ref(egressClusterKey{k, x})
		if x.Certificate {
			s.Secrets[secretName(x.Port.Service())] = clientSecretBytes.Ref(x.Port.Service())
		}
	}
	return s
}, equalSets)

type egressClusterKey struct {
	Egress egressKey
	To     external
}

// egressCluster is nil when the service is gone.
var egressCluster = incr.NewQuery("egress-cluster", func(r *incr.Run, k egressClusterKey) *ir.Cluster {
	svc, ok := api.MeshExternalServices.Get(r, k.To.Port.Service())
	if !ok {
		return nil
	}
	name := k.To.Port.Name()
	t := timeoutsAsked.Get(r, askedKey{k.Egress.Section, k.To.SNI}).All
	c := &ir.Cluster{
		Name: name, Origin: ir.OriginEgress, ConnectTimeout: t.Connect, Protocol: outsideProtocol(k.To.Protocol), TrackRemaining: true,
		Static: outsideEndpoints(svc), Outside: outsideTLS(r, svc, k.Egress.SystemCA),
		Patches: clusterPatches(r, k.Egress.Own, ir.OriginEgress, name),
	}
	if k.To.Protocol == "http" || k.To.Protocol == "http2" {
		c.IdleTimeout, c.MaxStream, c.MaxConnection = t.Idle, t.MaxStream, t.MaxConnection
	}
	return c
}, func(a, b *ir.Cluster) bool { return reflect.DeepEqual(a, b) })

var egressClusterBytes = clusterBytes("encode.egress-cluster", egressCluster)

// clientSecretBytes is the certificate that a service is shown.
var clientSecretBytes = incr.NewQuery("encode.client-secret", func(r *incr.Run, service api.ID) *wire.Resource {
	m := materials.Get(r, service)
	if m.Chain == "" {
		return nil
	}
	name := secretName(service)
	return encode(r, wire.Secret, name, envoy.Secret, ir.Secret{Name: name, Chain: m.Chain, Key: m.Key})
}, sameBytes)

// egressListener is nil when there is nothing to call, or nobody to be.
var egressListener = incr.NewQuery("egress-listener", func(r *incr.Run, k listenerKey) *ir.Listener {
	dp, ok := api.Dataplanes.Get(r, k.Proxy)
	if !ok || k.Index >= len(dp.Spec.Networking.Listeners) {
		return nil
	}
	who := identity.Get(r, dp.ID)
	served := externals.Get(r, dp.Mesh)
	if who.SPIFFE == "" || len(served) == 0 {
		return nil
	}
	d := dp.Spec.Networking.Listeners[k.Index]
	section := sectionOf(r, dp, d.Section())
	l := zoneListener(r, dp, d, ir.OriginEgress)
	for _, x := range served {
		l.Chains = append(l.Chains, egressChain(r, dp, section, who, x))
	}
	return l
}, func(a, b *ir.Listener) bool { return reflect.DeepEqual(a, b) })

// egressChain serves one service to those who may call it.
func egressChain(r *incr.Run, dp *api.Object[api.Dataplane], section sectionKey, egress who, to external) ir.Chain {
	name := to.Port.Name()
	logs, _ := sectionLogs(r, dp, section, name, isHTTP(to.Protocol))
	chain := ir.Chain{
		Name: name, Match: ir.ChainMatch{Transport: "tls", SNI: []string{to.SNI}},
		TLS:         &ir.ServerTLS{Identity: egress.Secret, Bundle: bundleName, Params: tlsIn.Get(r, section).Params},
		Permissions: permissionsAsking(permissionsIn.Get(r, section), to.SNI), Logs: append([]ir.AccessLog{{Path: "/dev/stdout", Denied: true}}, logs...),
	}
	limits := rateLimitsIn.Get(r, section)
	chain.Connections = limits.connections(to.SNI)
	timeouts := timeoutsAsked.Get(r, askedKey{section, to.SNI})
	all := timeouts.All
	if !isHTTP(to.Protocol) {
		chain.TCP = &ir.TCP{StatName: name, Backends: []ir.Backend{{Cluster: name}}, IdleTimeout: all.Idle, LogConnect: len(logs) > 0}
		return chain
	}
	tracing, _ := sectionTracing(r, dp, section)
	chain.HTTP = &ir.HTTP{
		Tracing:  tracing,
		StatName: name, GRPC: to.Protocol == "grpc",
		IdleTimeout: timeouts.Listener, StreamIdleTimeout: generatorTimeouts.StreamIdle, RequestHeadersTimeout: all.RequestHeaders,
		Limits: limits.Requests,
		Faults: faultsIn.Get(r, section),
		Routes: &ir.RouteConfig{
			Name: name, Origin: ir.OriginEgress, Hosts: []ir.VirtualHost{{Name: name, Routes: []ir.Route{{Forward: &ir.Forward{
				Backends: []ir.Backend{{Cluster: name}}, Rewrite: ir.Rewrite{AutoHost: true},
				Timeout: all.Request.Or(ir.Span(0)), IdleTimeout: all.StreamIdle, Peers: timeouts.Peers,
			}}}}},
		},
	}
	return chain
}

// egressNeeds is the clusters that an egress listener names beside those of what it
// serves.
var egressNeeds = incr.NewQuery("egress-needs", func(r *incr.Run, k listenerKey) systemClusters {
	dp, ok := api.Dataplanes.Get(r, k.Proxy)
	if !ok || k.Index >= len(dp.Spec.Networking.Listeners) {
		return nil
	}
	section := sectionOf(r, dp, dp.Spec.Networking.Listeners[k.Index].Section())
	_, logs := sectionLogs(r, dp, section, "", false)
	_, traces := sectionTracing(r, dp, section)
	return append(logs, traces...)
}, slices.Equal[systemClusters])

// permissionsAsking leaves out what is said of those who ask for another server
// name: none of them comes here.
func permissionsAsking(all *ir.Permissions, sni string) *ir.Permissions {
	keep := func(list []ir.Permission) []ir.Permission {
		return slices.DeleteFunc(slices.Clone(list), func(p ir.Permission) bool { return p.Peer.SNI != "" && p.Peer.SNI != sni })
	}
	return &ir.Permissions{Deny: keep(all.Deny), Allow: keep(all.Allow), AllowShadowDeny: keep(all.AllowShadowDeny)}
}

var egressListenerBytes = listenerBytes("encode.egress-listener", egressListener)

// egressOf is the key of what is behind a proxy's egress listeners; false if it has
// none.
func egressOf(r *incr.Run, dp *api.Object[api.Dataplane]) (egressKey, bool) {
	i := slices.IndexFunc(dp.Spec.Networking.Listeners, func(l api.ZoneListener) bool { return l.Type == "ZoneEgress" })
	if i < 0 {
		return egressKey{}, false
	}
	k := egressKey{Section: sectionOf(r, dp, dp.Spec.Networking.Listeners[i].Section()), Own: ownClass(r, dp)}
	if c, ok := api.Connections.Get(r, dp.ID.Key()); ok {
		k.SystemCA = c.SystemCA
	}
	return k, true
}

// addEgress adds what a zone egress serves; nothing while it has no identity.
func addEgress(r *incr.Run, own *Set, dp *api.Object[api.Dataplane], who who) {
	k, ok := egressOf(r, dp)
	if !ok || who.SPIFFE == "" {
		return
	}
	own.include(egressSet.Get(r, k))
	for i, l := range dp.Spec.Networking.Listeners {
		if l.Type == "ZoneEgress" {
			own.Listeners[zoneListenerName(l)] = egressListenerBytes.Ref(listenerKey{dp.ID, i})
			if recordsWanted.Get(r, dp.Mesh) {
				egressNeeds.Get(r, listenerKey{dp.ID, i}).enter(r, ownClass(r, dp), own)
			}
		}
	}
}
