package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// shop is a client of services a and b.
func shop() *rows {
	r := newRows()
	r.put("east", service("a"), service("b"), dataplane("a1", "a", "10.0.0.1", true), dataplane("b1", "b", "10.0.0.2", true),
		dataplane("web", "web", "10.0.0.3", true, "a", "b"))
	return r
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestMakeBeforeBreak(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		web := p.model("web").connect()
		synctest.Wait()
		a, b := cluster("a"), cluster("b")
		same(t, "first", web.messages(), []string{
			"CDS +" + a + " +" + b + " +self_inbound_dp_http", "EDS +" + a + " +" + b,
			"LDS +" + a + " +" + b + " +self_inbound_dp_http", "RDS +" + a + " +" + b,
		})

		p.put("east", service("c"), dataplane("c1", "c", "10.0.0.4", true), dataplane("web", "web", "10.0.0.3", true, "a", "c"))
		synctest.Wait()
		c := cluster("c")
		// The address of b's listener is taken by c's: b keeps it until it is removed.
		same(t, "one service for another", web.messages(), []string{"CDS +" + c, "EDS +" + c, "LDS +" + c, "RDS +" + c})
		if left := p.server.Convergence(9); left.Behind != 0 {
			t.Errorf("waiting for the drain counts as behind: %+v", left)
		}
		<-time.After(drain - time.Second) // of fake time
		synctest.Wait()
		same(t, "before the drain time", web.messages(), nil)
		<-time.After(2*drain + 2*time.Second)
		synctest.Wait()
		same(t, "after it", web.messages(), []string{"LDS -" + b, "CDS -" + b})
		web.complete()
	})
}

func TestEndpointsFollowChangedCluster(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		web := p.model("web").connect()
		synctest.Wait()
		web.messages()
		p.put("global", timeout("quick", to("a"), "2s"))
		synctest.Wait()
		a := cluster("a")
		same(t, "timeout", web.messages(), []string{"CDS +" + a, "EDS +" + a, "RDS +" + a})
		p.put("east", dataplane("a1", "a", "10.0.0.1", false))
		synctest.Wait()
		same(t, "unhealthy", web.messages(), []string{"EDS +" + a})
		if e := web.has(wire.Endpoints, a).(*endpointv3.ClusterLoadAssignment); len(e.GetEndpoints()) != 0 {
			t.Errorf("still there: %v", e)
		}
		web.complete()
	})
}

func TestReconnectResendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		web := p.model("web").connect()
		synctest.Wait()
		web.messages()
		web.disconnect()
		synctest.Wait()
		if s := p.status("web"); !s.Closed {
			t.Errorf("not told of the end: %+v", s)
		}
		web.connect()
		synctest.Wait()
		same(t, "nothing changed", web.messages(), []string{"CDS", "LDS"}) // the empty answers that Envoy waits for
		web.disconnect()
		p.put("east", dataplane("a1", "a", "10.0.0.9", true))
		web.connect()
		synctest.Wait()
		same(t, "one thing changed", web.messages(), []string{"CDS", "EDS +" + cluster("a"), "LDS"})
		web.complete()
	})
}

func TestSecondStreamReplacesFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		first := p.model("web").connect()
		synctest.Wait()
		second := p.model("web").connect()
		synctest.Wait()
		<-first.done
		if first.err == nil || !strings.Contains(first.err.Error(), "connected again") {
			t.Errorf("first stream ended with %v", first.err)
		}
		if c := p.server.Convergence(9); c.Proxies != 1 || c.Behind != 0 {
			t.Errorf("%+v", c)
		}
		if s := p.status("web"); s.Closed || s.Behind != 0 {
			t.Errorf("%+v", s)
		}
		p.put("east", dataplane("a1", "a", "10.0.0.9", true))
		synctest.Wait()
		if got := second.messages(); !slices.Contains(got, "EDS +"+cluster("a")) {
			t.Errorf("second stream got %v", got)
		}
	})
}

func TestRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := shop()
		r.put("east", dataplane("other", "other", "10.0.0.8", true, "a", "b"))
		p := newPlane(t, r)
		web, other := p.model("web").connect(), p.model("other").connect()
		synctest.Wait()
		web.messages()
		other.messages()
		a, b := cluster("a"), cluster("b")
		web.refusing(func(m *discoveryv3.DeltaDiscoveryResponse) string {
			for _, res := range m.GetResources() {
				if c, ok := decoded(res.GetResource()).(*clusterv3.Cluster); ok && c.GetName() == a && c.GetConnectTimeout().AsDuration() == 2*time.Second {
					return "Error adding/updating cluster(s) " + a + ": not to my taste"
				}
			}
			return ""
		})
		p.put("global", timeout("quick", "kind: Mesh", "2s"))
		synctest.Wait()
		got := web.messages()
		for _, want := range []string{"CDS +" + a + " +" + b, "CDS +" + b} { // the innocent again, without the guilty
			if !slices.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
		if c := web.has(wire.Cluster, a).(*clusterv3.Cluster); c.GetConnectTimeout().AsDuration() != 5*time.Second {
			t.Errorf("the last good one is gone: %v", c.GetConnectTimeout())
		}
		if c := web.has(wire.Cluster, b).(*clusterv3.Cluster); c.GetConnectTimeout().AsDuration() != 2*time.Second {
			t.Errorf("the innocent one did not arrive: %v", c.GetConnectTimeout())
		}
		if c := other.has(wire.Cluster, a).(*clusterv3.Cluster); c.GetConnectTimeout().AsDuration() != 2*time.Second {
			t.Errorf("another proxy suffers: %v", c.GetConnectTimeout())
		}
		s := p.status("web")
		if len(s.Rejections) != 1 || s.Rejections[0].Name != a || s.Rejections[0].Error != "not to my taste" || s.Stats[wire.Cluster].Rejected != 1 {
			t.Errorf("report: %+v", s)
		}
		c := p.server.Convergence(9)
		if c.Rejected != 1 || c.Behind != 0 || len(c.Laggards) != 1 || !strings.Contains(c.Laggards[0].Reason, "refuses CDS "+a) {
			t.Errorf("convergence: %+v", c)
		}

		p.put("global", timeout("quick", "kind: Mesh", "3s"))
		synctest.Wait()
		if c := p.server.Convergence(9); c.Rejected != 0 || c.Behind != 0 {
			t.Errorf("after it was mended: %+v", c)
		}
		if s := p.status("web"); len(s.Rejections) != 0 {
			t.Errorf("report after it was mended: %+v", s)
		}
		web.complete()
		other.complete()
	})
}

// TestConvergenceTellsTheTruth: a proxy that does not answer is behind, and only it.
func TestConvergenceTellsTheTruth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := shop()
		r.put("east", dataplane("other", "other", "10.0.0.8", true, "a"))
		p := newPlane(t, r)
		web, other := p.model("web").connect(), p.model("other").connect()
		synctest.Wait()
		before := p.server.Convergence(9)
		if before.Proxies != 2 || before.Behind != 0 {
			t.Fatalf("%+v", before)
		}
		stall := make(chan struct{})
		web.mu.Lock()
		web.stall = stall
		web.mu.Unlock()
		p.put("east", dataplane("a1", "a", "10.0.0.9", true))
		synctest.Wait()
		c := p.server.Convergence(9)
		if c.Behind != 1 || c.Revision <= before.Revision || len(c.Laggards) != 1 || c.Laggards[0].Proxy != proxyID("web") {
			t.Errorf("while it is silent: %+v", c)
		}
		if got := p.status("other"); got.Reached != c.Revision {
			t.Errorf("the other reached %d of %d", got.Reached, c.Revision)
		}
		close(stall)
		synctest.Wait()
		if c := p.server.Convergence(9); c.Behind != 0 {
			t.Errorf("after it answered: %+v", c)
		}
		if got := p.status("web"); got.Reached != p.server.Convergence(0).Revision {
			t.Errorf("reached %d", got.Reached)
		}
		other.complete()
	})
}

// TestRoundsDoNotMix: all services move to a new address in each transaction; no
// proxy ever sees two addresses in one message.
func TestRoundsDoNotMix(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRows()
		var names []string
		move := func(n int) {
			var docs []string
			for i := range 10 {
				name := fmt.Sprintf("s%d", i)
				docs = append(docs, dataplane(name+"-1", name, fmt.Sprintf("10.1.%d.%d", n, i), true))
			}
			r.put("east", docs...)
		}
		for i := range 10 {
			names = append(names, fmt.Sprintf("s%d", i))
			r.put("east", service(names[i]))
		}
		move(0)
		r.put("east", dataplane("web", "web", "10.0.0.3", true, names...))
		p := newPlane(t, r)
		web := p.model("web").connect()
		for n := 1; n < 60; n++ {
			move(n) // as fast as it can: rounds and messages overlap
		}
		synctest.Wait()
		web.complete()
		web.mu.Lock()
		defer web.mu.Unlock()
		messages := 0
		for _, m := range web.log {
			seen := map[string]bool{}
			for _, res := range m.GetResources() {
				if e, ok := decoded(res.GetResource()).(*endpointv3.ClusterLoadAssignment); ok {
					for _, l := range e.GetEndpoints() {
						for _, x := range l.GetLbEndpoints() {
							host := x.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()
							seen[host[:strings.LastIndex(host, ".")]] = true
						}
					}
				}
			}
			if len(seen) > 1 {
				t.Errorf("one message holds %v", seen)
			}
			if len(seen) > 0 {
				messages++
			}
		}
		if messages == 0 {
			t.Error("no endpoints at all")
		}
	})
}

