// Package xds serves configuration to Envoys: the aggregated delta discovery
// service over the plans of the connected proxies.
//
// It owns the streams and what each proxy holds. A zone registers [Server] on
// its dp-server, runs the engine with [Server.Publish] as the hook after each
// round, and gives it the functions of [Options] to admit proxies and to hear
// what they say. It never computes configuration (xds/plan does), never writes
// the database, and does not know how a proxy proves who it is.
//
//	engine round ─▶ staged plans, contents ─▶ Publish ─▶ dirty names ─▶ stream ─▶ delta.Session ─▶ Envoy
//	                                                      per stream      ▲                          │
//	                                                                      └──── ACK, NACK ◀──────────┘
//
// # Why
//
// A round is published as a whole under one lock, and a message is put together
// under the same lock, so that no proxy sees half a round. Proxies that share a
// set of names share one group: a changed resource finds its streams through
// the groups that name it, and a stream that connects to a known class costs
// its own names only. The engine never waits for a stream: a stream that is
// behind has a set of dirty names, never a queue.
package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/kds/delta"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// Hello is what a proxy says of itself in the first request of a stream.
type Hello struct {
	// Mesh and Name are the parts of the node ID, <mesh>.<name>.
	Mesh, Name string
	// Credentials are the values of the authorization header; one is right.
	Credentials []string
	// Node is the whole node, with its metadata.
	Node *corev3.Node
	// Stream numbers the streams of this server.
	Stream uint64
}

// Options of a Server. All functions are called from the streams' goroutines.
type Options struct {
	Engine   *incr.Engine
	Instance string
	// Admit checks the credential and returns the ID of the proxy's Dataplane,
	// which must be in the database when it returns. Its error ends the stream.
	Admit func(context.Context, *Hello) (api.ID, error)
	// Report is called when what a proxy holds or refuses has changed, and when
	// its stream has ended (Status.Closed). It must not block.
	Report func(Status)
	// Drain is how long removed resources stay after nothing refers to them.
	Drain time.Duration
	Now   func() time.Time
	Log   *slog.Logger
}

// Status is what is known of one stream.
type Status struct {
	Proxy     api.ID
	Stream    uint64
	Connected time.Time
	Closed    bool
	// Stats counts by type: messages sent, acknowledged, refused.
	Stats map[wire.Type]Counts
	// Rejections are the resources that the proxy refuses to take.
	Rejections []delta.Rejection
	// Behind is how many names it still lacks.
	Behind int
	// Reached is the newest database revision it is known to have completely.
	Reached uint64
	Node    *corev3.Node
}

// Counts are the messages of one type on one stream.
type Counts struct{ Sent, Acked, Rejected uint64 }

// Server is the discovery service. It implements the gRPC service
// envoy.service.discovery.v3.AggregatedDiscoveryService, delta only.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	o Options

	// mu is the publishing lock: taken for writing by a round, for reading by a
	// stream that puts a message together. It is never held while the engine is
	// called, except by the engine's own goroutine.
	mu       sync.RWMutex
	revision uint64
	contents map[plan.Ref]*content
	classes  map[*plan.Set]*group
	streams  map[api.ID]*stream
	number   uint64

	// Staged by the engine's publish phase, applied by Publish.
	stagedContents map[*content]*wire.Resource
	stagedPlans    map[*stream]planned

	// books guards who is behind and who refuses something. It is not the
	// publishing lock, because every stream writes here after every answer, and
	// would wait for those that put messages together.
	books    sync.Mutex
	behind   map[*stream]struct{}
	rejected map[*stream]struct{}
}

// New returns a server without streams.
func New(o Options) *Server {
	return &Server{
		o:        o,
		contents: map[plan.Ref]*content{}, classes: map[*plan.Set]*group{},
		streams: map[api.ID]*stream{}, behind: map[*stream]struct{}{}, rejected: map[*stream]struct{}{},
		stagedContents: map[*content]*wire.Resource{}, stagedPlans: map[*stream]planned{},
	}
}

