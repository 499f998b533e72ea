package api

import "strings"

// MeshAccessLog says where proxies write what calls they made and got.
type MeshAccessLog struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef          `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshAccessLogTo   `json:"to,omitempty"`
	Rules     []MeshAccessLogRule `json:"rules,omitempty"`
}

// MeshAccessLogTo is about calls to a destination.
type MeshAccessLogTo struct {
	TargetRef TargetRef         `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	Default   MeshAccessLogConf `json:"default,omitzero"`
}

// MeshAccessLogRule is about calls from those that match; no matches: from all.
type MeshAccessLogRule struct {
	Matches []Match           `json:"matches,omitempty"`
	Default MeshAccessLogConf `json:"default,omitzero"`
}

// MeshAccessLogConf: no backends in the list means no logs; without the list
// nothing is said, which validation refuses.
type MeshAccessLogConf struct {
	Backends []AccessLogBackend `json:"backends,omitzero"`
}

// AccessLogBackend is where logs go; the member named by Type is set.
type AccessLogBackend struct {
	_ struct{} `union:"backend"`

	Type          string         `json:"type" req:"true" enum:"Tcp,File,OpenTelemetry"`
	TCP           *TCPLog        `json:"tcp,omitempty" when:"Tcp"`
	File          *FileLog       `json:"file,omitempty" when:"File"`
	OpenTelemetry *CollectorLogs `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// TCPLog sends lines to host:port.
type TCPLog struct {
	Address string     `json:"address" req:"true"`
	Format  *LogFormat `json:"format,omitempty"`
}

// FileLog appends lines to a file beside the proxy.
type FileLog struct {
	Path   string     `json:"path" req:"true"`
	Format *LogFormat `json:"format,omitempty"`
}

// LogFormat says what a line contains, in Envoy's placeholders and our own.
type LogFormat struct {
	_ struct{} `union:"format"`

	Type  string     `json:"type" req:"true" enum:"Plain,Json"`
	Plain *string    `json:"plain,omitempty" when:"Plain"`
	JSON  []LogField `json:"json,omitzero" when:"Json"`
	// OmitEmptyValues leaves out what has no value; else it is "-".
	OmitEmptyValues bool `json:"omitEmptyValues,omitempty" default:"false"`
}

// LogField is a field of a JSON line.
type LogField struct {
	Key   string `json:"key" req:"true"`
	Value string `json:"value" req:"true"`
}

// CollectorLogs sends log records by OTLP.
type CollectorLogs struct {
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// Endpoint is the older form, host:port of a collector that speaks gRPC.
	Endpoint   string         `json:"endpoint,omitempty"`
	Attributes []LogAttribute `json:"attributes,omitzero"`
	// Body is text, or any value in the JSON form of OTLP's AnyValue; nil is the
	// default format.
	Body any `json:"body,omitempty"`
}

// LogAttribute is an attribute of each log record.
type LogAttribute struct {
	Key   string `json:"key" req:"true" pattern:"^[a-z]([a-z0-9]|[._][a-z0-9])*$"`
	Value string `json:"value" req:"true"`
}

// MeshAccessLogs are written anywhere.
var MeshAccessLogs = newKind(Kind[MeshAccessLog]{
	Facts: Facts{
		Name: "MeshAccessLog", Plural: "meshaccesslogs", Short: "mal", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true, Rules: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateAccessLog,
})

func validateAccessLog(_ *Meta, s *MeshAccessLog, r *Report) {
	checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
	checkToOrRules(s.TargetRef, len(s.To), len(s.Rules), r)
	kinds := []string{RefMesh, RefService, RefExternalService, RefMultiZoneService, RefHTTPRoute}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		to.Default.check(at.At("default"))
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		for j, m := range rule.Matches {
			checkMatch(m, at.Index("matches", j))
		}
		rule.Default.check(at.At("default"))
	}
}

func (c *MeshAccessLogConf) check(r *Report) {
	if c.Backends == nil {
		r.At("backends").Add("must be defined")
	}
	for i, b := range c.Backends {
		b.check(r.Index("backends", i))
	}
}

func (b *AccessLogBackend) check(r *Report) {
	if t := b.TCP; t != nil {
		at := r.At("tcp")
		if _, _, ok := hostPort(t.Address); !ok {
			at.At("address").Add("tcp backend requires valid address")
		}
		t.Format.check(at.At("format"))
	}
	if f := b.File; f != nil {
		at := r.At("file")
		if !strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "\x00") {
			at.At("path").Add("file backend requires a valid path")
		}
		f.Format.check(at.At("format"))
	}
	if o := b.OpenTelemetry; o != nil {
		at := r.At("openTelemetry")
		checkCollector(o.BackendRef, o.Endpoint, at)
		for i, a := range o.Attributes {
			if strings.HasPrefix(a.Key, "otel.") {
				at.Index("attributes", i).At("key").Add("must not start with 'otel.', which OpenTelemetry keeps for itself")
			}
		}
	}
}

func (f *LogFormat) check(r *Report) {
	if f == nil {
		return
	}
	if f.Plain != nil && *f.Plain == "" {
		r.At("plain").Add("must not be empty")
	}
	if f.JSON != nil && len(f.JSON) == 0 {
		r.At("json").Add("must not be empty")
	}
	for i, field := range f.JSON {
		if field.Key == "" {
			r.Index("json", i).At("key").Add("must not be empty")
		}
	}
}
