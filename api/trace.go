package api

import (
	"net/url"
	"strconv"
)

// MeshTrace says where proxies send their part of the trace of a request.
type MeshTrace struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef    `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	Default   MeshTraceConf `json:"default,omitzero"`
}

// MeshTraceConf: an empty list of backends means no traces; without the list
// nothing is said, which validation refuses.
type MeshTraceConf struct {
	Backends []TraceBackend `json:"backends,omitzero" maxItems:"1"`
	Sampling *TraceSampling `json:"sampling,omitempty"`
	Tags     []TraceTag     `json:"tags,omitzero"`
}

// TraceBackend is where spans go; the member named by Type is set.
type TraceBackend struct {
	_ struct{} `union:"backend"`

	Type          string           `json:"type" req:"true" enum:"Zipkin,Datadog,OpenTelemetry"`
	Zipkin        *ZipkinTraces    `json:"zipkin,omitempty" when:"Zipkin"`
	Datadog       *DatadogTraces   `json:"datadog,omitempty" when:"Datadog"`
	OpenTelemetry *CollectorTraces `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// ZipkinTraces sends spans to a collector of Zipkin.
type ZipkinTraces struct {
	URL               string `json:"url" req:"true"`
	TraceID128Bit     bool   `json:"traceId128bit,omitempty" default:"false"`
	APIVersion        string `json:"apiVersion,omitempty" enum:"httpJson,httpProto" default:"httpJson"`
	SharedSpanContext bool   `json:"sharedSpanContext" default:"true"`
}

// DatadogTraces sends spans to an agent of Datadog: http://host:port.
type DatadogTraces struct {
	URL string `json:"url" req:"true"`
	// SplitService tells calls that a proxy makes and gets apart by the name of
	// the service.
	SplitService bool `json:"splitService,omitempty" default:"false"`
}

// CollectorTraces sends spans by OTLP.
type CollectorTraces struct {
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// Endpoint is the older form, host:port of a collector that speaks gRPC.
	Endpoint string `json:"endpoint,omitempty"`
}

// TraceSampling is percentages: of those that ask for it, of all at random, and
// of what both chose.
type TraceSampling struct {
	Overall *IntOrString `json:"overall,omitempty" range:"0,100"`
	Client  *IntOrString `json:"client,omitempty" range:"0,100"`
	Random  *IntOrString `json:"random,omitempty" range:"0,100"`
}

// TraceTag is added to spans: a text, or the value of a request header.
type TraceTag struct {
	Name    string          `json:"name" req:"true" minLen:"1"`
	Literal *string         `json:"literal,omitempty"`
	Header  *TraceTagHeader `json:"header,omitempty"`
}

// TraceTagHeader is a request header; Default nil leaves the tag out when it is
// absent.
type TraceTagHeader struct {
	Name    string  `json:"name" req:"true" minLen:"1"`
	Default *string `json:"default,omitempty"`
}

// MeshTraces are written anywhere.
var MeshTraces = newKind(Kind[MeshTrace]{
	Facts: Facts{
		Name: "MeshTrace", Plural: "meshtraces", Short: "mtr", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Single: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateTrace,
})

func validateTrace(_ *Meta, s *MeshTrace, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	r = r.At("default")
	if s.Default.Backends == nil {
		r.At("backends").Add("must be defined")
	}
	for i, b := range s.Default.Backends {
		at := r.Index("backends", i)
		if b.Zipkin != nil {
			checkZipkin(b.Zipkin.URL, at.At("zipkin.url"))
		}
		if b.Datadog != nil {
			checkDatadog(b.Datadog.URL, at.At("datadog.url"))
		}
		if o := b.OpenTelemetry; o != nil {
			checkCollector(o.BackendRef, o.Endpoint, at.At("openTelemetry"))
		}
	}
	for i, tag := range s.Default.Tags {
		if (tag.Literal == nil) == (tag.Header == nil) {
			r.Index("tags", i).Add("tag must have exactly one defined: literal, header")
		}
	}
}

func checkZipkin(text string, r *Report) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		r.Add("must be a valid url such as \"http://zipkin:9411/api/v2/spans\"")
	}
}

func checkDatadog(text string, r *Report) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		r.Add("must be a valid url such as \"http://datadog-agent:8126\"")
		return
	}
	if u.Scheme != "http" {
		r.Add("scheme must be http")
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		r.Add("port must be in the range [1, 65535]")
	}
	for _, part := range []struct {
		name string
		set  bool
	}{{"path", u.Path != ""}, {"query", u.RawQuery != "" || u.ForceQuery}, {"user", u.User != nil}, {"fragment", u.Fragment != ""}} {
		if part.set {
			r.Add("%s must not be set", part.name)
		}
	}
}
