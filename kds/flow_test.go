package kds_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/kds"
)

func TestFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		east, west := f.zones["east"], f.zones["west"]

		mesh := f.global.put(api.Meshes, "", "default", meshSpec)
		policy := f.global.put(api.MeshTimeouts, "default", "mt1", timeout(1))
		service := east.put(api.MeshServices, "default", "backend", serviceSpec)
		dataplane := east.put(api.Dataplanes, "default", "backend-1", planeSpec, "app", "x")
		synctest.Wait()

		for _, z := range []*plane{east, west} { // down
			if got := z.row(api.Meshes, mesh).Head(); got.Source != api.Global || got.Label(api.LabelOrigin) != "global" {
				t.Errorf("mesh in %s: source %q, labels %v", z.site.Zone, got.Source, got.Labels)
			}
			if got := z.row(api.MeshTimeouts, policy); got.Head().Core != "mt1-xz4845xdv4b254b6" || string(got.Raw()) != timeout(1) {
				t.Errorf("policy in %s: %q %s", z.site.Zone, got.Head().Core, got.Raw())
			}
		}
		up := f.global.row(api.Dataplanes, dataplane) // up
		if m := up.Head(); m.Source != "east" || m.Label(api.LabelZone) != "east" || m.Label(api.LabelOrigin) != "zone" {
			t.Errorf("dataplane at global: %+v", m)
		}
		across := west.row(api.MeshServices, service).Head() // across
		if across.Source != api.Global || across.Label(api.LabelOrigin) != "global" || across.Label(api.LabelZone) != "east" {
			t.Errorf("service of east in west: %+v", across)
		}
		if f.global.row(api.MeshServices, service).Head().Source != "east" {
			t.Error("service at global has another source than its zone")
		}
		if west.has(api.Dataplanes, dataplane) {
			t.Error("a Dataplane crossed to another zone")
		}
		if east.row(api.MeshServices, service).Head().Source != "" {
			t.Error("a service came back to its own zone")
		}

		f.global.put(api.MeshTimeouts, "default", "mt1", timeout(2))
		east.remove(service)
		synctest.Wait()
		if got := string(west.row(api.MeshTimeouts, policy).Raw()); got != timeout(2) {
			t.Errorf("changed policy in west: %s", got)
		}
		if f.global.has(api.MeshServices, service) || west.has(api.MeshServices, service) {
			t.Error("a deleted service is still somewhere")
		}
	})
}

func TestDisabledZoneIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		service := f.zones["east"].put(api.MeshServices, "default", "backend", serviceSpec)
		synctest.Wait()
		f.global.put(api.Zones, "", "east", `{"enabled":false}`)
		synctest.Wait()
		if f.zones["west"].has(api.MeshServices, service) {
			t.Error("west still has the service of a disabled zone")
		}
		if !f.global.has(api.MeshServices, service) {
			t.Error("global lost the service of a disabled zone")
		}
		f.global.put(api.Zones, "", "east", `{"enabled":true}`)
		synctest.Wait()
		if !f.zones["west"].has(api.MeshServices, service) {
			t.Error("west has not got the service of the enabled zone back")
		}
	})
}

func TestMemoryKindsAndStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		east := f.zones["east"]
		id := api.LocalID(api.DataplaneInsights, "default", "", "backend-1", east.site)
		put := func(generation uint32, condition string) {
			spec := api.DataplaneInsight{
				Subscriptions: []api.DataplaneSubscription{{ID: "s", ControlPlaneInstanceID: "i", Generation: generation}},
				Conditions:    []api.Condition{{Type: "Accepted", Status: condition}},
			}
			meta := api.Meta{ID: id, Core: id.Name, Labels: api.ComputeLabels(api.DataplaneInsights, id, nil, east.site)}
			if _, err := east.db.Write(func(tx *db.Tx) error {
				api.DataplaneInsights.PutObject(tx, api.DataplaneInsights.New(meta, spec))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put(1, "True")
		put(2, "False")
		got := f.global.row(api.DataplaneInsights, id).Body().(*api.DataplaneInsight)
		if got.Subscriptions[0].Generation != 0 || len(got.Conditions) != 1 || got.Conditions[0].Status != "False" {
			t.Errorf("insight at global: %+v", got)
		}
	})
}

