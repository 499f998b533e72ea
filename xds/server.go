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
	groups   map[*plan.Set]*group
	streams  map[api.ID]*stream
	behind   map[*stream]struct{}
	rejected map[*stream]struct{}
	number   uint64

	// Staged by the engine's publish phase, applied by Publish.
	stagedContents map[*content]*wire.Resource
	stagedPlans    map[*stream]*plan.Plan
}

// content is a resource that some connected proxy uses.
type content struct {
	typ     wire.Type
	name    string
	res     *wire.Resource
	groups  map[*group]struct{}
	release func()
}

// group is a set of names and the streams that have it.
type group struct {
	set     *plan.Set
	members map[wire.Type]map[string]*content // by Envoy's name: cheaper to look up than a Ref
	streams map[*stream]struct{}
}

// get returns the content of a name; nil: the set does not name it.
func (g *group) get(t wire.Type, name string) *content {
	if g == nil {
		return nil
	}
	return g.members[t][name]
}

// New returns a server without streams.
func New(o Options) *Server {
	return &Server{
		o:        o,
		contents: map[plan.Ref]*content{}, groups: map[*plan.Set]*group{},
		streams: map[api.ID]*stream{}, behind: map[*stream]struct{}{}, rejected: map[*stream]struct{}{},
		stagedContents: map[*content]*wire.Resource{}, stagedPlans: map[*stream]*plan.Plan{},
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
	s.behind[st] = struct{}{}
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
	st.closed = true
	if s.streams[st.proxy] == st {
		delete(s.streams, st.proxy)
	}
	delete(s.behind, st)
	delete(s.rejected, st)
	var unused []*content
	for _, p := range []*plan.Plan{st.plan, s.stagedPlans[st]} {
		if p != nil {
			unused = append(append(unused, s.leave(st, p.Own)...), s.leave(st, p.Class)...)
		}
	}
	st.plan = nil
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
	staged := s.stagedPlans[st]
	s.stagedPlans[st] = p
	if p != nil {
		s.enter(st, p.Own)
		s.enter(st, p.Class)
	}
	// Twice before one Publish: only the newer counts.
	releaseAll(s.leaveUnless(st, staged, st.plan, p))
}

// leaveUnless leaves the sets of a plan that none of the others has.
func (s *Server) leaveUnless(st *stream, gone *plan.Plan, others ...*plan.Plan) (unused []*content) {
	if gone == nil {
		return nil
	}
	for _, set := range []*plan.Set{gone.Own, gone.Class} {
		if !slices.ContainsFunc(others, func(p *plan.Plan) bool { return p != nil && (p.Own == set || p.Class == set) }) {
			unused = append(unused, s.leave(st, set)...)
		}
	}
	return unused
}

func (s *Server) enter(st *stream, set *plan.Set) {
	g := s.groups[set]
	if g == nil {
		g = &group{set: set, members: map[wire.Type]map[string]*content{}, streams: map[*stream]struct{}{}}
		s.groups[set] = g
		for _, t := range wire.Types() {
			names := set.Of(t)
			g.members[t] = make(map[string]*content, len(names))
			for name, ref := range names {
				g.members[t][name] = s.use(g, t, name, ref)
			}
		}
	}
	g.streams[st] = struct{}{}
}

func (s *Server) use(g *group, t wire.Type, name string, ref plan.Ref) *content {
	c := s.contents[ref]
	if c == nil {
		c = &content{typ: t, name: name, groups: map[*group]struct{}{}}
		s.contents[ref] = c
		c.release = incr.Hold(s.o.Engine, ref, func(res *wire.Resource, err error) {
			if err != nil {
				s.o.Log.Error("resource cannot be built; the last good one stays", "type", t.Short(), "name", name, "error", err)
			}
			s.mu.Lock()
			s.stagedContents[c] = res
			s.mu.Unlock()
		})
	}
	c.groups[g] = struct{}{}
	return c
}

// leave takes the stream out of the group of a set, and returns what nobody
// uses any more, for the caller to release without the lock.
func (s *Server) leave(st *stream, set *plan.Set) (unused []*content) {
	g := s.groups[set]
	if g == nil {
		return nil
	}
	delete(g.streams, st)
	if len(g.streams) > 0 {
		return nil
	}
	delete(s.groups, set)
	for _, t := range wire.Types() {
		for _, ref := range set.Of(t) {
			c := s.contents[ref]
			if c == nil {
				continue
			}
			delete(c.groups, g)
			if len(c.groups) == 0 {
				delete(s.contents, ref)
				delete(s.stagedContents, c)
				unused = append(unused, c)
			}
		}
	}
	return unused
}

func releaseAll(unused []*content) {
	for _, c := range unused {
		c.release()
	}
}

// Publish makes a finished round visible to all streams at once. It is the
// engine's hook after each round.
func (s *Server) Publish(round incr.Round) {
	s.mu.Lock()
	s.revision = uint64(round.Revision)
	woken := map[*stream]struct{}{}
	changed := map[*group][]dirtyName{}
	for c, res := range s.stagedContents {
		if c.res == res {
			continue
		}
		c.res = res
		for g := range c.groups {
			changed[g] = append(changed[g], dirtyName{c.typ, c.name})
		}
	}
	clear(s.stagedContents)
	for g, names := range changed {
		for st := range g.streams {
			st.mark(names)
			woken[st] = struct{}{}
		}
	}
	var unused []*content
	classes := map[[2]*plan.Set][]dirtyName{} // streams of one class have one difference
	for st, p := range s.stagedPlans {
		old := st.plan
		if old == nil && p == nil {
			continue // its Dataplane comes with a later round; until then there is nothing to say
		}
		st.plan = p
		oldOwn, oldClass := setsOf(old)
		newOwn, newClass := setsOf(p)
		st.mark(diff(oldOwn, newOwn))
		if oldClass != newClass {
			between := [2]*plan.Set{oldClass, newClass}
			names, known := classes[between]
			if !known {
				names = diff(oldClass, newClass)
				classes[between] = names
			}
			st.mark(names)
		}
		unused = append(unused, s.leaveUnless(st, old, p)...)
		woken[st] = struct{}{}
	}
	clear(s.stagedPlans)
	for st := range woken {
		st.target(s.revision)
		s.behind[st] = struct{}{}
	}
	s.mu.Unlock()
	releaseAll(unused)
	for st := range woken {
		st.wakeUp()
	}
}

func setsOf(p *plan.Plan) (own, class *plan.Set) {
	if p == nil {
		return nil, nil
	}
	return p.Own, p.Class
}

// diff lists the names that have another resource in the newer set; a set may
// be nil.
func diff(old, next *plan.Set) (names []dirtyName) {
	of := func(s *plan.Set, t wire.Type) plan.Names {
		if s == nil {
			return nil
		}
		return s.Of(t)
	}
	for _, t := range wire.Types() {
		was, is := of(old, t), of(next, t)
		for name, ref := range is {
			if before, ok := was[name]; !ok || before != ref {
				names = append(names, dirtyName{t, name})
			}
		}
		for name := range was {
			if _, ok := is[name]; !ok {
				names = append(names, dirtyName{t, name})
			}
		}
	}
	return names
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

// settle notes whether a stream, at the revision, is behind or refuses something.
// What was published since the stream looked counts as not yet sent.
func (s *Server) settle(st *stream, rev uint64, behind, rejects bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.closed {
		return false
	}
	behind = behind || st.waiting(rev)
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
