package envoy

import (
	"maps"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	otellogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	otelv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// deniedPrefix starts what both permission filters give as the reason of a denial; the policy's name and "]" follow.
const deniedPrefix = "rbac_access_denied_matched_policy["

// startsDenied says in CEL of what is before it that it is such a reason.
const startsDenied = `.startsWith("` + deniedPrefix + `")`

// codeDetails is where Envoy leaves why it answered by itself, as CEL attribute.
const codeDetails = "response.code_details"

// denial tells how a refusal by one of the two permission filters is known, and what is worth logging beside it. An
// application's own 403 has another reason, so it is never taken for a denial.
type denial struct {
	when string            // CEL
	line map[string]string // the default log line
}

func requestDenied() denial {
	return denial{codeDetails + startsDenied, map[string]string{
		"event":     "denied",
		"time":      "%START_TIME%",
		"policy":    "%DYNAMIC_METADATA(" + httpRBAC + ":enforced_effective_policy_id)%",
		"details":   "%RESPONSE_CODE_DETAILS%",
		"peer":      "%DOWNSTREAM_PEER_URI_SAN%",
		"source":    "%DOWNSTREAM_REMOTE_ADDRESS%",
		"method":    "%REQ(:METHOD)%",
		"authority": "%REQ(:AUTHORITY)%",
		"path":      "%REQ(:PATH)%",
	}}
}

// connectionDenied has no policy by itself: the reason names it, which is the last word of the network filter or, for a
// caller whom [work.admit] sent elsewhere than to the cluster, the name of that.
func connectionDenied(cluster string) denial {
	const ended, sentTo = "connection.termination_details", "filter_state['" + clusterKey + "']"
	return denial{ended + startsDenied + " || " + sentTo + " != " + celBytes(cluster), map[string]string{
		"event":   "denied",
		"time":    "%START_TIME%",
		"details": "%CEL(has(" + ended + ") ? " + ended + " : " + sentTo + ")%",
		"peer":    "%DOWNSTREAM_PEER_URI_SAN%",
		"source":  "%DOWNSTREAM_REMOTE_ADDRESS%",
	}}
}

// deniedReplies tell a refused caller who refused: a bare 403 sends people to the wrong policy. Each policy that can
// refuse has a text of its own, since Envoy fills in the name only after the answer is made; and so no format operator
// is needed that some Envoy might not know. The words in front are Envoy's own, which people search for.
func (w *work) deniedReplies(p ir.Permissions) *hcmv3.LocalReplyConfig {
	out := new(hcmv3.LocalReplyConfig)
	for _, name := range deniers(p) {
		out.Mappers = append(out.Mappers, &hcmv3.ResponseMapper{
			Filter: w.when(codeDetails + " == " + strconv.Quote(deniedPrefix+name+"]")),
			Body:   inlineString("RBAC: access denied by " + name),
		})
	}
	return out
}

// when holds where the CEL expression does; what an expression names and is not there makes it not hold.
func (w *work) when(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       "envoy.access_loggers.extension_filters.cel",
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: w.pack(&celv3.ExpressionFilter{Expression: expression})},
	}}}
}

func (w *work) accessLogs(listener string, c ir.Chain, d denial) []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	for _, l := range c.Logs {
		one := new(accesslogv3.AccessLog)
		var config message
		switch {
		case (l.Path == "") == (l.Collector == nil):
			w.fail("chain %q: an access log needs one of path and collector", c.Name)
			continue
		case l.Collector != nil:
			one.Name, config = "envoy.access_loggers.open_telemetry", w.collectorLog(l)
		case l.Path == "/dev/stdout":
			// By name it could not be opened where standard output is a socket, and the listener would be refused.
			one.Name, config = "envoy.access_loggers.stdout", &streamlogv3.StdoutAccessLog{
				AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: w.lineFormat(listener, c, l, d)},
			}
		default:
			one.Name, config = "envoy.access_loggers.file", &filelogv3.FileAccessLog{
				Path:            l.Path,
				AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: w.lineFormat(listener, c, l, d)},
			}
		}
		one.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: w.pack(config)}
		switch conditions := logConditions(l, d); len(conditions) {
		case 0:
		case 1:
			one.Filter = w.when(conditions[0])
		default:
			one.Filter = w.when("(" + strings.Join(conditions, ") && (") + ")")
		}
		out = append(out, one)
	}
	return out
}

