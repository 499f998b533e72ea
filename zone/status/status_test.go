package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/kds/delta"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/wire"
	"github.com/atoll-mesh/atoll/zone/status"
)

var site = api.Site{Zone: "east", Env: "universal"}

const flush = 10 * time.Second

// lab is a feeder, and a discovery server that says what the test wants.
type lab struct {
	t      *testing.T
	db     *db.DB
	feeder *status.Feeder

	mu      sync.Mutex
	server  xds.Convergence
	names   []string // those behind; a sample of them begins anywhere
	from    int
	commits int
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, db: db.New(api.Schema)}
	l.write(func(tx *db.Tx) { api.Revisions.Put(tx, &api.Revision{Mark: api.Mark{Epoch: "e", Counter: 1}}) })
	l.set(func(c *xds.Convergence) { c.Revision = uint64(l.db.Snapshot().Revision()) })
	l.feeder = status.New(status.Options{
		DB: l.db, Site: site, Instance: "one", Converged: l.converged, Flush: flush, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	stop := l.db.OnCommit(func(db.Commit) {
		l.mu.Lock()
		l.commits++
		l.mu.Unlock()
		l.feeder.Poke() // as the round does that follows every commit
	})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = l.feeder.Run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait(); stop() })
	synctest.Wait()
	return l
}

func (l *lab) converged(sample int) xds.Convergence {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.server
	l.from++
	for i := range min(sample, len(l.names)) {
		c.Laggards = append(c.Laggards, xds.Laggard{Proxy: proxyID(l.names[(l.from+i)%len(l.names)]), Reason: "slow"})
	}
	return c
}

func (l *lab) set(f func(*xds.Convergence)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.server)
}

func (l *lab) write(f func(*db.Tx)) {
	if _, err := l.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

// source enters a revision of a source and returns the revision of the database.
func (l *lab) source(source string, counter uint64) uint64 {
	l.write(func(tx *db.Tx) {
		api.Revisions.Put(tx, &api.Revision{Source: source, Mark: api.Mark{Epoch: "e", Counter: counter}})
	})
	return uint64(l.db.Snapshot().Revision())
}

func (l *lab) count() int {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

func (l *lab) convergence() api.Convergence {
	synctest.Wait()
	for c := range api.Convergences.All(l.db.Snapshot()) {
		if c.Zone != "east" || c.Spec.Instance != "one" {
			l.t.Errorf("row of %s", c.ID)
		}
		return c.Spec
	}
	l.t.Fatal("no report")
	return api.Convergence{}
}

func proxyID(name string) api.ID { return api.LocalID(api.Dataplanes, "default", "", name, site) }

func (l *lab) dataplane(name string) {
	spec := api.Dataplane{}
	spec.Networking.Address = "10.0.0.1"
	m := api.Meta{ID: proxyID(name), Core: name}
	l.write(func(tx *db.Tx) { api.Dataplanes.PutObject(tx, api.Dataplanes.New(m, spec)) })
}

func (l *lab) insight(name string) *api.DataplaneInsight {
	synctest.Wait()
	o, ok := api.DataplaneInsights.Named(l.db.Snapshot(), "default", name)
	if !ok {
		return nil
	}
	return &o.Spec
}

// report tells of a stream of cart that has sent n messages.
func (l *lab) report(stream uint64, n uint64, change func(*xds.Status)) {
	meta, err := structpb.NewStruct(map[string]any{"version": map[string]any{"kumaDp": map[string]any{"version": "2.9"}, "envoy": map[string]any{"version": "1.40"}}})
	if err != nil {
		l.t.Fatal(err)
	}
	s := xds.Status{
		Proxy: proxyID("cart"), Stream: stream, Connected: time.Unix(int64(stream), 0), Node: &corev3.Node{Metadata: meta},
		Stats: map[wire.Type]xds.Counts{wire.Cluster: {Sent: n, Acked: n}},
	}
	if change != nil {
		change(&s)
	}
	l.feeder.Report(s)
}

func closed(s *xds.Status) { s.Closed = true }

func TestInsight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.dataplane("cart")
		if l.insight("cart") != nil {
			t.Error("an insight of a proxy that never connected")
		}
		l.report(1, 1, nil)
		in := l.insight("cart")
		if in == nil || len(in.Subscriptions) != 1 || in.Subscriptions[0].DisconnectTime != nil || in.Subscriptions[0].Status.CDS.ResponsesSent != 1 {
			t.Fatalf("at once after the connection: %+v", in)
		}
		if v := in.Subscriptions[0].Version; v == nil || v.KumaDP.Version != "2.9" || v.Envoy.Version != "1.40" {
			t.Errorf("version %+v", v)
		}
		// Counters wait for the flush, however often they change.
		before := l.count()
		for n := range uint64(50) {
			l.report(1, 2+n, nil)
			synctest.Wait()
		}
		if n := l.count(); n != before {
			t.Errorf("%d commits for counters", n-before)
		}
		time.Sleep(flush)
		if in := l.insight("cart"); in.Subscriptions[0].Status.Total.ResponsesAcknowledged != 51 || l.count() != before+1 {
			t.Errorf("after the flush: %+v, %d commits", in.Subscriptions[0].Status, l.count()-before)
		}
		time.Sleep(10 * flush)
		if n := l.count(); n != before+1 {
			t.Errorf("%d commits while nothing was said", n-before-1)
		}
		if in := l.insight("cart"); !strings.Contains(string(in.Metadata), "1.40") {
			t.Errorf("after many reports of a stream its metadata is %s", in.Metadata)
		}
		// A refusal is written at once, with its reason.
		l.report(1, 52, func(s *xds.Status) {
			s.Rejections = []delta.Rejection{{Type: string(wire.Listener), Name: "in", Version: "v", Error: "no such filter"}}
		})
		in = l.insight("cart")
		if len(in.Rejected) != 1 || in.Rejected[0].Reason != "no such filter" || len(in.Conditions) != 1 || in.Conditions[0].Message != "LDS in: no such filter" {
			t.Errorf("after the refusal: %+v", in)
		}
		l.report(1, 53, nil)
		if in = l.insight("cart"); len(in.Rejected)+len(in.Conditions) != 0 {
			t.Errorf("after it was mended: %+v", in)
		}
		l.report(1, 53, closed)
		if in = l.insight("cart"); in.Subscriptions[0].DisconnectTime == nil {
			t.Error("at once after the end: still connected")
		}
		// It goes with its Dataplane.
		l.write(func(tx *db.Tx) { api.Dataplanes.Remove(tx, proxyID("cart")) })
		if l.insight("cart") != nil {
			t.Error("the insight outlives its Dataplane")
		}
	})
}

