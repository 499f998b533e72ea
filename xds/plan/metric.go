package plan

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// Metrics are gathered by the program next to Envoy, of Envoy and of the
// applications. It gives them out on a socket, which only Envoy can reach, and
// sends them to collectors:
//
//	Prometheus ─▶ <address of the Dataplane>:5670 ─▶ socket ─▶ program ─┬▶ administration of Envoy
//	collector  ◀─ pipe, or a socket of Envoy's    ◀────────────┘        └▶ applications
//
// What it gathers, and how often it sends, it is told as it runs.

const (
	metricsPrefix    = "system_meshmetric_"
	prometheusPrefix = metricsPrefix + "prometheus_"
	pushPrefix       = metricsPrefix + "otel_"
	// defaultClient stands for a backend that is for every Prometheus.
	defaultClient = "default-backend"
)

var metricSet = newPolicySet("metrics", api.MeshMetrics, func(s *api.MeshMetric) *api.TargetRef { return s.TargetRef })

func metricConf(s *api.MeshMetric) api.MeshMetricConf { return s.Default }

// metricsFor is whose metrics a class of proxies gives out, and to whom.
var metricsFor = newOwnPolicy("metrics-for", metricSet, metricConf, func(rule policy.Rule[api.MeshMetricConf]) api.MeshMetricConf {
	return rule.Conf
})

// metricPort is a port that a proxy opens for Prometheus.
type metricPort struct {
	Name  string // of the listener and its cluster
	Port  uint32
	TLS   bool
	Paths []string
}

// metricPortsOf are those of a class. Backends that say the same port share it, with
// the name of the first: that of which Prometheus they are is for discovery alone.
// It has TLS if one of them wants that.
var metricPortsOf = incr.NewQuery("metric-ports", func(r *incr.Run, c policy.Class) (out []metricPort) {
	for _, b := range metricsFor.Get(r, c).Backends {
		p := b.Prometheus
		if p == nil {
			continue
		}
		i := slices.IndexFunc(out, func(have metricPort) bool { return have.Port == p.Port })
		if i < 0 {
			name := prometheusPrefix + cmp.Or(p.ClientID, defaultClient)
			if slices.ContainsFunc(out, func(have metricPort) bool { return have.Name == name }) {
				name += fmt.Sprintf("_%d", p.Port)
			}
			i, out = len(out), append(out, metricPort{Name: name, Port: p.Port})
		}
		out[i].TLS = out[i].TLS || p.TLS != nil && p.TLS.Mode == "ProvidedTLS"
		if !slices.Contains(out[i].Paths, p.Path) {
			out[i].Paths = append(out[i].Paths, p.Path)
		}
	}
	return out
}, func(a, b []metricPort) bool { return reflect.DeepEqual(a, b) })

// metricNamesOf is what of the ports decides which listeners there are.
var metricNamesOf = incr.NewQuery("metric-names", func(r *incr.Run, c policy.Class) []string {
	return convert(metricPortsOf.Get(r, c), func(p metricPort) string { return p.Name })
}, slices.Equal[[]string])

// metricListenerKey is a listener for Prometheus at one proxy.
type metricListenerKey struct {
	Class     policy.Class
	Name      string
	Address   string
	ReusePort ir.Switch
	Files     ir.Files // zero: nothing is there to serve TLS with
}

// addMetrics adds what metrics are given out by.
func addMetrics(r *incr.Run, own *Set, dp *api.Object[api.Dataplane]) {
	class := ownClass(r, dp)
	names, pushes := metricNamesOf.Get(r, class), metricPushesOf.Get(r, class)
	if len(names) == 0 && len(pushes) == 0 {
		return
	}
	c := metricConnection(r, dp)
	socket := bootstrap.MetricsSocketName
	if !c.InWorkDir {
		if c.WorkDir == "" {
			return // nobody is there
		}
		socket = bootstrap.MetricsSocket(c.WorkDir, dp.Core, dp.Mesh)
	}
	for _, name := range names {
		own.Listeners[name] = metricListenerBytes.Ref(metricListenerKeyOf(r, dp, class, c, name))
		systemClusters{wordOf(metricCluster(name, socket))}.enter(r, class, own)
	}
	if c.OTLP {
		return
	}
	for _, p := range pushes {
		k, cluster := pushWay(r, dp, class, c, p)
		if k.Name == "" {
			continue
		}
		own.Listeners[k.Name] = pushListenerBytes.Ref(k)
		systemClusters{wordOf(cluster)}.enter(r, class, own)
	}
}

// metricConnection is what a proxy says of itself; one that is away has the program
// of this project beside it.
func metricConnection(r *incr.Run, dp *api.Object[api.Dataplane]) *api.Connection {
	if c, ok := api.Connections.Get(r, dp.ID.Key()); ok {
		return c
	}
	return &api.Connection{InWorkDir: true, OTLP: true}
}

