package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// The program next to Envoy is told through Envoy what it has to know: a listener
// at a socket of the work directory answers with it. Proxies that are told the
// same share the listener, where the socket can have one name for all.

const dynamicName = "system_dynamicconfig"

// dynamicKey is all that decides the listener, and in what form. Each part that is
// told is a key of the query that makes it; the zero key: it is not told.
type dynamicKey struct {
	Pipe       string
	Own        policy.Class // for patches
	DNS        dnsKey
	Collectors collectorsKey
	Metrics    metricsKey
}

// addDynamic names the listener for a proxy that has a work directory. There is
// none as long as nothing is to be told.
func addDynamic(r *incr.Run, own *Set, dp *api.Object[api.Dataplane], x redirection) {
	if k, ok := dynamicOf(r, dp, x); ok {
		own.Listeners[dynamicName] = dynamicBytes.Ref(k)
	}
}

func dynamicOf(r *incr.Run, dp *api.Object[api.Dataplane], x redirection) (k dynamicKey, ok bool) {
	c, ok := api.Connections.Get(r, dp.ID.Key())
	if !ok || c.WorkDir == "" && !c.InWorkDir {
		return k, false
	}
	k = dynamicKey{Pipe: bootstrap.DynamicSocketName, Own: ownClass(r, dp)}
	if !c.InWorkDir {
		k.Pipe = bootstrap.DynamicSocket(c.WorkDir)
	}
	if x.DNS && x.Outbound != 0 && !x.Bound {
		v := virtualOf(r, dp, x)
		k.DNS = dnsKey{Mesh: dp.Mesh, Limited: v.Limited, Refs: v.Refs, IPv6: x.IPv6}
		if !c.InWorkDir { // else nobody asks for them, and proxies of all workloads share
			k.DNS.Labels = encodeLabels(map[string]string{
				"kuma_workload": api.WorkloadOf(dp), "k8s_kuma_io_namespace": dp.Labels[api.LabelNamespace],
				"mesh": dp.Mesh, "kuma_io_zone": settings(r).Site.Zone,
			})
		}
	}
	if c.OTLP {
		k.Collectors = collectorsKey{Mesh: dp.Mesh}
		if !c.InWorkDir {
			k.Collectors.Dir, k.Collectors.Host = c.WorkDir, cmp.Or(c.HostIP, "127.0.0.1")
		}
	}
	k.Metrics = metricsKeyOf(r, dp, c)
	if k.Metrics.Told {
		k.Collectors.Metrics = k.Metrics.Class
	}
	return k, true
}

// dynamic is nil while there is nothing to tell.
var dynamic = incr.NewQuery("dynamic", func(r *incr.Run, k dynamicKey) *ir.Listener {
	var routes []ir.Route
	tell := func(path string, config any) {
		body, err := json.Marshal(config)
		if err != nil {
			r.Fail(fmt.Errorf("what proxies are told at %s: %w", path, err))
			return
		}
		sum := sha256.Sum256(body)
		tag := hex.EncodeToString(sum[:])
		name, match := dynamicName+"_"+path[1:], ir.PathMatch{Match: ir.Exact, Value: path}
		routes = append(routes, ir.Route{
			Name:    name + "_not_modified",
			Match:   ir.RouteMatch{Path: match, Headers: []ir.HeaderMatch{{Name: "if-none-match", Match: ir.Exact, Value: tag}}},
			Respond: &ir.Respond{Status: 304},
		}, ir.Route{
			Name:            name,
			Match:           ir.RouteMatch{Path: match},
			ResponseHeaders: ir.HeaderChange{Set: []ir.Header{{Name: "etag", Value: tag}}},
			Respond:         &ir.Respond{Status: 200, Body: string(body)},
		})
	}
	if k.DNS.Mesh != "" {
		tell(bootstrap.DNSPath, dnsConfig.Get(r, k.DNS))
	}
	if k.Collectors.Mesh != "" {
		if config := collectorConfig.Get(r, k.Collectors); len(config.Backends) > 0 {
			tell(bootstrap.CollectorPath, config)
		}
	}
	if k.Metrics != (metricsKey{}) {
		tell(bootstrap.MetricsPath, metricsConfig.Get(r, k.Metrics))
	}
	if len(routes) == 0 {
		return nil
	}
	return &ir.Listener{
		Name: dynamicName, Origin: ir.OriginDynamic, Address: ir.Address{Pipe: k.Pipe},
		Chains: []ir.Chain{{HTTP: &ir.HTTP{
			InternalCIDRs: settings(r).InternalCIDRs,
			Routes:        &ir.RouteConfig{Origin: ir.OriginDynamic, Hosts: []ir.VirtualHost{{Name: dynamicName, Routes: routes}}},
		}}},
		Patches: listenerPatches(r, k.Own, ir.OriginDynamic, dynamicName, nil),
	}
}, func(a, b *ir.Listener) bool { return reflect.DeepEqual(a, b) })

