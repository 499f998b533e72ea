// Package ir says what a proxy shall do, in the words of the problem: which listeners it opens, whom they let in, where
// requests go, how peers prove who they are.
//
// It owns these types and nothing else. Package xds/plan makes the values from rows; package xds/envoy turns them into
// Envoy's protobufs; inspection prints them. It never knows Envoy, the API's kinds, a store or a clock, and imports
// nothing of this module.
//
//	rows ──plan──▶ ir.Listener, ir.RouteConfig, ir.Cluster, ir.Endpoints, ir.Secret, ir.TrustBundle ──envoy──▶ protobufs
//
// Values are immutable once handed over: whoever wants another one makes it. All are plain exported data, so that
// reflect/cmp compare them and JSON or YAML shows them. The small ones that take part in query keys ([Address],
// [Duration], [Timeouts], [Backend], [PeerMatch], [Share]) are comparable with ==.
//
// # Why
//
// A policy that edits Envoy's protobufs after they were built can only be understood together with all others that edit
// them. Here every policy decides on a field with one meaning, and the mechanics of Envoy (which inspector must run, which
// filter comes first, that one prefix needs two routes) follow in one place. What a mechanic needs is derived there and
// not said here a second time: nothing in a listener can disagree with itself. Interfaces were not chosen for the
// alternatives of a field (a chain is HTTP or TCP): pointers of which one is set print, compare and decode by themselves.
package ir

import (
	"encoding/json"
	"fmt"
	"time"
)

// Origin names the part of the configuration that a resource belongs to. Users see it: patches select by it.
type Origin string

// The origins of this stage. Others come with their features.
const (
	OriginAdmin    Origin = "admin"
	OriginInbound  Origin = "inbound"
	OriginOutbound Origin = "outbound"
	OriginIngress  Origin = "ingress"
	OriginEgress   Origin = "egress"
	OriginPatch    Origin = "mesh-proxy-patch" // what a patch added
	OriginLog      Origin = "meshaccesslog"
	OriginTrace    Origin = "mesh-trace"
	OriginDynamic  Origin = "dynamic-config" // what the program next to the proxy is told
	// OriginPrometheus is what Prometheus reads metrics by, OriginOpenTelemetry what they are sent by.
	OriginPrometheus    Origin = "prometheus"
	OriginOpenTelemetry Origin = "open-telemetry"
	// OriginTransparent is what takes the connections that a host redirects, OriginPassthrough what lets those out that a
	// policy names.
	OriginTransparent Origin = "transparent"
	OriginPassthrough Origin = "meshpassthrough"
)

// Patch is a change that a user wants on a finished resource, in Envoy's own words. It makes the resource a variant of its
// own. A list of patches is applied in order.
type Patch struct {
	Policy    string          `json:"policy"`              // KRI of the policy that asks for it
	Target    string          `json:"target"`              // cluster, listener, networkFilter, httpFilter or virtualHost
	Operation string          `json:"operation"`           // Add, Remove, Patch; of filters AddFirst, AddBefore, AddAfter, AddLast
	Name      string          `json:"name,omitempty"`      // of the filter or virtual host; empty: all
	Value     json.RawMessage `json:"value,omitempty"`     // JSON of the protobuf
	JSONPatch json.RawMessage `json:"jsonPatch,omitempty"` // RFC 6902, in place of Value
}

// Address is where something listens: a host and a port, or a Unix socket if Pipe is set.
type Address struct {
	Host string `json:"host,omitempty"` // IP address; in the endpoints of a static cluster also a host name, which the proxy resolves
	Port uint32 `json:"port,omitempty"`
	Pipe string `json:"pipe,omitempty"` // path of a Unix socket; Host and Port are then empty
}

func (a Address) String() string {
	if a.Pipe != "" {
		return "unix:" + a.Pipe
	}
	return fmt.Sprintf("%s:%d", a.Host, a.Port)
}

// Switch is a decision that may be left to the proxy's own default.
type Switch string

// The values of a Switch; the zero value leaves the decision to the proxy.
const (
	Unset Switch = ""
	On    Switch = "on"
	Off   Switch = "off"
)

// SwitchOf is On or Off.
func SwitchOf(on bool) Switch {
	if on {
		return On
	}
	return Off
}

// Duration is a span of time that may be unset. The zero value is unset, which differs from a set span of 0 (for most
// timeouts: no limit). Its JSON form is that of [time.Duration.String], "" when unset.
type Duration struct {
	Span time.Duration
	Set  bool
}

// Span is a set Duration.
func Span(d time.Duration) Duration { return Duration{Span: d, Set: true} }

// Or returns d if it is set, else other.
func (d Duration) Or(other Duration) Duration {
	if d.Set {
		return d
	}
	return other
}

// IsZero reports whether d is unset; it lets omitzero leave out unset fields.
func (d Duration) IsZero() bool { return !d.Set }

func (d Duration) String() string {
	if !d.Set {
		return ""
	}
	return d.Span.String()
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Duration{}
		return nil
	}
	span, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Span(span)
	return nil
}

// Timeouts is all that a timeout policy can say about one destination or one inbound. Which field acts where:
//
//	Connect                              Cluster.ConnectTimeout
//	Idle                                 TCP.IdleTimeout or, for HTTP, Cluster.IdleTimeout
//	Request, StreamIdle                  Forward.Timeout, Forward.IdleTimeout
//	MaxStream, MaxConnection             Cluster.MaxStream, Cluster.MaxConnection
//	RequestHeaders                       HTTP.RequestHeadersTimeout
type Timeouts struct {
	Connect        Duration `json:"connect,omitzero"`
	Idle           Duration `json:"idle,omitzero"`
	Request        Duration `json:"request,omitzero"`
	StreamIdle     Duration `json:"streamIdle,omitzero"`
	MaxStream      Duration `json:"maxStream,omitzero"`
	MaxConnection  Duration `json:"maxConnection,omitzero"`
	RequestHeaders Duration `json:"requestHeaders,omitzero"`
}

// Or fills every unset field of t from other.
func (t Timeouts) Or(other Timeouts) Timeouts {
	return Timeouts{
		Connect:        t.Connect.Or(other.Connect),
		Idle:           t.Idle.Or(other.Idle),
		Request:        t.Request.Or(other.Request),
		StreamIdle:     t.StreamIdle.Or(other.StreamIdle),
		MaxStream:      t.MaxStream.Or(other.MaxStream),
		MaxConnection:  t.MaxConnection.Or(other.MaxConnection),
		RequestHeaders: t.RequestHeaders.Or(other.RequestHeaders),
	}
}

// Share is a part of all requests, in parts per million: 10_000 is one percent.
type Share uint32

// All is the Share of every request.
const All Share = 1_000_000