func metricListenerKeyOf(r *incr.Run, dp *api.Object[api.Dataplane], class policy.Class, c *api.Connection, name string) metricListenerKey {
	k := metricListenerKey{Class: class, Name: name, Address: firstAddress(r, dp.Spec.Networking.Address), ReusePort: ir.SwitchOf(c.ReusePort)}
	if c.MetricsCert != "" && c.MetricsKey != "" {
		k.Files = ir.Files{Chain: c.MetricsCert, Key: c.MetricsKey}
	}
	return k
}

// metricCluster is the program next to a proxy.
func metricCluster(name, socket string) ir.Cluster {
	return ir.Cluster{
		Name: name, Origin: ir.OriginPrometheus, ConnectTimeout: systemConnect,
		Static: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Pipe: socket}}}}},
	}
}

// metricListener is nil for a port that is not wanted any more.
var metricListener = incr.NewQuery("metric-listener", func(r *incr.Run, k metricListenerKey) *ir.Listener {
	ports := metricPortsOf.Get(r, k.Class)
	i := slices.IndexFunc(ports, func(p metricPort) bool { return p.Name == k.Name })
	if i < 0 {
		return nil
	}
	port := ports[i]
	chain := ir.Chain{HTTP: &ir.HTTP{
		InternalCIDRs: settings(r).InternalCIDRs,
		Routes:        &ir.RouteConfig{Origin: ir.OriginPrometheus, Hosts: []ir.VirtualHost{{Name: k.Name}}},
	}}
	host := &chain.HTTP.Routes.Hosts[0]
	for _, path := range port.Paths {
		path = "/" + strings.Trim(path, "/")
		host.Routes = append(host.Routes, ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Match: ir.Prefix, Value: path}}, Forward: &ir.Forward{
			Backends: []ir.Backend{{Cluster: k.Name}},
			Rewrite:  ir.Rewrite{Path: ir.PathRewrite{Kind: ir.ReplacePrefix, Value: bootstrap.MetricsPath}},
		}})
	}
	if port.TLS && k.Files != (ir.Files{}) {
		chain.TLS = &ir.ServerTLS{Files: &k.Files}
	}
	return &ir.Listener{
		Name: k.Name, Origin: ir.OriginPrometheus, Direction: ir.Inbound,
		Address: ir.Address{Host: k.Address, Port: port.Port}, ReusePort: k.ReusePort, Chains: []ir.Chain{chain},
		Patches: listenerPatches(r, k.Class, ir.OriginPrometheus, k.Name, nil),
	}
}, func(a, b *ir.Listener) bool { return reflect.DeepEqual(a, b) })

var metricListenerBytes = incr.NewQuery("encode.metric-listener", func(r *incr.Run, k metricListenerKey) *wire.Resource {
	l := metricListener.Get(r, k)
	if l == nil {
		return nil
	}
	return encode(r, wire.Listener, l.Name, envoy.Listener, *l)
}, sameBytes)

// metricPush is a collector that metrics are sent to.
type metricPush struct {
	To       collector
	Interval api.Duration
}

// metricPushesOf are those of a class. Of two to one collector the first stays.
var metricPushesOf = incr.NewQuery("metric-pushes", func(r *incr.Run, c policy.Class) (out []metricPush) {
	for _, b := range metricsFor.Get(r, c).Backends {
		if b.OpenTelemetry == nil {
			continue
		}
		to := collectors.Get(r, collectorRef(c.Proxy().Mesh, b.OpenTelemetry.BackendRef, b.OpenTelemetry.Endpoint))
		if to.Name != "" && !slices.ContainsFunc(out, func(have metricPush) bool { return have.To.Name == to.Name }) {
			out = append(out, metricPush{to, b.OpenTelemetry.RefreshInterval})
		}
	}
	return out
}, slices.Equal[[]metricPush])

// pushKey is a socket on which Envoy takes metrics for a collector.
type pushKey struct {
	Class      policy.Class
	Name, Pipe string
}

// pushWay is how a proxy sends metrics where the program next to it does not reach
// collectors itself: by Envoy, which passes on what it sends. That is OTLP over
// gRPC, so that collectors which take HTTP alone are left out.
func pushWay(r *incr.Run, dp *api.Object[api.Dataplane], class policy.Class, c *api.Connection, p metricPush) (pushKey, ir.Cluster) {
	if p.To.HTTP {
		return pushKey{}, ir.Cluster{}
	}
	name := pushPrefix + p.To.Name
	host := cmp.Or(p.To.Host, c.HostIP, "127.0.0.1")
	return pushKey{class, name, bootstrap.PushSocket(pushDir(c), p.To.Name)}, outside(name, ir.OriginOpenTelemetry, host, p.To.Port)
}

