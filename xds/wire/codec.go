package wire

import (
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto" // also registers the codec that ours falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Response is an envoy.service.discovery.v3.DeltaDiscoveryResponse made of resources that are encoded already.
type Response struct {
	TypeURL       string
	Nonce         string
	SystemVersion string // system_version_info
	ControlPlane  string // control_plane.identifier
	Resources     []*Resource
	Removed       []string
}

// Field numbers of DeltaDiscoveryResponse and of ControlPlane.
const (
	responseVersion      protowire.Number = 1
	responseResources    protowire.Number = 2
	responseTypeURL      protowire.Number = 4
	responseNonce        protowire.Number = 5
	responseRemoved      protowire.Number = 6
	responseControlPlane protowire.Number = 7
	controlPlaneID       protowire.Number = 1
)

// head encodes everything but the resources.
func (r *Response) head() []byte {
	size := sizeString(responseVersion, r.SystemVersion) + sizeString(responseTypeURL, r.TypeURL) + sizeString(responseNonce, r.Nonce)
	for _, n := range r.Removed {
		size += sizeField(responseRemoved, len(n))
	}
	id := sizeString(controlPlaneID, r.ControlPlane)
	if id > 0 {
		size += sizeField(responseControlPlane, id)
	}
	b := make([]byte, 0, size)
	b = appendString(b, responseVersion, r.SystemVersion)
	b = appendString(b, responseTypeURL, r.TypeURL)
	b = appendString(b, responseNonce, r.Nonce)
	for _, n := range r.Removed { // an element counts even if empty
		b = append(appendHead(b, responseRemoved, len(n)), n...)
	}
	if id > 0 {
		b = appendString(appendHead(b, responseControlPlane, id), controlPlaneID, r.ControlPlane)
	}
	return b
}

func sizeString(n protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return sizeField(n, len(s))
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendHead(b, n, len(s)), s...)
}

// codec splices a *Response and leaves every other message to protobuf.
type codec struct{ encoding.CodecV2 }

// Codec returns the codec for [google.golang.org/grpc.ForceServerCodecV2], or for ForceCodecV2 of a client that sends
// responses (the dialling side of a control plane). It calls itself "proto": the other end sees ordinary protobuf.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(encproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*Response)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, 0, 1+len(r.Resources))
	if head := r.head(); len(head) > 0 {
		out = append(out, mem.SliceBuffer(head))
	}
	for _, x := range r.Resources {
		out = append(out, x.frame) // not pooled, so it needs no reference count
	}
	return out, nil
}
