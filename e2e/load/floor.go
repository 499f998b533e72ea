package main

import (
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// floor is the prepared floor: responses are put together before anybody
// connects, and a change is a signal to every stream.
type floor struct {
	ads
	nodes map[string]*prepared

	mu      sync.Mutex
	streams map[chan []*wire.Response]*prepared
}

// prepared is all that is ever sent to a proxy.
type prepared struct {
	first   map[wire.Type][]*wire.Response
	changes [][2][]*wire.Response
}

// messageSize is where a first response is cut.
const messageSize = 1 << 20

func newFloor(c *capture) *floor {
	f := &floor{nodes: map[string]*prepared{}, streams: map[chan []*wire.Response]*prepared{}}
	encoded := make([]*wire.Resource, len(c.Resources))
	for i, r := range c.Resources {
		encoded[i] = wire.EncodeAny(string(r.Type), r.Name, r.Version, r.Body)
	}
	for _, n := range c.Nodes {
		p := &prepared{first: map[wire.Type][]*wire.Response{}, changes: make([][2][]*wire.Response, len(n.Changes))}
		size := map[wire.Type]int{}
		for _, i := range n.Held {
			r := encoded[i]
			list := p.first[r.Type]
			if size[r.Type] += r.Size(); len(list) == 0 || size[r.Type] > messageSize {
				list = append(list, &wire.Response{TypeURL: string(r.Type), Nonce: "1"})
				size[r.Type] = r.Size()
			}
			last := list[len(list)-1]
			last.Resources = append(last.Resources, r)
			p.first[r.Type] = list
		}
		for i, c := range n.Changes {
			for back, batches := range c {
				for _, b := range batches {
					m := &wire.Response{TypeURL: string(b.Type), Nonce: "2"}
					for _, i := range b.Items {
						m.Resources = append(m.Resources, encoded[i])
					}
					p.changes[i][back] = append(p.changes[i][back], m)
				}
			}
		}
		f.nodes[n.ID] = p
	}
	return f
}

func (f *floor) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, f)
}

func (f *floor) apply(change, back int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s, p := range f.streams {
		if m := p.changes[change][back]; len(m) > 0 {
			s <- m
		}
	}
	return nil
}

// DeltaAggregatedResources answers the first request of each type, then sends
// changes on their signal.
func (f *floor) DeltaAggregatedResources(rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	q, err := rpc.Recv()
	if err != nil {
		return err
	}
	p := f.nodes[q.GetNode().GetId()]
	if p == nil {
		return errUnknown
	}
	due := make(chan []*wire.Response, 16)
	f.mu.Lock()
	f.streams[due] = p
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.streams, due)
		f.mu.Unlock()
	}()
	go func() { // ends with the stream
		asked := map[wire.Type]bool{}
		for err == nil {
			if t := wire.Type(q.GetTypeUrl()); !asked[t] {
				asked[t] = true
				switch {
				case len(q.GetInitialResourceVersions()) == 0:
					due <- p.first[t]
				case t == wire.Cluster || t == wire.Listener:
					due <- []*wire.Response{{TypeURL: string(t), Nonce: "1"}}
				}
			}
			q, err = rpc.Recv()
		}
	}()
	for {
		select {
		case list := <-due:
			for _, m := range list {
				if err := rpc.SendMsg(m); err != nil {
					return err
				}
			}
		case <-rpc.Context().Done():
			return nil
		}
	}
}
