package metrics

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Target is a collector that metrics are sent to.
type Target struct {
	Name     string
	Socket   string        // of a server of OTLP over gRPC
	Interval time.Duration // between two deliveries; 0: a minute
}

const (
	defaultInterval = time.Minute
	maxDelivery     = 30 * time.Second
	// batch is how many points are in one message: those with histograms in them stay
	// far below the 4 MiB that collectors take.
	batch = 2000
)

// Run delivers metrics to the collectors that are wanted until the context ends.
func (g *Gatherer) Run(ctx context.Context) {
	running := map[Target]context.CancelFunc{}
	done := make(chan struct{})
	started := 0
	defer func() {
		for _, stop := range running {
			stop()
		}
		for range started {
			<-done
		}
	}()
	for {
		var targets []Target
		if want := g.wanted.Load(); want != nil {
			targets = want.targets
		}
		for t, stop := range running {
			if !slices.Contains(targets, t) {
				stop()
				delete(running, t)
			}
		}
		for _, t := range targets {
			if running[t] != nil {
				continue
			}
			life, stop := context.WithCancel(ctx)
			running[t] = stop
			started++
			go func() {
				g.deliver(life, t)
				done <- struct{}{}
			}()
		}
		select {
		case <-ctx.Done():
			return
		case <-done:
			started--
		case <-g.changed:
		}
	}
}

// deliver sends to one collector at its intervals. What cannot be delivered is not
// kept: the next delivery has the newer values of the same counters.
func (g *Gatherer) deliver(ctx context.Context, t Target) {
	// Envoy or a program of this host is at the other end.
	conn, err := grpc.NewClient("unix:"+t.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.Log.Error("metrics cannot be sent", "collector", t.Name, "error", err)
		return
	}
	defer conn.Close()
	interval := t.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticks.C:
			err := g.send(ctx, conn, now, min(interval, maxDelivery))
			switch {
			case err != nil && !failing && ctx.Err() == nil:
				g.Log.Warn("metrics were not taken", "collector", t.Name, "error", err)
			case err == nil && failing:
				g.Log.Info("metrics are taken again", "collector", t.Name)
			}
			failing = err != nil
		}
	}
}

func (g *Gatherer) send(ctx context.Context, to *grpc.ClientConn, now time.Time, limit time.Duration) error {
	want := g.wanted.Load()
	if want == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reading, stop := context.WithTimeout(ctx, limit/2) // the other half is for the collector
	sources := g.gather(reading, want)
	stop()
	for _, m := range messages(sources, resource(want.ExtraLabels, g.Instance), want.ExtraLabels, now) {
		if err := to.Invoke(ctx, export, m, new(emptypb.Empty)); err != nil {
			return err
		}
	}
	return nil
}

// export is called with MetricsData, which on the wire is an
// ExportMetricsServiceRequest: the package of that one needs a gateway to HTTP.
// https://github.com/open-telemetry/opentelemetry-proto/blob/v1.11.0/opentelemetry/proto/metrics/v1/metrics.proto
const export = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

// resource says whose metrics they are. The instance keeps the proxies of one
// workload apart, whose counters would else be one series.
// https://opentelemetry.io/docs/specs/semconv/resource/#service
func resource(labels map[string]string, instance string) *resourcepb.Resource {
	service := labels["kuma.workload"]
	if service == "" {
		service = instance
	}
	return &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", service), attribute("service.instance.id", instance)}}
}

func attribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// messages is what the sources gave as OTLP, a scope for each, in messages of a
// modest size.
func messages(sources []source, of *resourcepb.Resource, labels map[string]string, now time.Time) (out []*metricspb.MetricsData) {
	c := converter{now: uint64(now.UnixNano())}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		c.extra = append(c.extra, attribute(key, labels[key]))
	}
	room := 0
	for _, s := range sources {
		var scope *metricspb.ScopeMetrics // in the last message
		for _, f := range s.families {
			for points := f.Metric; len(points) > 0; {
				if room == 0 {
					room, scope = batch, nil
					out = append(out, &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{Resource: of}}})
				}
				all := out[len(out)-1].ResourceMetrics[0]
				if scope == nil {
					scope = &metricspb.ScopeMetrics{Scope: &commonpb.InstrumentationScope{Name: s.name}}
					all.ScopeMetrics = append(all.ScopeMetrics, scope)
				}
				n := min(room, len(points))
				if m := c.metric(f, points[:n]); m != nil {
					scope.Metrics = append(scope.Metrics, m)
				}
				points, room = points[n:], room-n
			}
		}
	}
	return out
}

