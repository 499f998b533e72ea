package envoy

import (
	"encoding/hex"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filesinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// healthCheck is https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/core/v3/health_check.proto.
func (w *work) healthCheck(c ir.HealthCheck) *corev3.HealthCheck {
	out := &corev3.HealthCheck{
		Interval:                     span(c.Interval),
		Timeout:                      span(c.Timeout),
		UnhealthyThreshold:           number(c.Unhealthy),
		HealthyThreshold:             number(c.Healthy),
		InitialJitter:                span(c.InitialJitter),
		IntervalJitter:               span(c.IntervalJitter),
		IntervalJitterPercent:        c.IntervalJitterPercent,
		NoTrafficInterval:            span(c.NoTrafficInterval),
		AlwaysLogHealthCheckFailures: c.LogEveryFailure,
	}
	if c.ReuseConnection != ir.Unset {
		out.ReuseConnection = wrapperspb.Bool(c.ReuseConnection == ir.On)
	}
	if c.EventLog != "" {
		out.EventLogger = []*corev3.TypedExtensionConfig{{
			Name:        "envoy.health_check.event_sinks.file",
			TypedConfig: w.pack(&filesinkv3.HealthCheckEventFileSink{EventLogPath: c.EventLog}),
		}}
	}
	switch {
	case !exactlyOne(c.HTTP != nil, c.GRPC != nil, c.TCP != nil):
		w.fail("health check: exactly one of http, grpc and tcp must be set")
	case c.HTTP != nil:
		probe := &corev3.HealthCheck_HttpHealthCheck{
			Path:                c.HTTP.Path,
			RequestHeadersToAdd: headersToAdd(c.HTTP.Headers),
			CodecClientType:     typev3.CodecClientType_HTTP1,
		}
		if c.HTTP.HTTP2 {
			probe.CodecClientType = typev3.CodecClientType_HTTP2
		}
		for _, status := range c.HTTP.Statuses {
			probe.ExpectedStatuses = append(probe.ExpectedStatuses, &typev3.Int64Range{Start: int64(status), End: int64(status) + 1})
		}
		out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: probe}
	case c.GRPC != nil:
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{
			ServiceName: c.GRPC.Service, Authority: c.GRPC.Authority,
		}}
	default:
		probe := new(corev3.HealthCheck_TcpHealthCheck)
		if c.TCP.Send != "" {
			probe.Send = payload(c.TCP.Send)
		}
		for _, text := range c.TCP.Receive {
			probe.Receive = append(probe.Receive, payload(text))
		}
		out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: probe}
	}
	return out
}

func payload(text string) *corev3.HealthCheck_Payload {
	return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Text{Text: hex.EncodeToString([]byte(text))}}
}
