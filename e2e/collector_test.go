package e2e

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// span is one of any tracer's, in hexadecimal.
type span struct {
	Service, Trace, ID, Parent string
	Tags                       map[string]string
}

// record is a log record of OpenTelemetry.
type record struct {
	Body                 string
	Attributes, Resource map[string]string
}

// metric is a point of a counter or a gauge.
type metric struct {
	Name                 string
	Value                float64
	Attributes, Resource map[string]string
}

// collector takes spans, log records and metrics.
type collector struct {
	port int

	mu      sync.Mutex
	spans   []span
	records []record
	metrics []metric // of all deliveries
	bodies  []string // what came in a form that is not read here
}

// newCollector takes OTLP by gRPC.
// https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
func newCollector(t *testing.T) *collector {
	l := listen(t, "127.0.0.1:0")
	c := &collector{port: l.Addr().(*net.TCPAddr).Port}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		// Requests have the form of what they export, answers that all was taken are empty.
		var traces tracev1.TracesData
		var logs logsv1.LogsData
		var metrics metricsv1.MetricsData
		var err error
		switch method, _ := grpc.MethodFromServerStream(stream); method {
		case "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
			err = stream.RecvMsg(&traces)
		case "/opentelemetry.proto.collector.logs.v1.LogsService/Export":
			err = stream.RecvMsg(&logs)
		case "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export":
			err = stream.RecvMsg(&metrics)
		default:
			err = status.Error(codes.Unimplemented, method)
		}
		if err != nil {
			return err
		}
		c.take(&traces, &logs, &metrics)
		return stream.SendMsg(&emptypb.Empty{})
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return c
}

func (c *collector) take(traces *tracev1.TracesData, logs *logsv1.LogsData, metrics *metricsv1.MetricsData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range traces.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, span{
					Service: resourceOf(of.Resource)["service.name"], Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId),
					Parent: hex.EncodeToString(s.ParentSpanId), Tags: attributes(s.Attributes),
				})
			}
		}
	}
	for _, of := range logs.ResourceLogs {
		for _, scope := range of.ScopeLogs {
			for _, r := range scope.LogRecords {
				c.records = append(c.records, record{r.Body.GetStringValue(), attributes(r.Attributes), resourceOf(of.Resource)})
			}
		}
	}
	for _, of := range metrics.ResourceMetrics {
		for _, scope := range of.ScopeMetrics {
			for _, m := range scope.Metrics {
				for _, p := range append(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()...) {
					c.metrics = append(c.metrics, metric{m.Name, p.GetAsDouble(), attributes(p.Attributes), resourceOf(of.Resource)})
				}
			}
		}
	}
}

func resourceOf(r *resourcev1.Resource) map[string]string { return attributes(r.GetAttributes()) }

func attributes(list []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, one := range list {
		out[one.Key] = one.Value.GetStringValue()
	}
	return out
}

// newHTTPCollector takes Zipkin's spans as JSON, and keeps all else as it comes.
// https://zipkin.io/zipkin-api/#/default/post_spans
func newHTTPCollector(t *testing.T) *collector {
	c := new(collector)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var spans []struct {
			TraceID, ID, ParentID string
			LocalEndpoint         struct{ ServiceName string }
			Tags                  map[string]string
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path != "/api/v2/spans" || json.Unmarshal(body, &spans) != nil {
			c.bodies = append(c.bodies, r.URL.Path+" "+string(body))
		}
		for _, s := range spans {
			c.spans = append(c.spans, span{s.LocalEndpoint.ServiceName, s.TraceID, s.ID, s.ParentID, s.Tags})
		}
		if r.URL.Path == "/api/v2/spans" {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		io.WriteString(w, "{}")
	}))
	t.Cleanup(s.Close)
	c.port = s.Listener.Addr().(*net.TCPAddr).Port
	return c
}

// of lists the spans of requests for a path.
func (c *collector) of(path string) (out []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if strings.HasSuffix(s.Tags["http.url"], path) {
			out = append(out, s)
		}
	}
	return out
}
