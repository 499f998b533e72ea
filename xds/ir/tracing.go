package ir

// Tracing makes a span of each of a share of the requests, as child of the one that the request names. Exactly one of
// Zipkin, Datadog and OTLP is set: who gets them.
type Tracing struct {
	// Of requests without a decision Random is chosen, of those that ask for it Client; of all that were chosen Overall
	// stay.
	Overall Share `json:"overall"`
	Client  Share `json:"client"`
	Random  Share `json:"random"`

	Tags    []Tag        `json:"tags,omitempty"`
	Zipkin  *Zipkin      `json:"zipkin,omitempty"`
	Datadog *Datadog     `json:"datadog,omitempty"`
	OTLP    *OTLPTracing `json:"otlp,omitempty"`
}

// Tag is added to spans: Literal, or the value of a request header, or Default without it. One that has no value is left
// out.
type Tag struct {
	Name    string `json:"name"`
	Literal string `json:"literal,omitempty"`
	Header  string `json:"header,omitempty"`
	Default string `json:"default,omitempty"`
}

// Zipkin is a collector of Zipkin's spans behind a cluster.
type Zipkin struct {
	Cluster  string `json:"cluster"`
	Host     string `json:"host"`               // of requests to it
	Path     string `json:"path"`               // with query
	LongID   bool   `json:"longID,omitempty"`   // of 128 bits, else 64
	OwnSpans bool   `json:"ownSpans,omitempty"` // both ends of a call have a span each, else one together
	Protobuf bool   `json:"protobuf,omitempty"` // else JSON
}

// Datadog is an agent of Datadog behind a cluster.
type Datadog struct {
	Cluster string `json:"cluster"`
	Host    string `json:"host"`    // of requests to it
	Service string `json:"service"` // whose spans they are
}

// OTLPTracing is a collector of OpenTelemetry.
type OTLPTracing struct {
	Collector
	Service string `json:"service"` // whose spans they are
}
