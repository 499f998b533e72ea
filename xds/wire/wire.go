// Package wire holds discovery resources in the form in which they travel: encoded once, shared by every stream.
//
// It owns the encoded bytes, the version made of them, and the gRPC codec that splices them into responses. Package
// xds/envoy makes resources with [Encode], package kds with [EncodeAny]; the streams of both send them in a [Response]
// through [Codec]. It never decides what a resource contains or who gets it, and it never decodes one except for
// inspection.
//
//	one allocation: │ tag 2 │ len │ 1: version │ 2: Any{ type_url, value: │ body │ } │ 3: name │
//	                └───────────────────── field 2 of DeltaDiscoveryResponse ───────────────────┘
//
// # Why
//
// A thousand proxies that get the same cluster need the same bytes. Handing a protobuf to gRPC encodes it a thousand
// times; keeping the bytes of the Any still copies them a thousand times. Since a repeated field is its elements one
// after the other, a whole frame can be prepared, and a response is a short head and a list of pointers. gRPC writes
// them without joining them (unless it compresses).
//
// The version is a hash of deterministically encoded bytes, so that all instances of a control plane agree on it, and
// equal content has an equal version whoever made it. SHA-256 was not taken: versions defend against nobody, and
// xxhash64 costs a tenth.
package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// ErrEncode is returned for a message that cannot be a resource of the type.
var ErrEncode = errors.New("resource cannot be encoded")

// Type is the type URL of a kind of resource.
type Type string

// The resource types that Envoy subscribes to.
const (
	Cluster   Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Listener  Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Route     Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	Secret    Type = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// Types lists the types in the order in which a proxy should learn of them.
func Types() []Type { return []Type{Cluster, Endpoints, Secret, Listener, Route} }

// Short is the name of the discovery service of the type (CDS, EDS, LDS, RDS, SDS), for metrics and logs. Of any other
// type it is the last word of the URL.
func (t Type) Short() string {
	switch t {
	case Cluster:
		return "CDS"
	case Endpoints:
		return "EDS"
	case Listener:
		return "LDS"
	case Route:
		return "RDS"
	case Secret:
		return "SDS"
	}
	return string(t[strings.LastIndexAny(string(t), "./")+1:])
}

// Resource is one encoded resource. It is immutable and may be sent on any number of streams at once.
type Resource struct {
	Type    Type
	Name    string
	Version string

	frame     mem.Buffer // field 2 of DeltaDiscoveryResponse: tag, length, bytes
	body, end int        // where the message is in it
}

// Field numbers of envoy.service.discovery.v3.Resource and google.protobuf.Any.
const (
	resourceVersion protowire.Number = 1
	resourceAny     protowire.Number = 2
	resourceName    protowire.Number = 3
	anyTypeURL      protowire.Number = 1
	anyValue        protowire.Number = 2
)

const versionLen = 16 // hexadecimal digits of 64 bits

// Encode encodes a message once. The version is the xxhash64 of its deterministic bytes, 16 hexadecimal digits.
func Encode(t Type, name string, m proto.Message) (*Resource, error) {
	if got := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()); got != string(t) {
		return nil, fmt.Errorf("%s %q is a %s: %w", t.Short(), name, got, ErrEncode)
	}
	if !utf8.ValidString(name) {
		return nil, fmt.Errorf("%s %q: name is not UTF-8: %w", t.Short(), name, ErrEncode)
	}
	opts := proto.MarshalOptions{Deterministic: true}
	size := opts.Size(m)
	opts.UseCachedSize = true // the message is not changed in between
	b, version := open(t, name, versionLen, size)
	body := len(b)
	b, err := opts.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w: %w", t.Short(), name, ErrEncode, err)
	}
	end := len(b)
	if end-body != size {
		return nil, fmt.Errorf("%s %q: changed while it was encoded: %w", t.Short(), name, ErrEncode)
	}
	sum := xxhash.Sum64(b[body:])
	for i := range 8 { // big endian
		hex.Encode(b[version+2*i:], []byte{byte(sum >> (56 - 8*i))})
	}
	return seal(t, name, string(b[version:version+versionLen]), b, body), nil
}

// EncodeAny frames bytes that are encoded already, under a version that the caller made. They are copied.
func EncodeAny(typeURL, name, version string, body []byte) *Resource {
	b, at := open(Type(typeURL), name, len(version), len(body))
	copy(b[at:], version)
	start := len(b)
	return seal(Type(typeURL), name, version, append(b, body...), start)
}

// open writes a frame up to the body into a buffer that has room for all of it, and returns where the version goes.
func open(t Type, name string, version, body int) (b []byte, at int) {
	any := sizeField(anyTypeURL, len(t)) + sizeField(anyValue, body)
	res := sizeField(resourceVersion, version) + sizeField(resourceAny, any) + sizeField(resourceName, len(name))
	b = make([]byte, 0, sizeField(responseResources, res))
	b = appendHead(b, responseResources, res)
	b = appendHead(b, resourceVersion, version)
	at = len(b)
	b = b[:at+version]
	b = appendHead(b, resourceAny, any)
	b = appendHead(b, anyTypeURL, len(t))
	b = append(b, t...)
	return appendHead(b, anyValue, body), at
}

func seal(t Type, name, version string, b []byte, body int) *Resource {
	end := len(b)
	b = appendHead(b, resourceName, len(name))
	b = append(b, name...)
	return &Resource{Type: t, Name: name, Version: version, frame: mem.SliceBuffer(b), body: body, end: end}
}

func sizeField(n protowire.Number, size int) int {
	return protowire.SizeTag(n) + protowire.SizeBytes(size)
}

func appendHead(b []byte, n protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(size))
}

// ItemName and ItemVersion make a resource an item of a discovery session.
func (r *Resource) ItemName() string    { return r.Name }
func (r *Resource) ItemVersion() string { return r.Version }

// Size is what the resource adds to a response, in bytes.
func (r *Resource) Size() int { return r.frame.Len() }

// Body is the encoded message, without a copy: it must not be changed.
func (r *Resource) Body() []byte { return r.frame.ReadOnlyData()[r.body:r.end:r.end] }

// Message decodes the resource, for inspection. Its type must be linked into the program.
func (r *Resource) Message() (proto.Message, error) {
	m, err := (&anypb.Any{TypeUrl: string(r.Type), Value: r.Body()}).UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", r.Type.Short(), r.Name, err)
	}
	return m, nil
}
