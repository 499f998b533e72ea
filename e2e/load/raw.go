package main

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// rawCodec leaves received messages as bytes.
type rawCodec struct{ encoding.CodecV2 }

type rawMessage []byte

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if raw, ok := v.(*rawMessage); ok {
		*raw = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// response is a DeltaDiscoveryResponse whose resources are still bytes.
type response struct {
	typ       wire.Type
	nonce     string
	resources [][]byte
	removed   []string
}

var errResponse = errors.New("not a DeltaDiscoveryResponse")

// parseResponse reads the fields 2 resources, 4 type_url, 5 nonce and 6
// removed_resources; the bytes stay shared.
func parseResponse(b []byte) (r response, err error) {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 || t != protowire.BytesType {
			return r, errResponse
		}
		v, length := protowire.ConsumeBytes(b[size:])
		if length < 0 {
			return r, errResponse
		}
		b = b[size+length:]
		switch n {
		case 2:
			r.resources = append(r.resources, v)
		case 4:
			r.typ = wire.Type(v)
		case 5:
			r.nonce = string(v)
		case 6:
			r.removed = append(r.removed, string(v))
		}
	}
	return r, nil
}

// resource is one version of a resource; equal ones are one pointer.
type resource struct {
	typ           wire.Type
	name, version string
	body          []byte
	refs          []ref // what Envoy subscribes to because of it
}

type ref struct {
	typ  wire.Type
	name string
}

// pool holds every resource that was ever received, once.
type pool struct {
	mu  sync.RWMutex
	all map[uint64]*resource
}

// intern returns the resource of an encoded envoy.service.discovery.v3.Resource.
func (p *pool) intern(b []byte) (*resource, error) {
	sum := xxhash.Sum64(b)
	p.mu.RLock()
	r := p.all[sum]
	p.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	var m discoveryv3.Resource
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	r = &resource{typ: wire.Type(m.GetResource().GetTypeUrl()), name: m.GetName(), version: m.GetVersion(), body: m.GetResource().GetValue()}
	body, err := m.GetResource().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.GetName(), err)
	}
	if r.refs, err = references(body); err != nil {
		return nil, fmt.Errorf("%s: %w", m.GetName(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.all[sum]; have != nil {
		return have, nil
	}
	p.all[sum] = r
	return r, nil
}

// references finds the names that a cluster or a listener needs by discovery.
func references(m proto.Message) (refs []ref, err error) {
	err = protorange.Range(m.ProtoReflect(), func(v protopath.Values) error {
		x, ok := v.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		switch x := x.Interface().(type) {
		case *clusterv3.Cluster:
			if x.GetType() == clusterv3.Cluster_EDS {
				name := x.GetEdsClusterConfig().GetServiceName()
				if name == "" {
					name = x.GetName()
				}
				refs = append(refs, ref{wire.Endpoints, name})
			}
		case *hcmv3.Rds:
			refs = append(refs, ref{wire.Route, x.GetRouteConfigName()})
		case *tlsv3.SdsSecretConfig:
			if x.GetSdsConfig() != nil {
				refs = append(refs, ref{wire.Secret, x.GetName()})
			}
		}
		return nil
	})
	return refs, err
}