// A proxy that connects again has two streams for a moment; the end of the
// older one is not the proxy's end.
func TestStreamTakesOver(t *testing.T) {
	for name, together := range map[string]bool{"one batch": true, "one after the other": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.dataplane("cart")
				join := func(stream uint64) {
					l.write(func(tx *db.Tx) {
						api.Connections.Put(tx, &api.Connection{Proxy: proxyID("cart"), Instance: "one", Stream: stream})
						api.Joinings.Put(tx, &api.Joining{Proxy: proxyID("cart"), Stream: stream})
					})
				}
				joining := func() bool {
					synctest.Wait()
					_, ok := api.Joinings.Get(l.db.Snapshot(), proxyID("cart").Key())
					return ok
				}
				join(1)
				l.report(1, 1, nil)
				synctest.Wait()
				join(2)
				l.report(2, 1, nil)
				if !together {
					synctest.Wait()
				}
				l.report(1, 1, closed)
				in := l.insight("cart")
				if len(in.Subscriptions) != 2 || in.Subscriptions[0].DisconnectTime == nil || in.Subscriptions[1].DisconnectTime != nil || in.Subscriptions[1].ID != "one/2" {
					t.Errorf("subscriptions %+v", in.Subscriptions)
				}
				if c, ok := api.Connections.Get(l.db.Snapshot(), proxyID("cart").Key()); !ok || c.Stream != 2 {
					t.Error("the end of the older stream took the connection of the newer")
				}
				if !joining() {
					t.Error("the end of the older stream took the mark of the newer, which does not listen yet")
				}
				l.report(2, 1, func(s *xds.Status) { s.Stats[wire.Listener] = xds.Counts{Sent: 1, Acked: 1} })
				if joining() {
					t.Error("it listens, and is still joining")
				}
				for stream := range uint64(5) {
					l.report(3+stream, 1, nil)
					l.report(3+stream, 1, closed)
					synctest.Wait()
				}
				l.report(2, 1, closed)
				if in := l.insight("cart"); len(in.Subscriptions) != 2 {
					t.Errorf("%d subscriptions are remembered", len(in.Subscriptions))
				}
				if _, ok := api.Connections.Get(l.db.Snapshot(), proxyID("cart").Key()); ok {
					t.Error("the connection outlives its stream")
				}
			})
		})
	}
}

func TestConvergenceFollowsRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		if c := l.convergence(); c.Enforced["east"] != (api.Mark{Epoch: "e", Counter: 1}) {
			t.Errorf("at the start %+v", c)
		}
		// A revision counts when the proxies that it concerns have it, not before.
		l.set(func(c *xds.Convergence) { c.Proxies, c.Behind = 2, 1 })
		at := l.source("", 2)
		l.set(func(c *xds.Convergence) { c.Revision = at })
		l.feeder.Poke()
		if c := l.convergence(); c.Enforced["east"].Counter != 1 {
			t.Errorf("while one is behind: %+v", c)
		}
		time.Sleep(time.Second)
		if c := l.convergence(); c.Behind != 1 || c.Proxies != 2 {
			t.Errorf("counts after a second: %+v", c)
		}
		l.set(func(c *xds.Convergence) { c.Behind = 0 })
		l.feeder.Poke()
		if c := l.convergence(); c.Enforced["east"].Counter != 2 || c.Behind != 0 {
			t.Errorf("when all have it: %+v", c)
		}
		// One that the server has not published yet does not count.
		at = l.source(api.Global, 7)
		l.feeder.Poke()
		if c := l.convergence(); c.Enforced[api.Global].Counter != 0 {
			t.Errorf("before its round: %+v", c)
		}
		l.set(func(c *xds.Convergence) { c.Revision = at })
		l.feeder.Poke()
		if c := l.convergence(); c.Enforced[api.Global].Counter != 7 || c.Enforced["east"].Counter != 2 {
			t.Errorf("after its round: %+v", c)
		}
		// While somebody never follows, many revisions are kept as few marks.
		l.set(func(c *xds.Convergence) { c.Behind = 1 })
		for n := range uint64(2000) {
			at = l.source("", 3+n)
		}
		l.set(func(c *xds.Convergence) { c.Behind, c.Revision = 0, at })
		l.feeder.Poke()
		if c := l.convergence(); c.Enforced["east"].Counter != 2002 || c.Enforced[api.Global].Counter != 7 {
			t.Errorf("after a long time: %+v", c)
		}
	})
}

// Every commit is followed by a round, and every round asks for a report: a
// report that differs by the sample of laggards alone would feed itself.
func TestReportsDoNotFeedThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		for i := range 100 {
			l.names = append(l.names, fmt.Sprintf("p%d", i))
		}
		l.set(func(c *xds.Convergence) { c.Proxies, c.Behind, c.Rejected = 100, 60, 40 })
		l.feeder.Poke()
		time.Sleep(time.Second)
		c := l.convergence()
		if c.Behind != 60 || c.Rejected != 40 || len(c.Laggards) != 5 {
			t.Errorf("report %+v", c)
		}
		before := l.count()
		time.Sleep(time.Hour)
		if n := l.count() - before; n != 0 {
			t.Errorf("%d commits in an hour in which nothing happened", n)
		}
		// A thousand acknowledgements within a second are a few commits.
		for i := range 1000 {
			l.set(func(c *xds.Convergence) { c.Proxies, c.Behind = 2000, 1500-i })
			l.feeder.Poke()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := l.count() - before; n > 6 {
			t.Errorf("%d commits for counts of a second", n)
		}
		if c := l.convergence(); c.Behind != 501 {
			t.Errorf("the last count is not reported: %+v", c)
		}
	})
}

func TestCertificateIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.dataplane("cart")
		put := func(hours time.Duration) {
			l.write(func(tx *db.Tx) {
				api.Leaves.Put(tx, &api.Leaf{
					Proxy: proxyID("cart"), Identity: api.LocalID(api.MeshIdentities, "default", "", "default", site), Key: "secret",
					NotBefore: time.Now().Add(hours * time.Hour), NotAfter: time.Now().Add((hours + 5) * time.Hour),
				})
			})
		}
		put(0)
		l.report(1, 1, nil)
		in := l.insight("cart")
		if in.MTLS == nil || in.MTLS.CertificateRegenerations != 1 || in.MTLS.IssuedBackend != "kri_mid_default_east__default_" {
			t.Fatalf("mTLS %+v", in.MTLS)
		}
		put(4)
		l.report(1, 2, nil)
		time.Sleep(flush)
		if in = l.insight("cart"); in.MTLS.CertificateRegenerations != 2 {
			t.Errorf("mTLS after a rotation %+v", in.MTLS)
		}
		if raw, err := json.Marshal(in); err != nil || strings.Contains(string(raw), "secret") {
			t.Errorf("the insight shows the key: %s %v", raw, err)
		}
	})
}
