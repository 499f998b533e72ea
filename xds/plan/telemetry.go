package plan

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// What proxies tell others of what they do goes by ways that differ from proxy to
// proxy: the work directory has pipes and sockets, and tracers need the name of
// the workload. So that 1,000 proxies of one class go on sharing listeners, a
// class knows of its ways only what policies in force need, and paths are relative
// where Envoy runs in its work directory.

// ways is how telemetry leaves the proxies of a class.
type ways struct {
	Lines    string // the pipe for lines that shall go over TCP; "": nobody would read it
	Dir      string // the work directory; "": Envoy runs in it
	OTLP     bool   // the program next to Envoy takes OTLP, in sockets of Dir
	Host     string // where collectors of the node are, for Envoys that send themselves
	CA       string // who is trusted there, as well
	Workload string
}

// Whether policies of a mesh make use of the ways for lines, and of those for
// records. They are two queries, so that who needs one does not hear of the other.
var (
	linesWanted = telemetryWanted("lines-wanted", func(b *api.AccessLogBackend) bool { return b.TCP != nil })
	// recordsWanted is about all that needs the name of the workload.
	recordsWanted = telemetryWanted("records-wanted", func(b *api.AccessLogBackend) bool { return b.OpenTelemetry != nil }, func(r *incr.Run, mesh string) bool {
		for p := range api.MeshTraces.In(r, mesh) {
			if len(p.Spec.Default.Backends) > 0 {
				return true
			}
		}
		return false
	})
)

func telemetryWanted(name string, log func(*api.AccessLogBackend) bool, others ...func(*incr.Run, string) bool) *incr.Query[string, bool] {
	return incr.NewQuery(name, func(r *incr.Run, mesh string) (is bool) {
		eachLogBackend(r, mesh, func(b api.AccessLogBackend) { is = is || log(&b) })
		return is || slices.ContainsFunc(others, func(wanted func(*incr.Run, string) bool) bool { return wanted(r, mesh) })
	}, func(a, b bool) bool { return a == b })
}

// waysOf is the ways of a proxy. Without a connection, that is for who looks at a
// proxy that is away, it has the program of this project beside it.
func waysOf(r *incr.Run, dp *api.Object[api.Dataplane]) ways {
	c, ok := api.Connections.Get(r, dp.ID.Key())
	if !ok {
		c = &api.Connection{InWorkDir: true, OTLP: true}
	}
	records := recordsWanted.Get(r, dp.Mesh)
	w := ways{Lines: bootstrap.AccessLogPipe, OTLP: c.OTLP}
	if !c.InWorkDir {
		w = ways{}
		if c.LogPipe && linesWanted.Get(r, dp.Mesh) {
			w.Lines = bootstrap.AccessLogSocket(c.WorkDir, dp.Core, dp.Mesh)
		}
		if records {
			w.OTLP, w.Dir = c.OTLP, c.WorkDir
		}
	}
	if records {
		w.Workload, w.CA = api.WorkloadOf(dp), c.SystemCA
		if !w.OTLP {
			w.Dir, w.Host = "", cmp.Or(c.HostIP, "127.0.0.1")
		}
	}
	return w
}

// collectorKey is a collector as a policy names it: by the labels of a
// MeshOpenTelemetryBackend, or, in the older form, by its address.
type collectorKey struct{ Mesh, Labels, Endpoint string }

func collectorRef(mesh string, ref *api.TelemetryRef, endpoint string) collectorKey {
	if ref == nil {
		return collectorKey{Mesh: mesh, Endpoint: endpoint}
	}
	return collectorKey{Mesh: mesh, Labels: encodeLabels(ref.Labels)}
}

// collector is who takes OTLP.
type collector struct {
	Name string // for sockets and clusters; "": there is none
	HTTP bool   // else gRPC
	Host string // "": the node of the proxy
	Port uint32
	Path string // before /v1/…
	Env  collectorEnv
}

func (c collector) https() bool { return c.HTTP && c.Port == 443 }

// collectorEnv is what the environment of the proxy may decide.
type collectorEnv struct {
	Mode, Precedence     string
	AllowSignalOverrides bool
}

// collectors finds them. Without labels none is meant.
var collectors = incr.NewQuery("collector", func(r *incr.Run, k collectorKey) collector {
	c := collector{Port: 4317, Env: collectorEnv{"Optional", "EnvFirst", true}}
	if k.Endpoint != "" {
		host, port, err := net.SplitHostPort(k.Endpoint)
		if n, bad := strconv.ParseUint(port, 10, 16); err == nil && bad == nil {
			c.Host, c.Port = host, uint32(n)
		} else {
			c.Host = k.Endpoint
		}
		c.Name, c.Env.Mode = cleanName(k.Endpoint), "Disabled"
		return c
	}
	if k.Labels == "" {
		return collector{}
	}
	b, ok := (api.TelemetryRef{Labels: decodeLabels(k.Labels)}).Find(r, k.Mesh)
	if !ok {
		return collector{}
	}
	c.Name, c.HTTP = cleanName(b.Core), b.Spec.Protocol == "http"
	if e := b.Spec.Endpoint; e != nil {
		c.Host, c.Path = value(e.Address), e.Path
		c.Port = cmp.Or(uint32(e.Port), c.Port)
	}
	if e := b.Spec.Env; e != nil {
		c.Env = collectorEnv{cmp.Or(e.Mode, c.Env.Mode), cmp.Or(e.Precedence, c.Env.Precedence), e.AllowSignalOverrides == nil || *e.AllowSignalOverrides}
	}
	return c
}, func(a, b collector) bool { return a == b })