func TestSecretsStayAtGlobal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		secret := `{"data":"dGVzdA=="}`
		for _, name := range []string{"envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations", "user-token-signing-key-1"} {
			f.global.put(api.GlobalSecrets, "", name, secret)
		}
		f.global.put(api.GlobalSecrets, "", "zone-token-signing-key-1", secret) // no key: must not be sent as it is
		f.global.put(api.GlobalSecrets, "", "other", secret)
		f.global.put(api.Secrets, "default", "mine", secret, api.LabelSync, "disabled")
		f.global.put(api.Configs, "", "kuma-cluster-id", `{"config":"id"}`)
		f.global.put(api.Configs, "", "cp-catalog", `{"config":"{}"}`)
		synctest.Wait()
		got := append(append(f.zones["east"].ids(api.GlobalSecrets), f.zones["east"].ids(api.Secrets)...), f.zones["east"].ids(api.Configs)...)
		if len(got) != 2 {
			t.Errorf("the zone got %v, want the secret other and the cluster id", got)
		}
	})
}

func TestOneBadObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		east := f.zones["east"]
		mine := east.put(api.GlobalSecrets, "", "shared", `{"data":"bWluZQ=="}`)
		f.global.put(api.GlobalSecrets, "", "shared", `{"data":"dGhlaXJz"}`)
		good := f.global.put(api.GlobalSecrets, "", "good", `{"data":"Z29vZA=="}`)
		synctest.Wait()
		if !east.has(api.GlobalSecrets, good) {
			t.Error("a good secret was stopped by a bad one")
		}
		if got := string(east.row(api.GlobalSecrets, mine).Raw()); got != `{"data":"bWluZQ=="}` {
			t.Errorf("the zone's own secret was overwritten: %s", got)
		}
		st := f.status("east")
		if len(st.Rejected) != 1 || st.Rejected[0].Name != "shared." || st.Behind != 0 {
			t.Errorf("global knows of the refusal: %+v", st)
		}
		if st := f.links["east"].Status(); len(st.Refused) != 1 || st.Refused[0].Name != "shared." {
			t.Errorf("the zone knows of the refusal: %+v", st.Refused)
		}
		f.global.remove(good)
		f.global.remove(api.LocalID(api.GlobalSecrets, "", "", "shared", f.global.site))
		synctest.Wait()
		if st := f.status("east"); len(st.Rejected) != 0 {
			t.Errorf("a refusal outlived its object: %+v", st.Rejected)
		}
		if !east.has(api.GlobalSecrets, mine) {
			t.Error("the zone's own secret was deleted")
		}
	})
}

func TestRefusedZones(t *testing.T) {
	for name, change := range map[string]func(*kds.LinkOptions){
		"no token": func(o *kds.LinkOptions) { o.Token = nil },
		"foreign token": func(o *kds.LinkOptions) {
			o.Token = func(context.Context) (string, error) { return "token-of-nobody", nil }
		},
		"the name of another": func(o *kds.LinkOptions) { o.Site.Zone = "west" },
		"no name":             func(o *kds.LinkOptions) { o.Site.Zone = "Not A Label" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFederation(t)
				f.zones["east"] = newPlane(t, "east")
				defer f.close()
				f.global.put(api.Meshes, "", "default", meshSpec)
				f.zones["east"].put(api.MeshServices, "default", "backend", serviceSpec)
				f.link("east", change)
				synctest.Wait()
				if n := len(f.zones["east"].ids(api.Meshes)) + len(f.global.ids(api.MeshServices)) + len(f.global.ids(api.Zones)); n != 0 {
					t.Errorf("%d rows crossed", n)
				}
				if err := f.links["east"].Err(); err == nil {
					t.Error("the link says nothing of the refusal")
				}
			})
		})
	}
}

func TestUnauthenticatedZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		f.global.cancel()
		f.global.parts.Wait()
		f.global.start()
		f.serve(func(o *kds.ServerOptions) { o.Authenticate, o.Unauthenticated = nil, []string{"east"} })
		mesh := f.global.put(api.Meshes, "", "default", meshSpec)
		for _, z := range []string{"east", "west"} {
			f.zones[z] = newPlane(t, z)
			f.link(z, func(o *kds.LinkOptions) { o.Token = nil })
		}
		defer f.close()
		synctest.Wait()
		if !f.zones["east"].has(api.Meshes, mesh) || f.zones["west"].has(api.Meshes, mesh) {
			t.Error("want the named zone served without a token, and no other")
		}
	})
}

func TestAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		east, west := f.zones["east"], f.zones["west"]
		f.global.put(api.Meshes, "", "default", meshSpec)
		policy := f.global.put(api.MeshTimeouts, "default", "mt", timeout(1))
		service := east.put(api.MeshServices, "default", "backend", serviceSpec)
		synctest.Wait()

		f.global.stop() // global away
		f.global.parts.Wait()
		synctest.Wait()
		if !west.has(api.MeshServices, service) || !west.has(api.MeshTimeouts, policy) {
			t.Fatal("silence deleted something")
		}
		west.stop() // and a zone restarts meanwhile
		west.start()
		<-west.feeder.Ready()
		f.link("west", nil)
		if !west.has(api.MeshServices, service) {
			t.Fatal("a restarted zone lost its copies")
		}
		late := east.put(api.MeshServices, "default", "late", serviceSpec)

		f.global.start()
		f.serve(nil)
		f.global.put(api.MeshTimeouts, "default", "mt", timeout(2))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := string(west.row(api.MeshTimeouts, policy).Raw()); got != timeout(2) {
			t.Errorf("policy after the return: %s", got)
		}
		if !west.has(api.MeshServices, late) || !f.global.has(api.MeshServices, late) {
			t.Error("what was made while global was away did not arrive")
		}
		for _, zone := range []string{"east", "west"} {
			before := f.zones[zone].row(api.Meshes, api.LocalID(api.Meshes, "", "", "default", f.global.site)).Head().Revision
			f.net.part(zone, true)
			synctest.Wait()
			f.net.part(zone, false)
			time.Sleep(time.Minute)
			synctest.Wait()
			if st := f.links[zone].Status(); !st.Connected || st.Applied == 0 {
				t.Errorf("%s after the partition: %+v", zone, st)
			}
			after := f.zones[zone].row(api.Meshes, api.LocalID(api.Meshes, "", "", "default", f.global.site)).Head().Revision
			if before != after {
				t.Errorf("%s wrote again what it had", zone)
			}
			if got := f.status(zone).Items; got != 0 {
				t.Errorf("%s was sent %d resources that it had", zone, got)
			}
		}
	})
}

func TestRestartsResendNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		east, west := f.zones["east"], f.zones["west"]
		f.global.put(api.Meshes, "", "default", `{"skipCreatingInitialPolicies":["*"]}`)
		f.global.put(api.MeshTimeouts, "default", "mt1", timeout(1))
		f.global.put(api.Secrets, "default", "s", `{"data":"dGVzdA=="}`)
		east.put(api.MeshServices, "default", "backend", serviceSpec)
		east.put(api.Dataplanes, "default", "backend-1", planeSpec, "app", "x")
		synctest.Wait()
		for _, p := range []*plane{east, west, f.global} {
			p.stop()
		}
		f.global.start()
		f.serve(nil)
		f.global.put(api.MeshTimeouts, "default", "mt2", timeout(2))
		for _, zone := range []string{"east", "west"} {
			f.zones[zone].start()
			f.link(zone, nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, zone := range []string{"east", "west"} {
			if got := f.status(zone).Items; got != 1 {
				t.Errorf("global sent %s %d resources, want the one that is new", zone, got)
			}
			if st := f.links[zone].Status(); st.Items != 0 || st.Behind != 0 {
				t.Errorf("%s sent %d resources that global had", zone, st.Items)
			}
			if n := len(f.zones[zone].ids(api.MeshTimeouts)); n != 2 {
				t.Errorf("%s has %d policies of 2", zone, n)
			}
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		f.global.put(api.Meshes, "", "default", meshSpec)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		before := f.sent("east", "Mesh")
		st := f.links["east"].Status()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if after := f.sent("east", "Mesh"); after != before {
			t.Errorf("%d messages in idle time", after-before)
		}
		now := f.links["east"].Status()
		if !now.LastData.After(st.LastData.Add(25 * time.Second)) {
			t.Errorf("no heartbeat: last data %v, then %v", st.LastData, now.LastData)
		}
		if now.Applied == 0 || now.Applied != now.Received {
			t.Errorf("applied %d of %d", now.Applied, now.Received)
		}
	})
}

func TestSilentPeerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		f.global.put(api.Meshes, "", "default", meshSpec)
		synctest.Wait()
		own, _ := api.Revisions.Get(f.global.db.Snapshot(), "")
		if r, ok := api.Revisions.Get(f.zones["east"].db.Snapshot(), api.Global); !ok || r.Mark != own.Mark {
			t.Fatalf("the zone says it is at %v, global is at %v", r, own)
		}
		if st := f.status("east"); st.Sent != own.Counter || !st.Connected {
			t.Errorf("global says the zone is at %d of %d", st.Sent, own.Counter)
		}
		f.net.part("east", true)
		time.Sleep(time.Second)
		synctest.Wait()
		if f.links["east"].Status().Connected {
			t.Error("a lost link counts as connected")
		}
		if st := f.status("east"); st.Connected {
			t.Error("a lost zone counts as connected")
		}
	})
}

