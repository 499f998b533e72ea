package overview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/global/overview"
)

type plane struct {
	t  *testing.T
	db *db.DB
}

func (p *plane) write(f func(*db.Tx)) {
	p.t.Helper()
	if _, err := p.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		_ = overview.Run(ctx, overview.Options{DB: p.db, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	})
	p.t.Cleanup(func() { cancel(); all.Wait() })
}

func (p *plane) insight(mesh string) string {
	synctest.Wait()
	row, ok := api.MeshInsights.Named(p.db.Snapshot(), "", mesh)
	if !ok {
		return "none"
	}
	return string(row.Raw())
}

func proxyID(kind, name string) api.ID {
	return api.ID{Kind: kind, Mesh: "shop", Zone: "east", Name: name}
}

func putMesh(tx *db.Tx, name string) {
	api.Meshes.PutObject(tx, api.Meshes.New(api.Meta{ID: api.ID{Name: name}, Core: name}, api.Mesh{}))
}

func putProxy(tx *db.Tx, name string, n api.Networking) {
	api.Dataplanes.PutObject(tx, api.Dataplanes.New(api.Meta{ID: proxyID("Dataplane", name), Core: name}, api.Dataplane{Networking: n}))
}

func putInsight(tx *db.Tx, name string, online bool) {
	at := time.Unix(1000, 0)
	s := api.DataplaneSubscription{ID: "1", ConnectTime: &at, Version: &api.DataplaneVersion{
		KumaDP: &api.KumaDPVersion{Version: "3.0.0"}, Envoy: &api.EnvoyVersion{Version: "1.40.0"},
	}}
	if !online {
		s.DisconnectTime = &at
	}
	api.DataplaneInsights.PutObject(tx, api.DataplaneInsights.New(api.Meta{ID: proxyID("DataplaneInsight", name), Core: name}, api.DataplaneInsight{
		Subscriptions: []api.DataplaneSubscription{s},
		MTLS:          &api.DataplaneMTLS{IssuedBackend: "kri_mid_shop_east__a_", SupportedBackends: []string{"kri_mtrust_shop_east__a_"}},
	}))
}

func inbound(state string) api.Networking {
	return api.Networking{Inbound: []api.Inbound{{Port: 80, State: "Ready"}, {Port: 81, State: state}}}
}

func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plane{t, db.New(api.Schema)}
		p.write(func(tx *db.Tx) {
			putMesh(tx, "shop")
			putProxy(tx, "a", inbound("Ready"))
			putInsight(tx, "a", true)
		})
		p.run()
		const one = `"kri_mid_shop_east__a_":{"total":1,"online":1}`
		want := `{"dataplanes":{"total":1,"online":1},"dataplanesByType":{"standard":{"total":1,"online":1}},` +
			`"dpVersions":{"kumaDp":{"3.0.0":{"total":1,"online":1}},"envoy":{"1.40.0":{"total":1,"online":1}}},` +
			`"mTLS":{"issuedBackends":{` + one + `},"supportedBackends":{"kri_mtrust_shop_east__a_":{"total":1,"online":1}}},` +
			`"resources":{"Dataplane":{"total":1}}}`
		if got := p.insight("shop"); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		p.write(func(tx *db.Tx) {
			putProxy(tx, "b", inbound("NotReady"))
			putInsight(tx, "b", true)
			putProxy(tx, "gw", api.Networking{Gateway: &api.Gateway{}})
			putInsight(tx, "gw", false)
			api.Dataplanes.Remove(tx, proxyID("Dataplane", "a"))
			api.DataplaneInsights.Remove(tx, proxyID("DataplaneInsight", "a"))
			api.Secrets.PutObject(tx, api.Secrets.New(api.Meta{ID: api.ID{Mesh: "shop", Name: "s"}}, api.Secret{}))
		})
		var got struct {
			Dataplanes, Standard api.DataplaneStat
			DataplanesByType     api.DataplanesByType
			Resources            map[string]api.ResourceStat
		}
		if err := json.Unmarshal([]byte(p.insight("shop")), &got); err != nil {
			t.Fatal(err)
		}
		if want := (api.DataplaneStat{Total: 2, Offline: 1, PartiallyDegraded: 1}); got.Dataplanes != want {
			t.Errorf("%+v, want %+v", got.Dataplanes, want)
		}
		if want := (api.DataplaneStat{Total: 1, Offline: 1}); got.DataplanesByType.GatewayDelegated != want || got.DataplanesByType.Gateway != want {
			t.Errorf("%+v, want %+v", got.DataplanesByType, want)
		}
		if fmt.Sprint(got.Resources) != "map[Dataplane:{2} Secret:{1}]" {
			t.Errorf("resources %v", got.Resources)
		}
		// What changes no count writes no row.
		at := p.db.Snapshot().Revision()
		p.write(func(tx *db.Tx) { putInsight(tx, "b", true) })
		p.insight("shop")
		if n := p.db.Snapshot().Revision() - at; n != 1 {
			t.Errorf("%d commits for a report that says the same, want its own", n)
		}
		p.write(func(tx *db.Tx) { api.Meshes.Remove(tx, api.ID{Name: "shop"}) })
		if got := p.insight("shop"); got != "none" {
			t.Errorf("mesh is gone: %s", got)
		}
	})
}

// After any writes the counts are those of whoever counts from the beginning.
func TestCountsAreThoseOfAFreshCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plane{t, db.New(api.Schema)}
		p.run()
		random := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			p.write(func(tx *db.Tx) {
				for range 1 + random.IntN(4) {
					name := fmt.Sprint(random.IntN(6))
					switch random.IntN(6) {
					case 0:
						putMesh(tx, "shop")
					case 1:
						putProxy(tx, name, inbound([]string{"Ready", "NotReady", "Ignored"}[random.IntN(3)]))
					case 2:
						putProxy(tx, name, api.Networking{Gateway: &api.Gateway{}})
					case 3:
						putInsight(tx, name, random.IntN(2) == 0)
					case 4:
						api.Dataplanes.Remove(tx, proxyID("Dataplane", name))
					case 5:
						api.DataplaneInsights.Remove(tx, proxyID("DataplaneInsight", name))
					}
				}
			})
		}
		got := p.insight("shop")
		p.write(func(tx *db.Tx) { api.MeshInsights.Remove(tx, api.ID{Name: "shop"}) })
		fresh := &plane{t, p.db}
		fresh.run()
		if want := fresh.insight("shop"); got != want || got == "none" {
			t.Errorf("kept  %s\nfresh %s", got, want)
		}
	})
}
