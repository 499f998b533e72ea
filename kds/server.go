package kds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // zones compress every call
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/kds/kdspb"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// ServerOptions are those of global.
type ServerOptions struct {
	Options
	// Authenticate says whether the token is one of the zone. Nil refuses every
	// zone that is not in Unauthenticated.
	Authenticate func(ctx context.Context, zone, token string) error
	// Unauthenticated zones need no token.
	Unauthenticated []string
	// HealthInterval is what zones are told to ping at; zero leaves it to them.
	// A zone that announced pings and was silent for HealthTimeout loses its
	// streams; zero: never.
	HealthInterval, HealthTimeout time.Duration
	// Subscriptions is how many connections of a zone are remembered. Zero: 10.
	Subscriptions int
	// Flush is how often counters become visible. Zero: 10 s.
	Flush time.Duration
}

// Server is global's end of the links of all zones.
type Server struct {
	o    ServerOptions
	site api.Site
	way  direction
	down *catalog
	ord  orders
	done chan struct{} // closed when Run ends

	mu    sync.Mutex
	zones map[string]*zone
}

// zone is what global remembers of a zone between its streams.
type zone struct {
	inbox   *inbox
	book    *book
	senders map[*sender]struct{}
	pings   map[chan struct{}]struct{} // streams that end when pings stop
	asking  map[api.About]*asking
	opened  time.Time
}

// NewServer returns the server; it serves once Run runs.
func NewServer(o ServerOptions) *Server {
	o.Options = o.Options.filled()
	o.Subscriptions = cmp.Or(o.Subscriptions, 10)
	o.Flush = cmp.Or(o.Flush, 10*time.Second)
	way := down(o.SkipLabels)
	return &Server{
		o: o, way: way,
		down: newCatalog(o.Options, way), ord: newOrders(o.Options, way),
		done: make(chan struct{}), zones: map[string]*zone{},
	}
}

// GRPC returns the options that a gRPC server needs to serve zones: sizes,
// keepalive and the codec that splices encoded resources.
func (s *Server) GRPC() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.MaxRecvMsgSize(s.o.MaxMessage),
		grpc.MaxSendMsgSize(s.o.MaxMessage),
		grpc.MaxConcurrentStreams(1_000_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime, PermitWithoutStream: true}),
	}
}

const keepaliveTime = 15 * time.Second

// Register adds the services to a gRPC server made with the options of GRPC.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&kdspb.SyncService, s)
	r.RegisterService(&kdspb.GlobalService, s)
}

// Run follows the database for the streams until the context ends; then every
// stream ends.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.done)
	var follow sync.WaitGroup
	follow.Go(func() { s.down.run(ctx) })
	defer follow.Wait()
	flush := time.NewTicker(s.o.Flush)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			s.watch()
			for name, z := range s.all() {
				z.book.flush(s.statusOf(name, z))
			}
		}
	}
}

// watch ends the streams of zones whose pings stopped.
func (s *Server) watch() {
	if s.o.HealthTimeout <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, z := range s.zones {
		last := z.book.lastPing()
		if z.opened.After(last) {
			last = z.opened
		}
		if time.Since(last) > s.o.HealthTimeout {
			for ended := range z.pings {
				close(ended)
			}
			clear(z.pings)
		}
	}
}

func (s *Server) all() map[string]*zone {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]*zone, len(s.zones))
	for name, z := range s.zones {
		out[name] = z
	}
	return out
}

func (s *Server) zone(name string) *zone {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zones[name]
	if z == nil {
		z = &zone{
			inbox: newInbox(name, s.o.Log), book: newBook(s.o.Options, s.site, name, s.o.Subscriptions),
			senders: map[*sender]struct{}{}, pings: map[chan struct{}]struct{}{},
			asking: map[api.About]*asking{},
		}
		s.zones[name] = z
	}
	return z
}

// Status lists the zones that are or were connected, by name.
func (s *Server) Status() []Status {
	var out []Status
	for name, z := range s.all() {
		out = append(out, s.statusOf(name, z))
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Peer, b.Peer) })
	return out
}

func (s *Server) statusOf(_ string, z *zone) Status {
	st := z.inbox.status()
	s.mu.Lock()
	senders := make([]*sender, 0, len(z.senders))
	for snd := range z.senders {
		senders = append(senders, snd)
	}
	s.mu.Unlock()
	for _, snd := range senders {
		snd.progress(&st)
	}
	return st
}

// Confirm carries out the removal of a kind that is held for a zone. The error
// is [ErrNothingHeld] if there is none.
func (s *Server) Confirm(ctx context.Context, zone, kind string) error {
	s.mu.Lock()
	z := s.zones[zone]
	s.mu.Unlock()
	if z == nil {
		return fmt.Errorf("%s of %s: %w", kind, zone, ErrNothingHeld)
	}
	return z.inbox.confirm(ctx, s.o.Options, kind)
}

// Forget drops what is remembered of a zone that was deleted.
func (s *Server) Forget(zone string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, zone)
}

// GlobalToZoneSync sends to a zone.
func (s *Server) GlobalToZoneSync(stream grpc.ServerStream) error {
	return s.serve(stream, func(ctx context.Context, c caller, z *zone) error {
		snd := newSender(s.o.Options, s.down, s.ord, stream, api.Global, s.down.forZone(c.zone))
		id := z.book.open(c.token)
		z.book.stream(func(s *api.KDSStreams) **api.KDSStream { return &s.GlobalToZone })
		z.book.flush(s.statusOf(c.zone, z))
		snd.own = c.zone
		snd.greeted = func(n *node) { z.book.greet(id, n) }
		snd.answered = func(kind string, sent, ack, nack uint64) { z.book.count(id, kind, sent, ack, nack) }
		s.mu.Lock()
		z.senders[snd] = struct{}{}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			delete(z.senders, snd)
			s.mu.Unlock()
			z.book.close(id)
			z.book.flush(s.statusOf(c.zone, z))
		}()
		return snd.run(ctx)
	})
}