func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		var ids []api.ID
		for i := range 20 {
			ids = append(ids, f.global.put(api.MeshTimeouts, "default", "mt-"+string(rune('a'+i)), timeout(1)))
		}
		synctest.Wait()
		for _, id := range ids[:12] {
			f.global.remove(id)
			synctest.Wait()
		}
		east := f.zones["east"]
		if n := len(east.ids(api.MeshTimeouts)); n != 8 {
			t.Fatalf("single removals were held: %d rows left", n)
		}

		for i := range 12 {
			f.global.put(api.MeshTimeouts, "default", "mt-"+string(rune('a'+i)), timeout(1))
		}
		synctest.Wait()
		f.net.part("east", true)
		f.net.part("west", true)
		synctest.Wait()
		for _, id := range ids[:12] {
			f.global.remove(id)
		}
		f.net.part("east", false)
		f.net.part("west", false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, zone := range []string{"east", "west"} {
			if n := len(f.zones[zone].ids(api.MeshTimeouts)); n != 20 {
				t.Fatalf("%s: a removal of 12 of 20 was not held: %d rows left", zone, n)
			}
			if st := f.links[zone].Status(); len(st.Held) != 1 || st.Held[0].Kind != "MeshTimeout" || st.Held[0].Rows != 12 || st.Held[0].Of != 20 {
				t.Fatalf("%s does not show what is held: %+v", zone, st.Held)
			}
		}
		if st := f.status("east"); len(st.Rejected) != 12 {
			t.Errorf("global does not know what is held: %+v", st.Rejected)
		}
		if err := f.links["east"].Confirm(t.Context(), "MeshTimeout"); err != nil {
			t.Fatal(err)
		}
		if n := len(east.ids(api.MeshTimeouts)); n != 8 {
			t.Errorf("confirmed, and %d rows left", n)
		}
		if err := f.links["east"].Confirm(t.Context(), "MeshTimeout"); !errors.Is(err, kds.ErrNothingHeld) {
			t.Errorf("second confirmation: %v", err)
		}
		f.net.part("west", true) // the other way: it is repeated
		f.net.part("west", false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(f.zones["west"].ids(api.MeshTimeouts)); n != 8 {
			t.Errorf("repeated, and %d rows left", n)
		}
		if st := f.links["west"].Status(); len(st.Held) != 0 {
			t.Errorf("still held: %+v", st.Held)
		}
	})
}

func TestDerive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		f.zones["east"] = newPlane(t, "east")
		defer f.close()
		state := "Unavailable"
		f.link("east", func(o *kds.LinkOptions) {
			o.Derive = func(r db.Reader, row api.Row) (spec, status json.RawMessage) {
				if row.Head().Kind != "MeshService" {
					return nil, nil
				}
				tree := map[string]any{}
				if err := json.Unmarshal(row.Raw(), &tree); err != nil {
					t.Error(err)
				}
				tree["state"] = state
				spec, _ = json.Marshal(tree)
				return spec, json.RawMessage(`{"tls":{"status":"Ready"}}`)
			}
		})
		id := f.zones["east"].put(api.MeshServices, "default", "backend", serviceSpec)
		synctest.Wait()
		check := func(want string) {
			t.Helper()
			var got struct{ State string }
			if err := json.Unmarshal(f.global.row(api.MeshServices, id).Raw(), &got); err != nil || got.State != want {
				t.Errorf("state at global: %q (%v), want %q", got.State, err, want)
			}
		}
		check("Unavailable")
		state = "Available"
		f.links["east"].Touch(id)
		synctest.Wait()
		check("Available")
	})
}

func TestChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		big := make([]byte, 300<<10)
		data, _ := json.Marshal(map[string][]byte{"data": big})
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			f.global.put(api.Secrets, "default", name, string(data))
		}
		f.zones["east"] = newPlane(t, "east")
		f.link("east", nil)
		synctest.Wait()
		if n := len(f.zones["east"].ids(api.Secrets)); n != 8 {
			t.Errorf("%d of 8 secrets arrived", n)
		}
		if n := f.sent("east", "Secret"); n < 3 {
			t.Errorf("2.4 MB of first state came in %d messages", n)
		}
	})
}

// A zone hears soon of revisions that bring it nothing, also while one follows
// upon the other: what proxies of other zones say comes without a pause.
func TestRevisionsThatBringNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		f.global.put(api.Meshes, "", "default", meshSpec)
		synctest.Wait()
		first, _ := api.Revisions.Get(f.global.db.Snapshot(), "")
		for i := range 20 { // kinds that do not go down, faster than the zone is told
			f.global.put(api.Zones, "", "z"+string(rune('a'+i)), `{"enabled":true}`)
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		held, _ := api.Revisions.Get(f.zones["east"].db.Snapshot(), api.Global)
		if held.Mark == first.Mark {
			t.Errorf("after 400 ms the zone still knows only %v", held.Mark)
		}
	})
}
