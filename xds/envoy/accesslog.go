package envoy

import (
	"maps"
	"strconv"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

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
		var format *corev3.SubstitutionFormatString
		switch {
		case l.Format != "":
			format = textFormat(l.Format + "\n")
		case l.Denied:
			line := maps.Clone(d.line)
			line["listener"] = escapePercent(listener)
			format = &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: textStruct(line)}}
		default:
			w.fail("chain %q: access log without format", c.Name)
		}
		if l.Denied {
			one.Filter = w.when(d.when)
		}
		if l.Path == "/dev/stdout" {
			// By name it could not be opened where standard output is a socket, and the listener would be refused.
			one.Name = "envoy.access_loggers.stdout"
			one.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: w.pack(&streamlogv3.StdoutAccessLog{
				AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: format},
			})}
		} else {
			one.Name = "envoy.access_loggers.file"
			one.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: w.pack(&filelogv3.FileAccessLog{
				Path:            l.Path,
				AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format},
			})}
		}
		out = append(out, one)
	}
	return out
}

func textFormat(format string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inlineString(format)}}
}