// ZoneToGlobalSync receives from a zone.
func (s *Server) ZoneToGlobalSync(stream grpc.ServerStream) error {
	return s.serve(stream, func(ctx context.Context, c caller, z *zone) error {
		z.book.stream(func(s *api.KDSStreams) **api.KDSStream { return &s.ZoneToGlobal })
		z.book.flush(s.statusOf(c.zone, z))
		self := node{id: c.zone, version: s.o.Version, instance: s.o.Instance, features: features()}
		r := newReceiver(s.o.Options, s.site, up(c.zone, nil, nil), z.inbox, self)
		defer z.inbox.publish(s.o.DB) // after serve has counted the stream out
		z.inbox.publish(s.o.DB)
		return r.serve(ctx, stream)
	})
}

// HealthCheck notes that the zone lives and says when to call again.
func (s *Server) HealthCheck(ctx context.Context, _ *kdspb.ZoneHealthCheckRequest) (*kdspb.ZoneHealthCheckResponse, error) {
	c, err := s.admit(ctx)
	if err != nil {
		return nil, err
	}
	s.zone(c.zone).book.ping()
	return &kdspb.ZoneHealthCheckResponse{Interval: durationpb.New(s.o.HealthInterval)}, nil
}

// caller is who opened a stream.
type caller struct {
	zone         string
	token, pings bool
}

// admit decides whether a call may be that of the zone it names.
func (s *Server) admit(ctx context.Context) (caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	ids, tokens := md.Get("client-id"), md.Get("authorization")
	if len(ids) != 1 {
		return caller{}, status.Error(codes.InvalidArgument, "want exactly one client-id: the name of the zone")
	}
	c := caller{zone: ids[0], token: len(tokens) == 1, pings: slices.Contains(md.Get("features"), featurePing)}
	if reason := api.CheckDNSLabel(c.zone); reason != "" {
		return caller{}, status.Errorf(codes.InvalidArgument, "client-id %.80q: %s", c.zone, reason)
	}
	if slices.Contains(s.o.Unauthenticated, c.zone) {
		return c, nil
	}
	var err error
	switch {
	case s.o.Authenticate == nil:
		err = errors.New("this control plane has no way to check tokens")
	case len(tokens) != 1:
		err = fmt.Errorf("want exactly one zone token in authorization, got %d", len(tokens))
	default:
		err = s.o.Authenticate(ctx, c.zone, strings.TrimPrefix(tokens[0], "Bearer "))
	}
	if err != nil {
		s.o.Log.Warn("a zone was refused", "zone", c.zone, "error", err)
		return caller{}, status.Errorf(codes.Unauthenticated, "zone %s: %v", c.zone, err)
	}
	return c, nil
}

// serve runs one stream of a zone.
func (s *Server) serve(stream grpc.ServerStream, body func(context.Context, caller, *zone) error) error {
	c, err := s.admit(stream.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	for _, ready := range []<-chan struct{}{s.o.Feeder.Ready(), s.down.ready} { // nothing is sent before all is known
		select {
		case <-ready:
		case <-s.done:
			return status.Error(codes.Unavailable, "global is stopping")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if err := s.ensure(ctx, c.zone); err != nil {
		return status.Errorf(codes.Internal, "zone %s could not be stored: %v", c.zone, err)
	}
	z := s.zone(c.zone)
	silent := make(chan struct{})
	s.mu.Lock()
	z.opened = time.Now()
	if c.pings {
		z.pings[silent] = struct{}{}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(z.pings, silent)
		s.mu.Unlock()
	}()
	go func() {
		select {
		case <-ctx.Done():
		case <-s.done:
			cancel(errStopping)
		case <-silent:
			cancel(ErrSilent)
		}
	}()
	s.o.Log.Info("zone stream opened", "zone", c.zone)
	err = body(ctx, c, z)
	s.o.Log.Info("zone stream closed", "zone", c.zone, "cause", err)
	return code(err)
}

var errStopping = errors.New("global is stopping")

// code is the one place where the end of a stream becomes a gRPC status.
func code(err error) error {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errStopping):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, ErrSilent), errors.Is(err, context.Canceled), errors.Is(err, ErrEpoch):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, ErrRefused):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, ErrProtocol):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// ensure makes the Zone of a zone that connects for the first time.
func (s *Server) ensure(ctx context.Context, zone string) error {
	if _, ok := api.Zones.Get(s.o.DB.Snapshot(), zoneID(zone)); ok {
		return nil
	}
	id := api.LocalID(api.Zones, "", "", zone, s.site)
	now := time.Now().UTC()
	_, err := s.o.Feeder.Apply(ctx, []store.Op{{
		Record: store.Record{
			ID: id, Labels: api.ComputeLabels(api.Zones, id, nil, s.site),
			Created: now, Modified: now, Spec: []byte(`{"enabled":true}`),
		},
		Expect: store.Absent,
	}})
	if errors.Is(err, store.ErrConflict) {
		return nil // its other stream was faster
	}
	return err
}

// features is what this program can do.
func features() []string {
	return []string{featureToken, featureHash, featureHGMZ, featureProducer, featureChunks, featureRevisions}
}
