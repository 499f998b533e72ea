package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// denial tells how one of the two permission filters leaves its verdict and what is worth logging of it.
type denial struct {
	filter string            // whose verdict
	line   map[string]string // the default log line
}

// The verdict of both filters is in dynamic metadata; the policy's name is read from there. Response code details and
// connection termination details carry the name too, but inside other words.
func requestDenied() denial {
	return denial{httpRBAC, map[string]string{
		"event":     "denied",
		"time":      "%START_TIME%",
		"listener":  "%FILTER_CHAIN_NAME%",
		"policy":    deniedBy(httpRBAC),
		"peer":      "%DOWNSTREAM_PEER_URI_SAN%",
		"source":    "%DOWNSTREAM_REMOTE_ADDRESS%",
		"method":    "%REQ(:METHOD)%",
		"authority": "%REQ(:AUTHORITY)%",
		"path":      "%REQ(:PATH)%",
		"details":   "%RESPONSE_CODE_DETAILS%",
	}}
}

func connectionDenied() denial {
	return denial{networkRBAC, map[string]string{
		"event":    "denied",
		"time":     "%START_TIME%",
		"listener": "%FILTER_CHAIN_NAME%",
		"policy":   deniedBy(networkRBAC),
		"peer":     "%DOWNSTREAM_PEER_URI_SAN%",
		"source":   "%DOWNSTREAM_REMOTE_ADDRESS%",
		"details":  "%CONNECTION_TERMINATION_DETAILS%",
	}}
}

// deniedBy is Envoy's format operator for the policy that the filter named.
func deniedBy(filter string) string {
	return "%DYNAMIC_METADATA(" + filter + ":enforced_effective_policy_id)%"
}

// whenDenied holds for what the filter refused, and for nothing else that ends alike: an application's own 403 is not ours.
func whenDenied(filter string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslogv3.MetadataFilter{
		Matcher: &matcherv3.MetadataMatcher{
			Filter: filter,
			Path: []*matcherv3.MetadataMatcher_PathSegment{{
				Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "enforced_engine_result"},
			}},
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exactly("denied")}},
		},
		MatchIfKeyNotFound: wrapperspb.Bool(false),
	}}}
}

// deniedReply tells a refused caller who refused: a bare 403 sends people to the wrong policy.
func deniedReply() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter:             whenDenied(httpRBAC),
		BodyFormatOverride: textFormat("access denied by " + deniedBy(httpRBAC) + "\n"),
	}}}
}

func (w *work) accessLogs(c ir.Chain, d func() denial) []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	for _, l := range c.Logs {
		one := new(accesslogv3.AccessLog)
		var format *corev3.SubstitutionFormatString
		switch {
		case l.Format != "":
			format = textFormat(l.Format + "\n")
		case l.Denied:
			format = &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: textStruct(d().line)}}
		default:
			w.fail("chain %q: access log without format", c.Name)
		}
		if l.Denied {
			one.Filter = whenDenied(d().filter)
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
