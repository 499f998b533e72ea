package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/metadata"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// proxy behaves like one Envoy: a connection of its own, one delta stream, an
// answer to every message, subscriptions to what its resources name, and what
// it holds told again after a reconnect.
type proxy struct {
	fleet    *fleet
	zone     int
	name     string
	service  string // empty: an ingress
	calls    []call
	document string // its Dataplane
	token    string
	node     *corev3.Node
	callers  bool // calls services: all but ingresses

	// target is where to connect next.
	target chan string

	mu       sync.Mutex
	cut      func() // ends the stream
	held     map[wire.Type]map[string]*resource
	asked    map[wire.Type]map[string]struct{}
	answered map[wire.Type]bool // on this stream
	progress time.Time          // of the last message that brought something
	watch    watch
	messages []message // while the fleet records
}

// watch is what a proxy is expected to get.
type watch struct {
	typ  wire.Type
	name func(string) bool
	left int
	done time.Time
}

// message is what one response brought.
type message struct {
	typ       wire.Type
	resources []*resource
}

func (p *proxy) forget() {
	p.held = map[wire.Type]map[string]*resource{}
	p.asked = map[wire.Type]map[string]struct{}{}
	for _, t := range wire.Types() {
		p.held[t], p.asked[t] = map[string]*resource{}, map[string]struct{}{}
	}
	p.answered = map[wire.Type]bool{}
}

// live connects whenever there is a target, until the context ends.
func (p *proxy) live(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case address := <-p.target:
			err := p.connect(ctx, address)
			p.fleet.open.Done()
			if ctx.Err() == nil {
				p.fleet.broken(p, address, err)
			}
		}
	}
}

// window is how much a server may send ahead; Envoy allows more than it needs.
const window = 16 << 20

// connect holds one stream until it ends.
func (p *proxy) connect(ctx context.Context, address string) error {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: p.fleet.trust, MinVersion: tls.VersionTLS12})),
		grpc.WithContextDialer(p.fleet.dial), grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", p.token))
	defer cancel()
	p.mu.Lock()
	p.cut = cancel
	p.mu.Unlock()
	if !p.fleet.wanted(p.zone, address) {
		return nil
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(encproto.Name)}), grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return err
	}
	if err := p.greet(stream); err != nil {
		return err
	}
	for {
		var raw rawMessage
		if err := stream.RecvMsg(&raw); err != nil {
			return err
		}
		if err := p.take(stream, raw); err != nil {
			return err
		}
	}
}

// greet sends the first requests of a stream: to all clusters and listeners,
// and by name to what was asked for before, each with the versions held.
func (p *proxy) greet(stream grpc.ClientStream) error {
	p.mu.Lock()
	p.answered = map[wire.Type]bool{}
	var requests []*discoveryv3.DeltaDiscoveryRequest
	for _, t := range wire.Types() {
		q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(t), ResourceNamesSubscribe: slices.Sorted(maps.Keys(p.asked[t]))}
		if t != wire.Cluster && t != wire.Listener && len(p.asked[t]) == 0 {
			continue
		}
		if len(p.held[t]) > 0 {
			q.InitialResourceVersions = map[string]string{}
			for name, r := range p.held[t] {
				q.InitialResourceVersions[name] = r.version
			}
		}
		requests = append(requests, q)
	}
	p.mu.Unlock()
	requests[0].Node = p.node
	for _, q := range requests {
		if err := stream.SendMsg(q); err != nil {
			return err
		}
	}
	return nil
}

// take enters a response, answers it and asks for what it names.
func (p *proxy) take(stream grpc.ClientStream, raw []byte) error {
	resp, err := parseResponse(raw)
	if err != nil {
		return err
	}
	m := message{typ: resp.typ}
	for _, b := range resp.resources {
		r, err := p.fleet.pool.intern(b)
		if err != nil {
			return err
		}
		m.resources = append(m.resources, r)
	}
	ask, err := p.enter(m, resp.removed, len(raw))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(resp.typ), ResponseNonce: resp.nonce}); err != nil {
		return err
	}
	for _, t := range wire.Types() {
		if names := ask[t]; len(names) > 0 {
			if err := stream.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(t), ResourceNamesSubscribe: names}); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter notes what a message brought and returns what to subscribe to.
func (p *proxy) enter(m message, removed []string, size int) (map[wire.Type][]string, error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[m.typ]
	if held == nil {
		return nil, fmt.Errorf("%s: a response of the type %s that nobody asked for", p.name, m.typ)
	}
	ask := map[wire.Type][]string{}
	changed := 0
	for _, r := range m.resources {
		if held[r.name] == r {
			continue
		}
		changed++
		held[r.name] = r
		for _, need := range r.refs {
			if _, ok := p.asked[need.typ][need.name]; !ok {
				p.asked[need.typ][need.name] = struct{}{}
				ask[need.typ] = append(ask[need.typ], need.name)
			}
		}
		if w := &p.watch; w.left > 0 && w.typ == m.typ && w.name(r.name) {
			if w.left--; w.left == 0 {
				w.done = now
				p.fleet.watched.Done()
			}
		}
	}
	for _, name := range removed {
		delete(held, name)
	}
	if changed > 0 || len(removed) > 0 || !p.answered[m.typ] {
		p.progress = now
	}
	p.answered[m.typ] = true
	if p.fleet.recording.Load() {
		p.messages = append(p.messages, m)
	}
	p.fleet.count(len(m.resources), changed, size, now)
	return ask, nil
}

// full reports whether the proxy has all it asked for, and calls all it should.
func (p *proxy) full(outbounds int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range []wire.Type{wire.Cluster, wire.Listener} {
		if !p.answered[t] {
			return fmt.Errorf("%s has no answer for %s", p.name, t.Short())
		}
	}
	for t, names := range p.asked {
		for name := range names {
			if p.held[t][name] == nil {
				return fmt.Errorf("%s lacks %s %s", p.name, t.Short(), name)
			}
		}
	}
	if n := len(p.asked[wire.Endpoints]); p.callers && n < outbounds {
		return fmt.Errorf("%s has %d of %d outbounds", p.name, n, outbounds)
	}
	return nil
}
