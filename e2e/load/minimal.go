package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var errUnknown = errors.New("no such proxy was captured")

// minimal is the smallest useful control plane that one writes with
// go-control-plane: its snapshot cache and its server. Decoded resources are
// shared between nodes.
type minimal struct {
	ads
	server  deltav3.Server
	cache   cache.SnapshotCache
	nodes   []minimalNode
	version int
}

type minimalNode struct {
	id      string
	held    map[string]map[string]types.Resource // by type and name
	changes [][2][]named
}

// named is a resource with its type and name.
type named struct {
	typ, name string
	resource  types.Resource
}

func newMinimal(ctx context.Context, c *capture) (*minimal, error) {
	m := &minimal{cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil)}
	m.server = deltav3.NewServer(ctx, m.cache, nil)
	decoded := make([]named, len(c.Resources))
	for i, r := range c.Resources {
		body, err := (&anypb.Any{TypeUrl: string(r.Type), Value: r.Body}).UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		decoded[i] = named{string(r.Type), r.Name, body}
	}
	for _, n := range c.Nodes {
		x := minimalNode{id: n.ID, held: map[string]map[string]types.Resource{}, changes: make([][2][]named, len(n.Changes))}
		for _, i := range n.Held {
			x.hold(decoded[i])
		}
		for i, c := range n.Changes {
			for back, batches := range c {
				for _, b := range batches {
					for _, j := range b.Items {
						r := decoded[j]
						if back == 0 && x.held[r.typ][r.name] == r.resource {
							r.resource = again(r.resource)
						}
						x.changes[i][back] = append(x.changes[i][back], r)
					}
				}
			}
		}
		m.nodes = append(m.nodes, x)
		if err := m.set(x); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// again is a resource that says the same in other bytes. Endpoints that Envoy
// needs again, because their cluster has changed, must differ to be sent by a
// server that sends what differs.
func again(r types.Resource) types.Resource {
	e, ok := r.(*endpointv3.ClusterLoadAssignment)
	if !ok {
		return r
	}
	e = proto.CloneOf(e)
	if e.Policy == nil {
		e.Policy = &endpointv3.ClusterLoadAssignment_Policy{}
	}
	e.Policy.OverprovisioningFactor = wrapperspb.UInt32(140) // Envoy's default
	return e
}

func (n *minimalNode) hold(r named) {
	if n.held[r.typ] == nil {
		n.held[r.typ] = map[string]types.Resource{}
	}
	n.held[r.typ][r.name] = r.resource
}

// set makes a new snapshot of a node.
func (m *minimal) set(n minimalNode) error {
	m.version++
	resources := map[string][]types.Resource{}
	for t, byName := range n.held {
		list := make([]types.Resource, 0, len(byName))
		for r := range maps.Values(byName) {
			list = append(list, r)
		}
		resources[t] = list
	}
	s, err := cache.NewSnapshot(strconv.Itoa(m.version), resources)
	if err != nil {
		return err
	}
	return m.cache.SetSnapshot(context.Background(), n.id, s)
}

func (m *minimal) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, m)
}

// DeltaAggregatedResources is the library's own.
func (m *minimal) DeltaAggregatedResources(rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return m.server.DeltaStreamHandler(rpc, "")
}

func (m *minimal) apply(change, back int) error {
	for _, n := range m.nodes {
		if len(n.changes[change][back]) == 0 {
			continue
		}
		for _, r := range n.changes[change][back] {
			n.hold(r)
		}
		if err := m.set(n); err != nil {
			return err
		}
	}
	return nil
}
