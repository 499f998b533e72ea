package metrics_test

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/proxy/metrics"
)

// collector is a server of OTLP on a Unix socket that gives away what it gets.
func collector(t *testing.T) (socket string, got <-chan *metricspb.MetricsData) {
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan *metricspb.MetricsData)
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.metrics.v1.MetricsService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(metricspb.MetricsData)
			if err := read(m); err != nil {
				return nil, err
			}
			select {
			case out <- m:
			case <-ctx.Done():
			}
			return new(emptypb.Empty), nil
		}}},
	}, nil)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return socket, out
}

// TestDeliveries: a collector gets all metrics at its interval, with whose they are;
// and nothing once it is not wanted any more.
func TestDeliveries(t *testing.T) {
	g := gatherer(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	socket, got := collector(t)
	app := application(t, "text/plain", "# TYPE delay summary\ndelay{quantile=\"0.5\"} 2\ndelay_sum 10\ndelay_count 4\n# TYPE free untyped\nfree{mesh=\"mine\"} 8 1700000000000\n")
	app.Name = "shop"
	g.Set(bootstrap.Metrics{
		Applications: []bootstrap.MetricsApplication{app},
		ExtraLabels:  map[string]string{"mesh": "default", "kuma.workload": "web"},
	}, []metrics.Target{{Name: "one", Socket: socket, Interval: 20 * time.Millisecond}})
	var m *metricspb.MetricsData
	for m == nil { // the collector may not listen at first
		m = <-got
	}
	type point struct {
		Value      any
		Attributes map[string]string
	}
	attributes := func(s interface{ GetAttributes() []*commonpb.KeyValue }) map[string]string {
		out := map[string]string{}
		for _, a := range s.GetAttributes() {
			out[a.Key] = a.Value.GetStringValue()
		}
		return out
	}
	r := m.ResourceMetrics[0]
	if diff := cmp.Diff(map[string]string{"service.name": "web", "service.instance.id": "default.web-1"}, attributes(r.Resource)); diff != "" {
		t.Error(diff)
	}
	points := map[string]point{}
	for _, s := range r.ScopeMetrics {
		for _, one := range s.Metrics {
			name := s.Scope.Name + " " + one.Name
			switch {
			case one.GetSum() != nil:
				p := one.GetSum().DataPoints[0]
				points[name] = point{p.GetAsDouble(), attributes(p)}
			case one.GetGauge() != nil:
				p := one.GetGauge().DataPoints[0]
				points[name] = point{p.GetAsDouble(), attributes(p)}
				if one.Name == "free" && p.TimeUnixNano != 1700000000000000000 {
					t.Errorf("time of the sample: %d", p.TimeUnixNano)
				}
			case one.GetHistogram() != nil:
				p := one.GetHistogram().DataPoints[0]
				points[name] = point{[]any{p.GetSum(), p.Count, p.ExplicitBounds, p.BucketCounts}, attributes(p)}
			case one.GetSummary() != nil:
				p := one.GetSummary().DataPoints[0]
				points[name] = point{[]any{p.Sum, p.Count, p.QuantileValues[0].Quantile, p.QuantileValues[0].Value}, attributes(p)}
			}
		}
	}
	mesh := func(more ...string) map[string]string {
		out := map[string]string{"mesh": "default", "kuma.workload": "web"}
		for pair := range slices.Chunk(more, 2) {
			out[pair[0]] = pair[1]
		}
		return out
	}
	if diff := cmp.Diff(map[string]point{
		"envoy envoy_cluster_upstream_rq_total": {3.0, mesh("envoy_cluster_name", "self_inbound_dp_http")},
		"envoy envoy_cluster_upstream_rq_time":  {[]any{20.5, uint64(4), []float64{1, 5}, []uint64{1, 2, 1}}, mesh("envoy_cluster_name", "a")},
		"envoy envoy_server_live":               {1.0, mesh()},
		"shop delay":                            {[]any{10.0, uint64(4), 0.5, 2.0}, mesh("kuma_application", "shop")},
		"shop free":                             {8.0, mesh("kuma_application", "shop", "mesh", "mine")},
		"atoll-dp atoll_metrics_source_up":      {1.0, mesh("source", "envoy")},
	}, points); diff != "" {
		t.Error(diff)
	}
	<-got // and so on
	g.Set(bootstrap.Metrics{}, nil)
	cancel()
	for {
		select {
		case <-got:
		case <-done:
			return
		}
	}
}
