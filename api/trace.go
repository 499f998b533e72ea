package api

import (
	"net/url"
	"strconv"
)

// MeshTrace says where proxies send their spans of the traces of HTTP requests,
// of which share, and with which tags. Applications must pass the headers of
// traces on for spans to be joined.
type MeshTrace struct {
	// The proxies that trace; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// How they trace; policies that select a proxy more exactly win, value by
	// value.
	Default MeshTraceConf `json:"default,omitzero"`
}

// MeshTraceConf: an empty list of backends means no traces; without the list
// nothing is said, which validation refuses.
type MeshTraceConf struct {
	// Where spans go, one backend at most; [] switches traces off.
	Backends []TraceBackend `json:"backends,omitzero" maxItems:"1"`
	// Which share of the requests is traced; absent: all.
	Sampling *TraceSampling `json:"sampling,omitempty"`
	// Added to every span, beside kuma.mesh, kuma.zone and kuma.workload.
	Tags []TraceTag `json:"tags,omitzero"`
}

// TraceBackend is where spans go; the member named by Type is set.
type TraceBackend struct {
	_ struct{} `union:"backend"`

	// Which of the members says where spans go.
	Type string `json:"type" req:"true" enum:"Zipkin,Datadog,OpenTelemetry"`
	// A collector that takes Zipkin's format, such as Zipkin or Jaeger.
	Zipkin *ZipkinTraces `json:"zipkin,omitempty" when:"Zipkin"`
	// An agent of Datadog.
	Datadog *DatadogTraces `json:"datadog,omitempty" when:"Datadog"`
	// OTLP to a MeshOpenTelemetryBackend.
	OpenTelemetry *CollectorTraces `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// ZipkinTraces sends spans to a collector of Zipkin.
type ZipkinTraces struct {
	// The collector, such as http://zipkin.example:9411/api/v2/spans.
	URL string `json:"url" req:"true"`
	// Makes trace IDs of 128 bits; otherwise of 64.
	TraceID128Bit bool `json:"traceId128bit,omitempty" default:"false"`
	// The format of spans: version 2 of the API, as JSON or protobuf.
	APIVersion string `json:"apiVersion,omitempty" enum:"httpJson,httpProto" default:"httpJson"`
	// Whether both ends of a call share one span ID, as Zipkin has it; false
	// where the collector wants one each.
	SharedSpanContext bool `json:"sharedSpanContext" default:"true"`
}

// DatadogTraces sends spans to an agent of Datadog: http://host:port.
type DatadogTraces struct {
	// The agent, http://host:port without a path, such as
	// http://datadog.example:8126.
	URL string `json:"url" req:"true"`
	// Tells calls that a proxy makes and gets apart by the name of the service:
	// web_INBOUND, web_OUTBOUND_ and the destination.
	SplitService bool `json:"splitService,omitempty" default:"false"`
}

// CollectorTraces sends spans by OTLP.
type CollectorTraces struct {
	// The MeshOpenTelemetryBackend that gets the spans.
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// The older form: host:port of a collector that speaks gRPC. Use backendRef.
	Endpoint string `json:"endpoint,omitempty"`
}

// TraceSampling is which share of the requests is traced, in percent; each
// field says of which requests.
type TraceSampling struct {
	// Of all that were chosen in any way: an upper bound. Decimals as text:
	// "0.5". Absent: 100.
	Overall *IntOrString `json:"overall,omitempty" range:"0,100"`
	// Of requests that ask for it with the header x-client-trace-id. Absent:
	// 100.
	Client *IntOrString `json:"client,omitempty" range:"0,100"`
	// Of requests that do not ask for it and carry no decision yet. Absent: 100.
	Random *IntOrString `json:"random,omitempty" range:"0,100"`
}

// TraceTag is added to spans: a text, or the value of a request header.
type TraceTag struct {
	// The name of the tag, in the words of the backend.
	Name string `json:"name" req:"true" minLen:"1"`
	// A fixed value; not together with header.
	Literal *string `json:"literal,omitempty"`
	// The value of a request header.
	Header *TraceTagHeader `json:"header,omitempty"`
}

// TraceTagHeader is a request header.
type TraceTagHeader struct {
	// The header, in lower case.
	Name string `json:"name" req:"true" minLen:"1"`
	// The value when the header is absent. Without it the tag is then left out.
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
