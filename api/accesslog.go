package api

import "strings"

// MeshAccessLog says where proxies write a line or record about every
// connection or request, and what it contains. Use to for calls that proxies
// make, rules for those that they get.
type MeshAccessLog struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that log; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Logs of calls that the proxies make, by destination.
	To []MeshAccessLogTo `json:"to,omitempty"`
	// Logs of calls that the proxies get, by caller; not together with to.
	Rules []MeshAccessLogRule `json:"rules,omitempty"`
}

// MeshAccessLogTo is about calls to a destination.
type MeshAccessLogTo struct {
	// The destination: all of them (Mesh, which includes addresses outside of
	// the mesh), services, or requests that take a MeshHTTPRoute.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// Where the logs of these calls go.
	Default MeshAccessLogConf `json:"default,omitzero"`
}

// MeshAccessLogRule is about calls from those that match; no matches: from all.
type MeshAccessLogRule struct {
	// The callers, any one of the list; absent: all.
	Matches []Match `json:"matches,omitempty"`
	// Where the logs of these calls go.
	Default MeshAccessLogConf `json:"default,omitzero"`
}

// MeshAccessLogConf is where logs go. A list without backends means no logs;
// validation refuses no list at all.
type MeshAccessLogConf struct {
	// Everything is written to each of them. The list of the most specific entry
	// replaces the others; [] switches logs off.
	Backends []AccessLogBackend `json:"backends,omitzero"`
}

// AccessLogBackend is where logs go; the member named by Type is set.
type AccessLogBackend struct {
	_ struct{} `union:"backend"`

	// Which of the members says where logs go.
	Type string `json:"type" req:"true" enum:"Tcp,File,OpenTelemetry"`
	// Lines over a TCP connection to a collector.
	TCP *TCPLog `json:"tcp,omitempty" when:"Tcp"`
	// Lines in a file beside the proxy.
	File *FileLog `json:"file,omitempty" when:"File"`
	// OTLP log records to a MeshOpenTelemetryBackend.
	OpenTelemetry *CollectorLogs `json:"openTelemetry,omitempty" when:"OpenTelemetry"`
}

// TCPLog sends lines to host:port.
type TCPLog struct {
	// The collector, host:port, such as logstash.example:5000.
	Address string `json:"address" req:"true"`
	// What a line contains; absent: the default text of the protocol.
	Format *LogFormat `json:"format,omitempty"`
}

// FileLog appends lines to a file beside the proxy.
type FileLog struct {
	// Where Envoy writes, such as /tmp/access.log or /dev/stdout.
	Path string `json:"path" req:"true"`
	// What a line contains; absent: the default text of the protocol.
	Format *LogFormat `json:"format,omitempty"`
}

// LogFormat says what a line contains, in Envoy's placeholders (%START_TIME%,
// %RESPONSE_CODE% …) and those of the mesh: %KUMA_MESH%, %KUMA_ZONE%,
// %KUMA_SOURCE_SERVICE%, %KUMA_DESTINATION_SERVICE%,
// %KUMA_SOURCE_ADDRESS_WITHOUT_PORT%, %KUMA_TRAFFIC_DIRECTION%,
// %KUMA_WORKLOAD%.
type LogFormat struct {
	_ struct{} `union:"format"`

	// Whether a line is text or a JSON object.
	Type string `json:"type" req:"true" enum:"Plain,Json"`
	// The line, such as "[%START_TIME%] %KUMA_SOURCE_SERVICE% %RESPONSE_CODE%";
	// the end of line is added.
	Plain *string `json:"plain,omitempty" when:"Plain"`
	// The fields of the object.
	JSON []LogField `json:"json,omitzero" when:"Json"`
	// Leaves out what has no value for a call; otherwise it is written as "-",
	// or null in JSON.
	OmitEmptyValues bool `json:"omitEmptyValues,omitempty" default:"false"`
}

// LogField is a field of a JSON line.
type LogField struct {
	// The name of the field.
	Key string `json:"key" req:"true"`
	// Text with placeholders, such as "%RESPONSE_CODE%".
	Value string `json:"value" req:"true"`
}

// CollectorLogs sends log records by OTLP.
type CollectorLogs struct {
	// The MeshOpenTelemetryBackend that gets the records.
	BackendRef *TelemetryRef `json:"backendRef,omitempty"`
	// The older form: host:port of a collector that speaks gRPC. Use backendRef.
	Endpoint string `json:"endpoint,omitempty"`
	// Attributes of every record, beside kuma.mesh, kuma.zone and kuma.workload,
	// which the resource carries.
	Attributes []LogAttribute `json:"attributes,omitzero"`
	// What a record says: text with placeholders, or any value in the JSON form
	// of OTLP's AnyValue, such as {kvlistValue: …}. Absent: the default text of
	// the protocol.
	Body any `json:"body,omitempty"`
}

// LogAttribute is an attribute of each log record.
type LogAttribute struct {
	// A name of lowercase words joined by dots or underscores, such as
	// http.status; not beginning with otel.
	Key string `json:"key" req:"true" pattern:"^[a-z]([a-z0-9]|[._][a-z0-9])*$"`
	// Text with placeholders, such as "%RESPONSE_CODE%".
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
