package plan

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strconv"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// tracePrefix begins the names of the clusters of collectors for traces.
const tracePrefix = "system_meshtrace_"

var traceSet = newPolicySet("traces", api.MeshTraces, func(s *api.MeshTrace) *api.TargetRef { return s.TargetRef })

// tracesFor is how proxies of a class trace; the zero word: they do not.
var tracesFor = newOwnPolicy("traces-for", traceSet, traceConf, func(rule policy.Rule[api.MeshTraceConf]) word[api.MeshTraceConf] {
	if len(rule.Conf.Backends) == 0 {
		return word[api.MeshTraceConf]{}
	}
	return wordOf(rule.Conf)
})

func traceConf(s *api.MeshTrace) api.MeshTraceConf { return s.Default }

// tracer makes the spans of one listener.
type tracer struct {
	r        *incr.Run
	ways     ways
	mesh     string
	clusters *systemClusters // that the spans need
}

// tracing is nil where there is nobody to send spans to. That a collector is missing
// is a condition of the policy.
func (g tracer) tracing(said word[api.MeshTraceConf], direction, destination string) *ir.Tracing {
	if said == (word[api.MeshTraceConf]{}) {
		return nil
	}
	conf := said.value()
	out := &ir.Tracing{Overall: ir.All, Client: ir.All, Random: ir.All, Tags: g.tags(conf.Tags)}
	if s := conf.Sampling; s != nil {
		out.Overall, out.Client, out.Random = shareOf(s.Overall), shareOf(s.Client), shareOf(s.Random)
	}
	switch b := conf.Backends[0]; {
	case b.Zipkin != nil:
		at, cluster, ok := backendAt(b.Zipkin.URL, "zipkin_")
		if !ok {
			return nil
		}
		if at.Scheme == "https" {
			cluster.Outside = g.ways.outsideTLS(at.Hostname())
		}
		g.clusters.add(cluster)
		out.Zipkin = &ir.Zipkin{
			Cluster: cluster.Name, Host: at.Host, Path: cmp.Or(at.RequestURI(), "/"),
			LongID: b.Zipkin.TraceID128Bit, OwnSpans: !b.Zipkin.SharedSpanContext, Protobuf: b.Zipkin.APIVersion == "httpProto",
		}
	case b.Datadog != nil:
		at, cluster, ok := backendAt(b.Datadog.URL, "datadog_")
		if !ok {
			return nil
		}
		g.clusters.add(cluster)
		service := g.ways.Workload
		if b.Datadog.SplitService {
			if service += "_" + direction; destination != "" {
				service += "_" + destination
			}
		}
		out.Datadog = &ir.Datadog{Cluster: cluster.Name, Host: at.Host, Service: service}
	case b.OpenTelemetry != nil:
		to := collectors.Get(g.r, collectorRef(g.mesh, b.OpenTelemetry.BackendRef, b.OpenTelemetry.Endpoint))
		if to.Name == "" {
			return nil
		}
		collector, cluster := g.ways.send(to, tracePrefix, signalTraces, ir.OriginTrace)
		g.clusters.add(cluster)
		out.OTLP = &ir.OTLPTracing{Collector: collector, Service: g.ways.Workload}
	}
	return out
}

// shareOf is all where nothing is said.
func shareOf(percent *api.IntOrString) ir.Share {
	if percent == nil {
		return ir.All
	}
	return ir.Share(math.Round(percent.Decimal() * float64(ir.All) / 100))
}

// tags are those of the policy, and who it is that traces.
func (g tracer) tags(said []api.TraceTag) []ir.Tag {
	var out []ir.Tag
	for _, tag := range said {
		one := ir.Tag{Name: tag.Name, Literal: value(tag.Literal)}
		if h := tag.Header; h != nil {
			one.Header, one.Default = h.Name, value(h.Default)
		} else if one.Literal == "" {
			continue // Envoy refuses it
		}
		out = append(out, one)
	}
	for _, own := range g.ways.resource(g.r, g.mesh) {
		if own.Key != serviceNameKey && !slices.ContainsFunc(out, func(tag ir.Tag) bool { return tag.Name == own.Key }) {
			out = append(out, ir.Tag{Name: own.Key, Literal: own.Value})
		}
	}
	return out
}

// backendAt is a collector that a policy names by its URL, and the cluster for it.
func backendAt(text, kind string) (*url.URL, ir.Cluster, bool) {
	at, err := url.Parse(text)
	if err != nil || at.Hostname() == "" {
		return nil, ir.Cluster{}, false // refused by validation, but other control planes may have let it pass
	}
	port := uint32(80)
	if n, err := strconv.ParseUint(at.Port(), 10, 16); err == nil {
		port = uint32(n)
	} else if at.Scheme == "https" {
		port = 443
	}
	return at, outside(tracePrefix+kind+cleanName(text), ir.OriginTrace, at.Hostname(), port), true
}

// tracingOf is how the class traces what it calls.
func (c *client) tracingOf(to Port) word[*ir.Tracing] {
	said := tracesFor.Get(c.r, c.class.Policy)
	if said == (word[api.MeshTraceConf]{}) {
		return word[*ir.Tracing]{}
	}
	w := c.class.Ways.Value()
	return wordOf(tracer{c.r, w, c.mesh, &c.system}.tracing(said, "OUTBOUND", to.Name()))
}

// sectionTracing is how a section of a Dataplane traces the requests that it gets,
// and what that needs.
func sectionTracing(r *incr.Run, dp *api.Object[api.Dataplane], section sectionKey) (out *ir.Tracing, need systemClusters) {
	said := tracesFor.Get(r, section.Class)
	if said == (word[api.MeshTraceConf]{}) {
		return nil, nil
	}
	w := waysOf(r, dp)
	return tracer{r, w, dp.Mesh, &need}.tracing(said, "INBOUND", ""), need
}