// cleanName is text as part of the name of something of the system.
func cleanName(text string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, text)
}

// Signals, as paths of OpenTelemetry call them.
const (
	signalLogs    = "logs"
	signalTraces  = "traces"
	signalMetrics = "metrics"
)

// send is how Envoys reach a collector with a signal, and by which cluster, whose
// name begins with prefix.
func (w ways) send(to collector, prefix, signal string, origin ir.Origin) (ir.Collector, ir.Cluster) {
	name := prefix + "otel_" + to.Name
	if w.OTLP {
		return ir.Collector{Cluster: name}, ir.Cluster{
			Name: name, Origin: origin, ConnectTimeout: systemConnect, Protocol: ir.HTTP2,
			Static: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Pipe: bootstrap.CollectorSocket(w.Dir, to.Name)}}}}},
		}
	}
	host := cmp.Or(to.Host, w.Host)
	at := net.JoinHostPort(host, strconv.Itoa(int(to.Port)))
	out, c := ir.Collector{}, outside(prefix+cleanName(at), origin, host, to.Port)
	c.Protocol = ir.HTTP2
	if to.HTTP {
		scheme := "http"
		if c.Protocol = ir.HTTP1; to.https() {
			scheme = "https"
			c.Outside = w.outsideTLS(host)
		}
		out.URL = (&url.URL{Scheme: scheme, Host: at, Path: path.Join("/", to.Path, "v1", signal)}).String()
	}
	out.Cluster = c.Name
	return out, c
}

// outsideTLS is how a host is spoken to that is to prove its name, where it is known
// who may vouch for it.
func (w ways) outsideTLS(host string) *ir.OutsideTLS {
	out := &ir.OutsideTLS{CAPath: w.CA, Unverified: w.CA == ""}
	if w.CA != "" {
		out.Names = []ir.NameMatch{{Match: ir.Exact, Value: host}}
	}
	if _, err := netip.ParseAddr(host); err != nil {
		out.SNI = host
	}
	return out
}

// outside is a cluster of one host, which may be a name.
func outside(name string, origin ir.Origin, host string, port uint32) ir.Cluster {
	return ir.Cluster{
		Name: name, Origin: origin, ConnectTimeout: systemConnect,
		Static: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Host: host, Port: port}}}}},
	}
}

// systemClusters are clusters that listeners of a proxy name beside those of
// services: for collectors.
type systemClusters []word[ir.Cluster]

func (s *systemClusters) add(c ir.Cluster) {
	if w := wordOf(c); !slices.Contains(*s, w) {
		*s = append(*s, w)
	}
}

// enter names them in the set of proxies that patches see as the class. Of two
// with one name the first stays.
func (s systemClusters) enter(r *incr.Run, class policy.Class, set *Set) {
	for _, w := range s {
		c := w.value()
		if _, taken := set.Clusters[c.Name]; taken {
			continue
		}
		if c.Patches = clusterPatches(r, class, c.Origin, c.Name); len(c.Patches) > 0 {
			w = wordOf(c)
		}
		set.Clusters[c.Name] = systemClusterBytes.Ref(w)
	}
}

// logPrefix begins the names of the clusters of collectors for logs.
const logPrefix = "system_meshaccesslog_"

// systemOrigin is the origin of a cluster of [systemClusters].
func systemOrigin(name string) (o ir.Origin, ok bool) {
	switch {
	case strings.HasPrefix(name, logPrefix):
		return ir.OriginLog, true
	case strings.HasPrefix(name, tracePrefix):
		return ir.OriginTrace, true
	}
	return metricsOrigin(name)
}

var systemClusterBytes = incr.NewQuery("encode.system-cluster", func(r *incr.Run, k word[ir.Cluster]) *wire.Resource {
	c := k.value()
	return encode(r, wire.Cluster, c.Name, envoy.Cluster, c)
}, sameBytes)

// resource is what records of a proxy say of their origin.
func (w ways) resource(r *incr.Run, mesh string) []ir.LogField {
	site := settings(r).Site
	return []ir.LogField{
		{Key: "kuma.mesh", Value: mesh}, {Key: "kuma.workload", Value: workloadKRI(mesh, site, w.Workload)}, {Key: "kuma.zone", Value: site.Zone},
		{Key: serviceNameKey, Value: w.Workload},
	}
}

// serviceNameKey is https://opentelemetry.io/docs/specs/semconv/resource/#service.
const serviceNameKey = "service.name"

func workloadKRI(mesh string, site api.Site, name string) string {
	return api.Workloads.KRI(api.LocalID(api.Workloads, mesh, "", name, site), "")
}
