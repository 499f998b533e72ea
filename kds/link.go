package kds

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/kds/kdspb"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// LinkOptions are those of a zone.
type LinkOptions struct {
	Options
	// Site is the zone.
	Site api.Site
	// Address of global: grpcs://host:port, or grpc://host:port without TLS.
	Address string
	// TLS of grpcs; nil: TLS 1.2 or newer with the roots of the system.
	TLS *tls.Config
	// Token returns the zone token, newly for every connection; nil sends none.
	Token func(context.Context) (string, error)
	// Config returns the configuration of this control plane for operators to
	// see: JSON without secrets; nil: none.
	Config func() string
	// Lead waits until this instance is to hold the link and returns a context
	// that ends when it no longer is; nil: always.
	Lead func(context.Context) (context.Context, error)
	// Derive adds what the zone computed to a row before it is sent: another
	// spec, and a status; nil leaves the one that was written. It must be a
	// function of the database; [Link.Touch] says when its result changed.
	Derive func(r db.Reader, row api.Row) (spec, status json.RawMessage)
	// Answer answers what global asks about a proxy of this zone, by the mesh and
	// the name under which it is known here; nil: nothing is answered.
	Answer func(ctx context.Context, mesh, name string, q api.Question) ([]byte, error)
	// Base and Max bound the wait before a new attempt: it doubles from Base
	// (zero: 1 s) up to Max (zero: 30 s). Jitter in [0,1) shortens each by up to
	// a half; nil: at random.
	Base, Max time.Duration
	Jitter    func() float64
	// Dial are further options of the connection.
	Dial []grpc.DialOption
}

// Link is a zone's connection to global.
type Link struct {
	o      LinkOptions
	target string
	creds  credentials.TransportCredentials
	way    direction
	up     *catalog
	ord    orders
	inbox  *inbox
	book   *book

	mu     sync.Mutex
	sender *sender
	cause  error
}

// pingInterval is how often global is asked for its health until it says.
const pingInterval = 5 * time.Minute

// NewLink returns the link; it connects once Run runs. The error is about the
// address.
func NewLink(o LinkOptions) (*Link, error) {
	o.Options = o.Options.filled()
	o.Base, o.Max = cmp.Or(o.Base, time.Second), cmp.Or(o.Max, 30*time.Second)
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	at, err := url.Parse(o.Address)
	if err != nil || at.Host == "" || at.Port() == "" {
		return nil, fmt.Errorf("address of global %q: want grpcs://host:port", o.Address)
	}
	l := &Link{o: o, target: "passthrough:///" + at.Host, way: up(o.Site.Zone, o.SkipLabels, o.Derive)}
	switch at.Scheme {
	case "grpcs":
		config := o.TLS
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		l.creds = credentials.NewTLS(config)
	case "grpc":
		l.creds = insecure.NewCredentials()
	default:
		return nil, fmt.Errorf("address of global %q: want the scheme grpcs, or grpc without TLS", o.Address)
	}
	l.up = newCatalog(l.o.Options, l.way)
	l.ord = newOrders(l.o.Options, l.way)
	l.inbox = newInbox(api.Global, o.Log)
	l.book = newBook(l.o.Options, o.Site, o.Site.Zone, 10)
	return l, nil
}

