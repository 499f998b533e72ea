package kds_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/kds"
)

// plane is a control plane without proxies: a store that survives restarts, and
// a database that does not.
type plane struct {
	t    *testing.T
	site api.Site
	data *memory.Database

	db     *db.DB
	feeder *store.Feeder
	store  *memory.Store
	cancel context.CancelFunc
	parts  *sync.WaitGroup
}

func newPlane(t *testing.T, zone string) *plane {
	p := &plane{t: t, site: api.Site{Zone: zone, Federated: zone != "", Env: "universal"}, data: memory.New()}
	p.start()
	return p
}

func (p *plane) start() {
	p.db, p.store, p.parts = db.New(api.Schema), p.data.Open(), &sync.WaitGroup{}
	p.feeder = store.NewFeeder(p.store, p.db, p.site, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.run(func() { _ = p.feeder.Run(ctx) })
}

func (p *plane) run(f func()) { p.parts.Go(f) }

func (p *plane) stop() {
	p.cancel()
	p.parts.Wait()
	_ = p.store.Close()
}

// put writes a resource as a user of this control plane would.
func (p *plane) put(k api.AnyKind, mesh, name, spec string, labels ...string) api.ID {
	p.t.Helper()
	id := api.LocalID(k, mesh, "", name, p.site)
	user := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		user[labels[i]] = labels[i+1]
	}
	p.apply(store.Op{Record: store.Record{ID: id, Labels: api.ComputeLabels(k, id, user, p.site), Spec: []byte(spec)}})
	return id
}

func (p *plane) remove(id api.ID) { p.apply(store.Op{Record: store.Record{ID: id}, Delete: true}) }

func (p *plane) apply(ops ...store.Op) {
	p.t.Helper()
	if _, err := p.feeder.Apply(context.Background(), ops); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) row(k api.AnyKind, id api.ID) api.Row {
	p.t.Helper()
	row, ok := k.Row(p.db.Snapshot(), id)
	if !ok {
		p.t.Fatalf("no %s at %q; there are %v", id, p.site.Zone, p.ids(k))
	}
	return row
}

func (p *plane) has(k api.AnyKind, id api.ID) bool {
	_, ok := k.Row(p.db.Snapshot(), id)
	return ok
}

func (p *plane) ids(k api.AnyKind) []string {
	var out []string
	for row := range k.AllRows(p.db.Snapshot()) {
		out = append(out, row.Head().ID.String())
	}
	return out
}

func (p *plane) options() kds.Options {
	return kds.Options{DB: p.db, Feeder: p.feeder, Instance: "instance-" + p.site.Zone, Version: "1.0.0"}
}

// wiring is the network: listeners that can be cut.
type wiring struct {
	mu   sync.Mutex
	at   *bufconn.Listener
	cut  map[string]bool
	open map[string][]net.Conn
}

func newWiring(at *bufconn.Listener) *wiring {
	return &wiring{at: at, cut: map[string]bool{}, open: map[string][]net.Conn{}}
}

func (w *wiring) dial(zone string) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		w.mu.Lock()
		at, cut := w.at, w.cut[zone]
		w.mu.Unlock()
		if at == nil || cut {
			return nil, errors.New("no route to global")
		}
		c, err := at.DialContext(ctx)
		if err == nil {
			w.mu.Lock()
			w.open[zone] = append(w.open[zone], c)
			w.mu.Unlock()
		}
		return c, err
	})
}

// part cuts a zone off, or joins it again.
func (w *wiring) part(zone string, cut bool) {
	w.mu.Lock()
	conns := w.open[zone]
	w.cut[zone], w.open[zone] = cut, nil
	w.mu.Unlock()
	if cut {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// federation is one global and its zones in one process.
type federation struct {
	t      *testing.T
	net    *wiring
	global *plane
	server *kds.Server
	zones  map[string]*plane
	links  map[string]*kds.Link
}

var errToken = errors.New("token is not one of this zone")

func newFederation(t *testing.T, zones ...string) *federation {
	f := &federation{
		t: t, net: newWiring(nil),
		zones: map[string]*plane{}, links: map[string]*kds.Link{},
	}
	f.global = newPlane(t, "")
	f.serve(nil)
	for _, z := range zones {
		f.zones[z] = newPlane(t, z)
		f.link(z, nil)
	}
	synctest.Wait()
	return f
}

func (f *federation) serve(change func(*kds.ServerOptions)) {
	o := kds.ServerOptions{Options: f.global.options(), Authenticate: func(_ context.Context, zone, token string) error {
		if token != "token-of-"+zone {
			return errToken
		}
		return nil
	}}
	if change != nil {
		change(&o)
	}
	f.server = kds.NewServer(o)
	g := grpc.NewServer(f.server.GRPC()...)
	f.server.Register(g)
	at := bufconn.Listen(1 << 20)
	f.net.mu.Lock()
	f.net.at = at
	f.net.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	inner := f.global.cancel
	f.global.cancel = func() {
		f.net.mu.Lock()
		f.net.at = nil
		f.net.mu.Unlock()
		cancel()
		g.Stop()
		inner()
	}
	f.global.run(func() { _ = g.Serve(at) })
	f.global.run(func() { _ = f.server.Run(ctx) })
}

func (f *federation) link(zone string, change func(*kds.LinkOptions)) {
	z := f.zones[zone]
	o := kds.LinkOptions{
		Options: z.options(), Site: z.site, Address: "grpc://global:5685",
		Token:  func(context.Context) (string, error) { return "token-of-" + zone, nil },
		Dial:   []grpc.DialOption{f.net.dial(zone)},
		Jitter: func() float64 { return 0 },
	}
	if change != nil {
		change(&o)
	}
	l, err := kds.NewLink(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.links[zone] = l
	ctx, cancel := context.WithCancel(context.Background())
	inner := z.cancel
	z.cancel = func() { cancel(); inner() }
	z.run(func() { _ = l.Run(ctx) })
}

func (f *federation) close() {
	for _, z := range f.zones {
		z.stop()
	}
	f.global.stop()
	synctest.Wait()
}

func (f *federation) status(zone string) kds.Status {
	for _, st := range f.server.Status() {
		if st.Peer == zone {
			return st
		}
	}
	return kds.Status{}
}

// sent is how many messages with content global has sent the zone on all
// connections, as its ZoneInsight says.
func (f *federation) sent(zone, kind string) uint64 {
	f.t.Helper()
	time.Sleep(11 * time.Second)
	synctest.Wait()
	o, ok := api.ZoneInsights.Get(f.global.db.Snapshot(), api.LocalID(api.ZoneInsights, "", "", zone, f.global.site))
	if !ok {
		f.t.Fatalf("no ZoneInsight of %s", zone)
	}
	last := o.Spec.Subscriptions[len(o.Spec.Subscriptions)-1]
	return uint64(last.Status.Stat[kind].ResponsesSent)
}

const (
	meshSpec    = `{}`
	timeoutSpec = `{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"connectionTimeout":"%ds"}}]}`
	serviceSpec = `{"selector":{"dataplaneLabels":{"matchLabels":{"app":"x"}}},"ports":[{"port":80,"targetPort":8080,"appProtocol":"http"}]}`
	planeSpec   = `{"networking":{"address":"192.168.0.1","inbound":[{"port":8080,"name":"http","protocol":"http"}]}}`
)

func timeout(seconds int) string { return fmt.Sprintf(timeoutSpec, seconds) }
