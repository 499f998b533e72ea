package envoy

import (
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// tracing is nil without t.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto#extensions-filters-network-http-connection-manager-v3-httpconnectionmanager-tracing
func (w *work) tracing(t *ir.Tracing) *hcmv3.HttpConnectionManager_Tracing {
	if t == nil {
		return nil
	}
	out := &hcmv3.HttpConnectionManager_Tracing{
		OverallSampling: percentOf(t.Overall), ClientSampling: percentOf(t.Client), RandomSampling: percentOf(t.Random),
		// A span per listener: one more for each try would have the same beginning and end.
		SpawnUpstreamSpan: wrapperspb.Bool(false),
		Provider:          new(tracev3.Tracing_Http),
	}
	for _, tag := range t.Tags {
		out.CustomTags = append(out.CustomTags, customTag(tag))
	}
	var config message
	switch {
	case !exactlyOne(t.Zipkin != nil, t.Datadog != nil, t.OTLP != nil):
		w.fail("tracing: exactly one of zipkin, datadog and otlp must be set")
		return nil
	case t.Zipkin != nil:
		out.Provider.Name, config = "envoy.tracers.zipkin", zipkin(*t.Zipkin)
	case t.Datadog != nil:
		out.Provider.Name, config = "envoy.tracers.datadog", &tracev3.DatadogConfig{
			CollectorCluster: t.Datadog.Cluster, CollectorHostname: t.Datadog.Host, ServiceName: t.Datadog.Service,
		}
	default:
		to := &tracev3.OpenTelemetryConfig{ServiceName: t.OTLP.Service}
		if t.OTLP.URL != "" {
			to.HttpService = collectorHTTP(t.OTLP.Collector)
		} else {
			to.GrpcService = collectorGRPC(t.OTLP.Collector)
		}
		out.Provider.Name, config = "envoy.tracers.opentelemetry", to
	}
	out.Provider.ConfigType = &tracev3.Tracing_Http_TypedConfig{TypedConfig: w.pack(config)}
	return out
}

func zipkin(z ir.Zipkin) message {
	out := &tracev3.ZipkinConfig{
		CollectorCluster: z.Cluster, CollectorEndpoint: z.Path, CollectorHostname: z.Host, TraceId_128Bit: z.LongID,
		SharedSpanContext: wrapperspb.Bool(!z.OwnSpans), CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON,
	}
	if z.Protobuf {
		out.CollectorEndpointVersion = tracev3.ZipkinConfig_HTTP_PROTO
	}
	return out
}

func percentOf(s ir.Share) *typev3.Percent { return &typev3.Percent{Value: float64(s) / 10_000} }

func customTag(tag ir.Tag) *tracingv3.CustomTag {
	out := &tracingv3.CustomTag{Tag: tag.Name}
	if tag.Header != "" {
		out.Type = &tracingv3.CustomTag_RequestHeader{RequestHeader: &tracingv3.CustomTag_Header{Name: tag.Header, DefaultValue: tag.Default}}
	} else {
		out.Type = &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: tag.Literal}}
	}
	return out
}