// logConditions are expressions of which each must hold.
func logConditions(l ir.AccessLog, d denial) []string {
	const route = "xds.route_name"
	var out []string
	if l.Denied {
		out = append(out, d.when)
	}
	if !l.Peer.IsZero() {
		out = append(out, peerExpression(l.Peer))
	}
	if l.Route != "" {
		out = append(out, "has("+route+") && "+route+" == "+celText(l.Route))
	}
	if len(l.NotRoutes) > 0 { // what takes no route at all takes none of these
		var names []string
		for _, name := range l.NotRoutes {
			names = append(names, celText(name))
		}
		out = append(out, "!(has("+route+") && "+route+" in ["+strings.Join(names, ", ")+"])")
	}
	return out
}

// lineFormat is what a line contains. For who reads a pipe it is the JSON object {address, message}, one a line.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/core/v3/substitution_format_string.proto
func (w *work) lineFormat(listener string, c ir.Chain, l ir.AccessLog, d denial) *corev3.SubstitutionFormatString {
	var object *structpb.Struct
	switch {
	case len(l.Fields) > 0:
		object = fieldStruct(l.Fields)
	case l.Format != "":
	case l.Denied:
		line := maps.Clone(d.line)
		line["listener"] = escapePercent(listener)
		object = textStruct(line)
	default:
		w.fail("chain %q: access log without format", c.Name)
		return nil
	}
	if l.Reader != "" {
		said := structpb.NewStructValue(object)
		if object == nil {
			said = structpb.NewStringValue(l.Format + "\n")
		}
		object = &structpb.Struct{Fields: map[string]*structpb.Value{"address": structpb.NewStringValue(escapePercent(l.Reader)), "message": said}}
	}
	out := textFormat(l.Format + "\n")
	if object != nil {
		out.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object}
	}
	out.OmitEmptyValues = l.OmitEmpty
	return out
}

// collectorLog is https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/access_loggers/open_telemetry/v3/logs_service.proto.
func (w *work) collectorLog(l ir.AccessLog) message {
	out := &otellogv3.OpenTelemetryAccessLogConfig{
		LogName:            "MeshAccessLog",
		Body:               otelText(l.Format),
		Attributes:         otelFields(l.Attributes),
		ResourceAttributes: otelFields(l.Resource),
	}
	if len(l.Body) > 0 {
		if err := protojson.Unmarshal(l.Body, out.Body); err != nil {
			w.fail("access log: body: %w", err)
		}
	}
	if l.Collector.URL != "" {
		out.HttpService = collectorHTTP(*l.Collector)
	} else {
		out.GrpcService = collectorGRPC(*l.Collector)
	}
	return out
}

// ReadAnyValue says whether text is a value of OTLP in JSON.
// https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
func ReadAnyValue(text []byte) error { return protojson.Unmarshal(text, new(otelv1.AnyValue)) }

func otelText(s string) *otelv1.AnyValue {
	return &otelv1.AnyValue{Value: &otelv1.AnyValue_StringValue{StringValue: s}}
}

func otelFields(list []ir.LogField) *otelv1.KeyValueList {
	if len(list) == 0 {
		return nil
	}
	out := new(otelv1.KeyValueList)
	for _, f := range list {
		out.Values = append(out.Values, &otelv1.KeyValue{Key: f.Key, Value: otelText(f.Value)})
	}
	return out
}

func collectorGRPC(c ir.Collector) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: c.Cluster}}}
}

// collectorTimeout is how long a collector may take to take something over HTTP.
const collectorTimeout = 10 * time.Second

func collectorHTTP(c ir.Collector) *corev3.HttpService {
	return &corev3.HttpService{HttpUri: &corev3.HttpUri{
		Uri: c.URL, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: c.Cluster}, Timeout: durationpb.New(collectorTimeout),
	}}
}

func fieldStruct(list []ir.LogField) *structpb.Struct {
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(list))}
	for _, f := range list {
		out.Fields[f.Key] = structpb.NewStringValue(f.Value)
	}
	return out
}

// NodeAddress is the key in the metadata of a node, as its bootstrap has it, of the address of the proxy.
const NodeAddress = "dataplane.address"

// What a proxy knows of itself when it writes a log, as command operators; so that a listener need not say it and can be
// the same for many proxies.
const (
	OwnAddress = "%CEL(xds.node.metadata['" + NodeAddress + "'])%"
	// OwnWorkload is the name of the proxy's workload.
	OwnWorkload = "%CEL(xds.node.cluster)%"
)

// OwnWorkloadIn is the name of the proxy's workload between two texts.
func OwnWorkloadIn(before, after string) string {
	return "%CEL(" + celText(before) + " + xds.node.cluster + " + celText(after) + ")%"
}

func textFormat(format string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inlineString(format)}}
}
