// Package envoy turns what a proxy shall do (package xds/ir) into Envoy's own configuration. It is the only package that
// builds Envoy config protobufs, apart from the bootstrap of a proxy.
//
// [Listener], [Cluster], [Endpoints], [Routes], [Secret] and [TrustBundle] are pure functions: equal input gives messages
// that marshal to equal bytes when marshalled deterministically, so that instances agree on versions. Each result has
// passed Envoy's own validation rules, also inside its opaque parts. [ParsePatch] reads what users write in Envoy's words.
// Package xds/plan calls them, one call per resource; nothing here reads a row, knows a policy or keeps state.
//
//	ir.Listener ─▶ listener.go ─▶ chain ─┬▶ tls.go          who are you
//	                                     ├▶ permissions.go  may you
//	                                     ├▶ http.go         what is served: routes.go, rewrite.go, peers.go
//	                                     └▶ accesslog.go    what was served, and who refused what was not
//
// # Why
//
// Policies decide in the IR; here is only what Envoy needs for it. What one decision implies elsewhere is derived in this
// package (a server name in any condition starts the TLS inspector, a permission puts its filters first, a prefix of
// whole segments becomes two routes), so that no caller can forget half of it. Patching finished protobufs per policy was
// not chosen: the result of such a chain cannot be predicted from any one of its links.
//
// Outbound routes are resources of their own (RDS), not part of the listener: a changed route then drains no connection.
//
// Source for every field: Envoy 1.40, https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api.
package envoy

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// ErrInvalid is wrapped by every error of this package: the IR asks for what Envoy cannot be configured to do.
var ErrInvalid = errors.New("no valid Envoy configuration")

// message is a protobuf with the rules that protoc-gen-validate gave it.
type message interface {
	proto.Message
	ValidateAll() error
}

// work collects the faults of one resource, so that an author sees all of them at once.
type work struct{ faults []error }

func (w *work) fail(format string, args ...any) {
	w.faults = append(w.faults, fmt.Errorf(format, args...))
}

// pack makes an opaque part of m. It is validated here, since the validation of what contains it stops at opaque parts.
func (w *work) pack(m message) *anypb.Any {
	if err := m.ValidateAll(); err != nil {
		w.faults = append(w.faults, err)
	}
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		w.faults = append(w.faults, err)
	}
	return packed
}

// finish hands out a complete resource, patched, or all that is wrong with it.
func finish[M message](w *work, name string, patches []ir.Patch, m M) (M, error) {
	if err := m.ValidateAll(); err != nil {
		w.faults = append(w.faults, err)
	}
	if len(w.faults) == 0 {
		w.patch(m, patches)
	}
	if len(w.faults) > 0 {
		var none M
		return none, fmt.Errorf("%w: %s %s: %w", ErrInvalid, m.ProtoReflect().Descriptor().Name(), name, errors.Join(w.faults...))
	}
	return m, nil
}

// ads is the source of whatever the stream that brought this resource also brings.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func span(d ir.Duration) *durationpb.Duration {
	if !d.Set {
		return nil
	}
	return durationpb.New(d.Span)
}

// number is n, or unset if n is 0.
func number(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt32(n)
}

func address(a ir.Address) *corev3.Address {
	if a.Pipe != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Pipe}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: a.Port},
	}}}
}

func inlineBytes(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(s)}}
}

func inlineString(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

// statName makes a name fit for Envoy's statistics, whose parts are separated by dots.
func statName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, name)
}