var dynamicBytes = listenerBytes("encode.dynamic", dynamic)

// dnsKey is whose names a proxy answers.
type dnsKey struct {
	Mesh    string
	Limited bool // to Refs, see [virtual]
	Refs    unique.Handle[string]
	IPv6    bool
	Labels  string // encoded
}

// dnsTTL is how long an answer may be remembered, in seconds. A virtual address
// stays with its service, and what is remembered longer than a service lives leads
// nowhere.
const dnsTTL = 30

var dnsConfig = incr.NewQuery("dns-config", func(r *incr.Run, k dnsKey) bootstrap.DNSConfig {
	out := bootstrap.DNSConfig{Records: []bootstrap.DNSRecord{}, TTL: dnsTTL}
	if k.Labels != "" {
		out.ExtraLabels = decodeLabels(k.Labels)
	}
	done := map[api.ID]bool{}
	virtual{Limited: k.Limited, Refs: k.Refs}.reachable(r, k.Mesh, func(service api.ID, _ uint32) {
		if done[service] {
			return
		}
		done[service] = true
		said := namesOf.Get(r, service)
		ips := said.Addresses
		if k.IPv6 {
			ips = slices.Concat(ips, said.Mapped)
		}
		for _, name := range said.Names {
			out.Records = append(out.Records, bootstrap.DNSRecord{Name: name, IPs: ips})
		}
	})
	slices.SortFunc(out.Records, func(a, b bootstrap.DNSRecord) int { return cmp.Compare(a.Name, b.Name) })
	// A name belongs to one service of a mesh.
	out.Records = slices.CompactFunc(out.Records, func(a, b bootstrap.DNSRecord) bool { return a.Name == b.Name })
	return out
}, func(a, b bootstrap.DNSConfig) bool { return reflect.DeepEqual(a, b) })

// serviceNames is by which names a service is called, and where they lead. Mapped
// are IPv4 addresses written as IPv6, for applications that ask for these alone.
type serviceNames struct{ Names, Addresses, Mapped []string }

// namesOf is empty for a service without ports or without addresses: nothing
// listens for it.
var namesOf = incr.NewQuery("names-of", func(r *incr.Run, id api.ID) (out serviceNames) {
	said, ok := api.Hostnames.Get(r, id.String())
	if !ok || len(portsOf.Get(r, id).Ports) == 0 {
		return out
	}
	out.Addresses = slices.Clone(api.VIPs(r, id))
	if len(out.Addresses) == 0 {
		return serviceNames{}
	}
	for _, address := range out.Addresses {
		if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
			b := ip.As4()
			out.Mapped = append(out.Mapped, fmt.Sprintf("::ffff:%x:%x", int(b[0])<<8|int(b[1]), int(b[2])<<8|int(b[3])))
		}
	}
	for _, one := range said.Addresses {
		out.Names = append(out.Names, one.Hostname)
	}
	return out
}, func(a, b serviceNames) bool { return reflect.DeepEqual(a, b) })