func pushDir(c *api.Connection) string {
	if c.InWorkDir {
		return ""
	}
	return c.WorkDir
}

func pushListener(r *incr.Run, k pushKey) ir.Listener {
	return ir.Listener{
		Name: k.Name, Origin: ir.OriginOpenTelemetry, Address: ir.Address{Pipe: k.Pipe}, Chains: through(k.Name),
		Patches: listenerPatches(r, k.Class, ir.OriginOpenTelemetry, k.Name, nil),
	}
}

var pushListenerBytes = incr.NewQuery("encode.push-listener", func(r *incr.Run, k pushKey) *wire.Resource {
	return encode(r, wire.Listener, k.Name, envoy.Listener, pushListener(r, k))
}, sameBytes)

// metricsOrigin is the origin of a resource by its name, if it is one of these.
func metricsOrigin(name string) (ir.Origin, bool) {
	switch {
	case strings.HasPrefix(name, prometheusPrefix):
		return ir.OriginPrometheus, true
	case strings.HasPrefix(name, pushPrefix):
		return ir.OriginOpenTelemetry, true
	}
	return "", false
}

// metricsKey is what the program next to a proxy is told about metrics; the zero
// key: nothing. Proxies of one workload are told the same.
type metricsKey struct {
	Class          policy.Class
	Role, Workload string
	Dir            string // the work directory; "": Envoy runs in it
	// Pipe: the program takes what is for collectors. Told: it is told elsewhere
	// which of them get metrics.
	Pipe, Told bool
}

func metricsKeyOf(r *incr.Run, dp *api.Object[api.Dataplane], c *api.Connection) (k metricsKey) {
	class := ownClass(r, dp)
	if len(metricNamesOf.Get(r, class)) == 0 && len(metricPushesOf.Get(r, class)) == 0 {
		return k
	}
	return metricsKey{
		Class: class, Role: metricsRole(dp), Workload: dp.Labels[api.LabelWorkload], Dir: pushDir(c),
		Pipe: c.OTLP, Told: c.OTLP && !c.InWorkDir,
	}
}

// Roles of proxies, as their metrics say them.
const (
	roleSidecar   = "sidecar"
	roleGateway   = "gateway"
	roleIngress   = "zone-ingress"
	roleEgress    = "zone-egress"
	roleZoneProxy = "zone-proxy"
)

func metricsRole(dp *api.Object[api.Dataplane]) string {
	n := dp.Spec.Networking
	is := func(sort string) bool {
		return slices.ContainsFunc(n.Listeners, func(l api.ZoneListener) bool { return l.Type == sort })
	}
	switch {
	case n.Gateway != nil:
		return roleGateway
	case len(n.Listeners) == 0 || len(n.Inbound) > 0:
		return roleSidecar
	case is("ZoneIngress") && is("ZoneEgress"):
		return roleZoneProxy
	case is("ZoneIngress"):
		return roleIngress
	}
	return roleEgress
}

var metricsConfig = incr.NewQuery("metrics-config", func(r *incr.Run, k metricsKey) (out bootstrap.MetricsDocument) {
	conf := metricsFor.Get(r, k.Class)
	m := &out.Observability.Metrics
	m.Sidecar = conf.Sidecar
	m.ExtraLabels = map[string]string{"mesh": k.Class.Proxy().Mesh, "kuma.proxy_role": k.Role}
	if zone := settings(r).Site.Zone; zone != "" {
		m.ExtraLabels["zone"] = zone
	}
	if k.Workload != "" {
		m.ExtraLabels["kuma.workload"] = k.Workload
	}
	if k.Role == roleSidecar || k.Role == roleGateway { // zone proxies have no application
		for _, a := range conf.Applications {
			m.Applications = append(m.Applications, bootstrap.MetricsApplication(a))
		}
	}
	for _, b := range conf.Backends {
		if b.Prometheus != nil {
			m.Backends = append(m.Backends, bootstrap.MetricsBackend{Type: b.Type, Name: cmp.Or(b.Prometheus.ClientID, defaultClient)})
		}
	}
	for _, p := range metricPushesOf.Get(r, k.Class) {
		socket := bootstrap.PushSocket(k.Dir, p.To.Name)
		switch {
		case k.Told || !k.Pipe && p.To.HTTP:
			continue
		case k.Pipe:
			socket = bootstrap.CollectorSocket(k.Dir, p.To.Name)
		}
		m.Backends = append(m.Backends, bootstrap.MetricsBackend{
			Type: "OpenTelemetry", Name: p.To.Name, OpenTelemetry: &bootstrap.MetricsCollector{Endpoint: socket, RefreshInterval: p.Interval},
		})
	}
	return out
}, func(a, b bootstrap.MetricsDocument) bool { return reflect.DeepEqual(a, b) })