// TestMassDisconnect: what nobody uses any more is let go.
func TestMassDisconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := shop()
		var docs []string
		for i := range 200 {
			docs = append(docs, dataplane(fmt.Sprintf("p%d", i), fmt.Sprintf("app%d", i%10), fmt.Sprintf("10.2.%d.%d", i/100, i%100), true, "a", "b"))
		}
		r.put("east", docs...)
		p := newPlane(t, r)
		web := p.model("web").connect()
		synctest.Wait()
		settle := func() {
			for range 4 { // rounds, until the grace has passed
				r.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{Site: east}) })
				synctest.Wait()
			}
		}
		settle()
		sizes, stats := p.server.Sizes(), p.engine.Stats()
		var models []*model
		for i := range 200 {
			models = append(models, p.model(fmt.Sprintf("p%d", i)).connect())
		}
		synctest.Wait()
		for _, m := range models {
			m.complete()
		}
		if at := p.server.Sizes(); at.Streams != 201 {
			t.Errorf("%+v", at)
		}
		for _, m := range models {
			m.disconnect()
		}
		settle()
		if at := p.server.Sizes(); at != sizes {
			t.Errorf("server holds %+v, before %+v", at, sizes)
		}
		now := p.engine.Stats()
		if now.Held != stats.Held || now.Nodes != stats.Nodes || now.Edges != stats.Edges || now.Touches != stats.Touches {
			t.Errorf("engine holds %d/%d/%d/%d, before %d/%d/%d/%d", now.Held, now.Nodes, now.Edges, now.Touches, stats.Held, stats.Nodes, stats.Edges, stats.Touches)
		}
		web.disconnect()
		settle()
		if at := p.server.Sizes(); at != (xds.Sizes{}) {
			t.Errorf("server holds %+v for nobody", at)
		}
		if now := p.engine.Stats(); now.Nodes != 0 || now.Touches != 0 {
			t.Errorf("engine holds %d queries and %d touches for nobody", now.Nodes, now.Touches)
		}
	})
}

// TestDisconnectAtOnce: streams that end between a round and its publication leave nothing.
func TestDisconnectAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		for range 200 {
			p.model("web").connect().disconnect()
		}
		for range 4 {
			p.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{Site: east}) })
			synctest.Wait()
		}
		if at := p.server.Sizes(); at != (xds.Sizes{}) {
			t.Errorf("server holds %+v for nobody", at)
		}
	})
}

func TestStrangers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		for name, want := range map[string]string{"stranger": "who are you", "": "after the dot"} {
			m := p.model(name).connect()
			<-m.done
			if m.err == nil || !strings.Contains(m.err.Error(), want) {
				t.Errorf("%q: %v", name, m.err)
			}
		}
		if at := p.server.Sizes(); at.Streams != 0 {
			t.Errorf("%+v", at)
		}
	})
}

// TestDataplaneComesLater: a proxy whose Dataplane is not known yet is told
// nothing, rather than that there is nothing.
func TestDataplaneComesLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRows()
		r.put("east", service("a"), dataplane("a1", "a", "10.0.0.1", true))
		p := newPlane(t, r)
		web := p.model("web").connect()
		synctest.Wait()
		same(t, "before", web.messages(), nil)
		p.put("east", dataplane("web", "web", "10.0.0.3", true, "a"))
		synctest.Wait()
		if web.has(wire.Listener, cluster("a")) == nil {
			t.Errorf("after: %v", web.messages())
		}
		web.complete()
	})
}

// TestDrain: a control plane that goes away sends its proxies elsewhere, so that they try at once.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		web := p.model("web").connect()
		synctest.Wait()
		p.server.Drain(1)
		<-web.done
		if status.Code(web.err) != codes.Unavailable {
			t.Errorf("ended with %v", web.err)
		}
		if at := p.server.Sizes(); at.Streams != 0 {
			t.Errorf("%+v", at)
		}
	})
}

// TestDeltaOnly: the state-of-the-world variant says what to do instead.
func TestDeltaOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, shop())
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.conn).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "DELTA_GRPC") {
			t.Errorf("got %v", err)
		}
	})
}