// collectorsKey is a mesh, and where proxies take what is for its collectors: all
// that policies of the mesh name, whomever they select, so that proxies share.
type collectorsKey struct {
	Mesh string
	Dir  string // the work directory; "": Envoy runs in it
	Host string // of collectors without one; "": the program knows it
	// Metrics are sent as policies for this class say; zero: the program is told
	// elsewhere, see [metricsKey].
	Metrics policy.Class
}

var collectorConfig = incr.NewQuery("collector-config", func(r *incr.Run, k collectorsKey) (out bootstrap.CollectorConfig) {
	for _, use := range collectorsUsed.Get(r, k.Mesh) {
		c := collectors.Get(r, use.Key)
		if c.Name == "" {
			continue
		}
		i, found := slices.BinarySearchFunc(out.Backends, c.Name, func(b bootstrap.CollectorBackend, name string) int { return cmp.Compare(b.Name, name) })
		if !found {
			out.Backends = slices.Insert(out.Backends, i, bootstrap.CollectorBackend{
				Name: c.Name, SocketPath: bootstrap.CollectorSocket(k.Dir, c.Name),
				Endpoint: net.JoinHostPort(cmp.Or(c.Host, k.Host), strconv.Itoa(int(c.Port))),
				UseHTTP:  c.HTTP, UseHTTPS: c.https(), Path: c.Path, Env: bootstrap.CollectorPolicy(c.Env),
			})
		}
		on := &bootstrap.CollectorSignal{Enabled: true}
		switch use.Signal {
		case signalLogs:
			out.Backends[i].Logs = on
		case signalTraces:
			out.Backends[i].Traces = on
		case signalMetrics:
			if k.Metrics == (policy.Class{}) {
				out.Backends[i].Metrics = on
			} else if at := slices.IndexFunc(metricPushesOf.Get(r, k.Metrics), func(p metricPush) bool { return p.To.Name == c.Name }); at >= 0 {
				on.RefreshInterval = metricPushesOf.Get(r, k.Metrics)[at].Interval
				out.Backends[i].Metrics = on
			}
		}
	}
	return out
}, func(a, b bootstrap.CollectorConfig) bool { return reflect.DeepEqual(a, b) })

// collectorUse is a collector that policies of a mesh send a signal to.
type collectorUse struct {
	Key    collectorKey
	Signal string
}

// collectorsUsed lists them, each once.
var collectorsUsed = incr.NewQuery("collectors-used", func(r *incr.Run, mesh string) (out []collectorUse) {
	add := func(signal string, ref *api.TelemetryRef, endpoint string) {
		if use := (collectorUse{collectorRef(mesh, ref, endpoint), signal}); !slices.Contains(out, use) {
			out = append(out, use)
		}
	}
	eachLogBackend(r, mesh, func(b api.AccessLogBackend) {
		if o := b.OpenTelemetry; o != nil {
			add(signalLogs, o.BackendRef, o.Endpoint)
		}
	})
	for p := range api.MeshTraces.In(r, mesh) {
		for _, b := range p.Spec.Default.Backends {
			if o := b.OpenTelemetry; o != nil {
				add(signalTraces, o.BackendRef, o.Endpoint)
			}
		}
	}
	for p := range api.MeshMetrics.In(r, mesh) {
		for _, b := range p.Spec.Default.Backends {
			if o := b.OpenTelemetry; o != nil {
				add(signalMetrics, o.BackendRef, o.Endpoint)
			}
		}
	}
	return out
}, slices.Equal[[]collectorUse])

// eachLogBackend calls f for each backend of each MeshAccessLog of a mesh.
func eachLogBackend(r db.Reader, mesh string, f func(api.AccessLogBackend)) {
	for p := range api.MeshAccessLogs.In(r, mesh) {
		for _, to := range p.Spec.To {
			for _, b := range to.Default.Backends {
				f(b)
			}
		}
		for _, rule := range p.Spec.Rules {
			for _, b := range rule.Default.Backends {
				f(b)
			}
		}
	}
}