// Run keeps the link up until the context ends. A lost connection deletes
// nothing: the zone goes on with what it has.
func (l *Link) Run(ctx context.Context) error {
	var follow sync.WaitGroup
	defer follow.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	follow.Go(func() { l.up.run(ctx) })
	for _, ready := range []<-chan struct{}{l.o.Feeder.Ready(), l.up.ready} { // else the first state would be too small
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := l.lead(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || time.Since(began) > l.o.Max {
			attempt = 0
		}
		l.mu.Lock()
		l.cause = err
		l.mu.Unlock()
		wait := l.backoff(attempt)
		l.o.Log.Warn("the link to global ended", "error", err, "retry", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Link) backoff(attempt int) time.Duration {
	wait := l.o.Max
	if attempt < 30 {
		wait = min(l.o.Max, l.o.Base<<attempt)
	}
	return wait - time.Duration(l.o.Jitter()*float64(wait)/2)
}

func (l *Link) lead(ctx context.Context) error {
	if l.o.Lead != nil {
		held, err := l.o.Lead(ctx)
		if err != nil {
			return fmt.Errorf("waiting for the duty: %w", err)
		}
		ctx = held
	}
	return l.connect(ctx)
}

// connect opens all calls on one connection; the first that ends ends all.
func (l *Link) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(l.creds),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(wire.Codec()), grpc.UseCompressor(gzip.Name),
			grpc.MaxCallRecvMsgSize(l.o.MaxMessage), grpc.MaxCallSendMsgSize(l.o.MaxMessage),
		),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTime, PermitWithoutStream: true}),
		grpc.WithUserAgent("kds/" + l.o.Version),
	}, l.o.Dial...)
	conn, err := grpc.NewClient(l.target, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	pairs := []string{"client-id", l.o.Site.Zone, "version", l.o.Version, "kds-version", "v3", "zone-version", "v3", "features", featurePing, "features", featureHash}
	if l.o.Token != nil {
		token, err := l.o.Token(ctx)
		if err != nil {
			return fmt.Errorf("zone token: %w", err)
		}
		pairs = append(pairs, "authorization", token)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	both := grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	fromGlobal, err := conn.NewStream(ctx, &both, kdspb.GlobalToZoneSync)
	if err != nil {
		return err
	}
	toGlobal, err := conn.NewStream(ctx, &both, kdspb.ZoneToGlobalSync)
	if err != nil {
		return err
	}

	self := node{id: l.o.Site.Zone, version: l.o.Version, instance: l.o.Instance, features: features()}
	if l.o.Config != nil {
		self.config = l.o.Config()
	}
	r := newReceiver(l.o.Options, l.o.Site, down(nil), l.inbox, self)
	s := newSender(l.o.Options, l.up, l.ord, toGlobal, l.o.Site.Zone, l.up.forGlobal)
	id := l.book.open(l.o.Token != nil)
	s.greeted = func(n *node) { l.book.greet(id, n) }
	s.answered = func(kind string, sent, ack, nack uint64) { l.book.count(id, kind, sent, ack, nack) }
	l.mu.Lock()
	l.sender = s
	l.mu.Unlock()
	l.inbox.publish(l.o.DB)
	l.book.flush(l.Status())

	var parts sync.WaitGroup
	part := func(what string, f func() error) {
		parts.Go(func() {
			err := f()
			if err == nil {
				err = io.EOF
			}
			cancel(fmt.Errorf("%s: %w", what, err))
		})
	}
	part("from global", func() error { return r.serve(ctx, fromGlobal) })
	part("to global", func() error { return s.run(ctx) })
	parts.Go(func() {
		if err := l.ping(ctx, conn); err != nil {
			cancel(fmt.Errorf("health check: %w", err))
		}
	})
	if l.o.Answer != nil {
		for _, call := range calls {
			parts.Go(func() { l.answer(ctx, conn, call) })
		}
	}
	parts.Wait()

	l.mu.Lock()
	l.sender = nil
	l.mu.Unlock()
	l.book.close(id)
	l.inbox.publish(l.o.DB)
	l.book.flush(l.Status())
	if cause := context.Cause(ctx); !errors.Is(cause, io.EOF) {
		return cause
	}
	return nil
}

// ping proves to global that the zone lives, as often as global asks.
func (l *Link) ping(ctx context.Context, conn *grpc.ClientConn) error {
	every := time.NewTicker(pingInterval)
	defer every.Stop()
	for {
		answer := &kdspb.ZoneHealthCheckResponse{}
		switch err := conn.Invoke(ctx, kdspb.HealthCheck, &kdspb.ZoneHealthCheckRequest{}, answer); {
		case status.Code(err) == codes.Unimplemented || ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if d := answer.GetInterval().AsDuration(); d > 0 {
			every.Reset(d)
		}
		l.book.flush(l.Status())
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// Touch says that what [LinkOptions.Derive] adds to the row may be different
// now. It may be called from anywhere and does no work itself.
func (l *Link) Touch(id api.ID) { l.up.touch(id) }

// Status is what is known of global.
func (l *Link) Status() Status {
	st := l.inbox.status()
	l.mu.Lock()
	s := l.sender
	l.mu.Unlock()
	if s != nil {
		s.progress(&st)
	}
	return st
}

// Err is why the link is down, nil while it is up or was never tried.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sender != nil {
		return nil
	}
	return l.cause
}

// Confirm carries out the removal of a kind that is held. The error is
// [ErrNothingHeld] if there is none.
func (l *Link) Confirm(ctx context.Context, kind string) error {
	return l.inbox.confirm(ctx, l.o.Options, kind)
}