// converter makes OTLP of Prometheus's metrics.
// https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
type converter struct {
	extra []*commonpb.KeyValue
	now   uint64 // ns
}

// metric is nil for a type that is not known.
func (c *converter) metric(f *dto.MetricFamily, points []*dto.Metric) *metricspb.Metric {
	out := &metricspb.Metric{Name: f.GetName(), Description: f.GetHelp(), Unit: f.GetUnit()}
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		out.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{
			IsMonotonic: true, AggregationTemporality: cumulative,
			DataPoints: c.numbers(points, func(m *dto.Metric) float64 { return m.GetCounter().GetValue() }),
		}}
	case dto.MetricType_GAUGE:
		out.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: c.numbers(points, func(m *dto.Metric) float64 { return m.GetGauge().GetValue() })}}
	case dto.MetricType_UNTYPED:
		out.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: c.numbers(points, func(m *dto.Metric) float64 { return m.GetUntyped().GetValue() })}}
	case dto.MetricType_HISTOGRAM:
		h := &metricspb.Histogram{AggregationTemporality: cumulative}
		for _, m := range points {
			h.DataPoints = append(h.DataPoints, c.histogram(m))
		}
		out.Data = &metricspb.Metric_Histogram{Histogram: h}
	case dto.MetricType_SUMMARY:
		s := &metricspb.Summary{}
		for _, m := range points {
			s.DataPoints = append(s.DataPoints, c.summary(m))
		}
		out.Data = &metricspb.Metric_Summary{Summary: s}
	default:
		return nil
	}
	return out
}

func (c *converter) numbers(points []*dto.Metric, value func(*dto.Metric) float64) (out []*metricspb.NumberDataPoint) {
	for _, m := range points {
		out = append(out, &metricspb.NumberDataPoint{
			Attributes: c.attributes(m), TimeUnixNano: c.time(m), Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: value(m)},
		})
	}
	return out
}

// histogram: Prometheus counts in each bucket what is in those below, too.
func (c *converter) histogram(m *dto.Metric) *metricspb.HistogramDataPoint {
	h := m.GetHistogram()
	p := &metricspb.HistogramDataPoint{Attributes: c.attributes(m), TimeUnixNano: c.time(m), Count: h.GetSampleCount(), Sum: new(h.GetSampleSum())}
	below := uint64(0)
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		count := max(b.GetCumulativeCount(), below) // were it less, it would be read while it counted
		p.ExplicitBounds = append(p.ExplicitBounds, b.GetUpperBound())
		p.BucketCounts = append(p.BucketCounts, count-below)
		below = count
	}
	p.Count = max(p.Count, below)
	p.BucketCounts = append(p.BucketCounts, p.Count-below)
	return p
}

func (c *converter) summary(m *dto.Metric) *metricspb.SummaryDataPoint {
	s := m.GetSummary()
	p := &metricspb.SummaryDataPoint{Attributes: c.attributes(m), TimeUnixNano: c.time(m), Count: s.GetSampleCount(), Sum: s.GetSampleSum()}
	for _, q := range s.GetQuantile() {
		p.QuantileValues = append(p.QuantileValues, &metricspb.SummaryDataPoint_ValueAtQuantile{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	return p
}

// attributes are the labels of a metric, and those for all that it does not have.
func (c *converter) attributes(m *dto.Metric) []*commonpb.KeyValue {
	out := make([]*commonpb.KeyValue, 0, len(m.Label)+len(c.extra))
	for _, l := range m.Label {
		out = append(out, attribute(l.GetName(), l.GetValue()))
	}
	for _, one := range c.extra {
		if !slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == one.Key }) {
			out = append(out, one)
		}
	}
	return out
}

func (c *converter) time(m *dto.Metric) uint64 {
	if ms := m.GetTimestampMs(); ms > 0 {
		return uint64(ms) * uint64(time.Millisecond)
	}
	return c.now
}