// Register adds the service to a gRPC server, which must use [wire.Codec].
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// StreamAggregatedResources refuses the state-of-the-world variant.
func (s *Server) StreamAggregatedResources(discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return status.Error(codes.Unimplemented, "only delta discovery is served: set api_type DELTA_GRPC")
}

// DeltaAggregatedResources serves one proxy until either side ends the stream.
func (s *Server) DeltaAggregatedResources(rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := rpc.Recv()
	if err != nil {
		return endOf(err)
	}
	hello, err := s.hello(rpc.Context(), first)
	if err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	proxy, err := s.o.Admit(rpc.Context(), hello)
	if err != nil {
		s.o.Log.Warn("proxy refused", "mesh", hello.Mesh, "proxy", hello.Name, "error", err)
		return status.Error(codes.Unknown, err.Error())
	}
	st := s.open(proxy, hello, rpc)
	if st == nil {
		return errAgain
	}
	defer s.close(st)
	return st.serve(first)
}

func (s *Server) hello(ctx context.Context, first *discoveryv3.DeltaDiscoveryRequest) (*Hello, error) {
	h := &Hello{Node: first.GetNode()}
	id := h.Node.GetId()
	if id == "" {
		return nil, errors.New("request must have a valid Proxy ID: Envoy ID must not be nil")
	}
	var ok bool
	if h.Mesh, h.Name, ok = strings.Cut(id, "."); !ok || h.Name == "" {
		return nil, fmt.Errorf("invalid node ID %q: the name should be provided after the dot", id)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	h.Credentials = md.Get("authorization")
	s.mu.Lock()
	s.number++
	h.Stream = s.number
	s.mu.Unlock()
	return h, nil
}

// endOf makes the ordinary ends of a stream no error.
func endOf(err error) error {
	if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// errAgain ends a stream that a newer one of the same proxy replaces.
var errAgain = status.Error(codes.Unavailable, "the proxy has connected again")

// open enters the stream. A proxy that connects again replaces its old stream:
// the newer one is alive for certain. It returns nil if a newer one is open.
func (s *Server) open(proxy api.ID, h *Hello, rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) *stream {
	st := newStream(s, proxy, h, rpc)
	s.mu.Lock()
	old := s.streams[proxy]
	if old != nil && old.number > st.number { // it was admitted first and got here last
		s.mu.Unlock()
		s.o.Report(st.status(true))
		return nil
	}
	s.streams[proxy] = st
	s.books.Lock()
	s.behind[st] = struct{}{}
	s.books.Unlock()
	s.mu.Unlock()
	if old != nil {
		old.end(errAgain)
	}
	st.release = incr.Hold(s.o.Engine, plan.Proxy.Ref(proxy), func(p *plan.Plan, err error) { s.stagePlan(st, p) })
	return st
}

func (s *Server) close(st *stream) {
	st.end(nil)
	st.release()
	s.mu.Lock()
	if s.streams[st.proxy] == st {
		delete(s.streams, st.proxy)
	}
	s.books.Lock()
	st.closed = true
	delete(s.behind, st)
	delete(s.rejected, st)
	s.books.Unlock()
	unused := append(s.leave(st, s.stagedPlans[st], st.plan), s.leave(st, st.plan)...)
	st.plan = planned{}
	delete(s.stagedPlans, st)
	s.mu.Unlock()
	releaseAll(unused)
	s.o.Report(st.status(true))
}

// stagePlan runs in the engine's publish phase: it enters the groups of a new
// plan, so that what they name is computed in the same round.
func (s *Server) stagePlan(st *stream, p *plan.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.closed {
		return
	}
	staged, again := s.stagedPlans[st]
	like := st.plan
	if again {
		like = staged
	}
	next := s.enter(st, p, like)
	s.stagedPlans[st] = next
	// Twice before one Publish: only the newer counts.
	releaseAll(s.leave(st, staged, st.plan, next))
}

// Publish makes a finished round visible to all streams at once. It is the
// engine's hook after each round.
func (s *Server) Publish(round incr.Round) {
	s.mu.Lock()
	s.revision = uint64(round.Revision)
	woken := map[*stream]struct{}{}
	changed := map[*part][]string{}
	for c, res := range s.stagedContents {
		if c.res == res {
			continue
		}
		c.res = res
		for p := range c.parts {
			changed[p] = append(changed[p], c.name)
		}
	}
	clear(s.stagedContents)
	for p, names := range changed {
		slices.Sort(names)
		what := []news{{p.typ, names}}
		for g := range p.groups {
			for st := range g.streams {
				st.mark(what)
				woken[st] = struct{}{}
			}
		}
	}
	var unused []*content
	classes := map[[2]*group][]news{} // streams of one class have one difference
	for st, next := range s.stagedPlans {
		old := st.plan
		if old == next && old == (planned{}) {
			continue // its Dataplane comes with a later round; until then there is nothing to say
		}
		st.plan = next
		between := [2]*group{old.class, next.class}
		ofClass, known := classes[between]
		if !known {
			ofClass = diff(old.class, next.class)
			classes[between] = ofClass
		}
		st.mark(diff(old.own, next.own))
		st.mark(ofClass)
		unused = append(unused, s.leave(st, old, next)...)
		woken[st] = struct{}{}
	}
	clear(s.stagedPlans)
	s.books.Lock()
	for st := range woken {
		st.target(s.revision)
		s.behind[st] = struct{}{}
	}
	s.books.Unlock()
	s.mu.Unlock()
	for st := range woken {
		st.wakeUp()
	}
	releaseAll(unused)
}

// Convergence is how far the connected proxies are.
type Convergence struct {
	// Revision is the database revision that every proxy that is not behind has.
	Revision uint64
	Proxies  int
	Behind   int
	Rejected int
	// Laggards names some that are behind or refuse something, with the reason.
	Laggards []Laggard
}

// Laggard is a proxy that does not have what it should have.
type Laggard struct {
	Proxy  api.ID
	Reason string
}

// Convergence reports at most sample laggards. Its cost follows their number.
func (s *Server) Convergence(sample int) Convergence {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.books.Lock()
	defer s.books.Unlock()
	c := Convergence{Revision: s.revision, Proxies: len(s.streams), Behind: len(s.behind), Rejected: len(s.rejected)}
	for st := range s.rejected {
		if len(c.Laggards) < sample {
			c.Laggards = append(c.Laggards, Laggard{st.proxy, st.refusal()})
		}
	}
	for st := range s.behind {
		if len(c.Laggards) < sample {
			c.Laggards = append(c.Laggards, Laggard{st.proxy, "has not yet acknowledged everything"})
		}
	}
	return c
}

// settle notes whether a stream is behind or refuses something. What was
// published since the stream looked counts as not yet sent.
func (s *Server) settle(st *stream) (changed bool) {
	s.books.Lock()
	defer s.books.Unlock()
	if st.closed {
		return false
	}
	behind, rejects := st.progress()
	change := func(set map[*stream]struct{}, in bool) {
		if _, was := set[st]; was != in {
			changed = true
			if in {
				set[st] = struct{}{}
			} else {
				delete(set, st)
			}
		}
	}
	change(s.behind, behind)
	change(s.rejected, rejects)
	return changed
}

// Drain ends streams with Unavailable, so that their proxies connect elsewhere
// or again; share of 1 ends all.
func (s *Server) Drain(share float64) {
	s.mu.RLock()
	n := int(share * float64(len(s.streams)))
	var out []*stream
	for _, st := range s.streams {
		if len(out) >= n {
			break
		}
		out = append(out, st)
	}
	s.mu.RUnlock()
	for _, st := range out {
		st.end(status.Error(codes.Unavailable, "the control plane is going away"))
	}
}
