package kds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds/kdspb"
)

// timeoutOf is a MeshTimeout about the proxies of a targetRef.
func timeoutOf(targetRef string) string {
	return fmt.Sprintf(`{"targetRef":{%s},"to":[{"default":{"idleTimeout":"1s"},"targetRef":{"kind":"Mesh"}}]}`, targetRef)
}

const (
	byName    = `"kind":"Dataplane","name":"web"`
	byLabel   = `"kind":"Dataplane","labels":{"kuma.io/display-name":"web"}`
	byService = `"kind":"MeshService","name":"web"`
	fromAll   = `{"from":[{"default":{"action":"Allow"},"targetRef":{"kind":"Mesh"}}]}`
	byRequest = `{"rules":[{"default":{"allow":[{"method":"GET","spiffeID":{"type":"Exact","value":"spiffe://d/web"}}]}}]}`
	withMTLS  = `{"mtls":{"backends":[{"name":"ca","type":"builtin"}],"enabledBackend":"ca"},"skipCreatingInitialPolicies":["*"]}`
)

// specs are the names and specs of a message that has come.
func specs(t *testing.T, m *discovery.DeltaDiscoveryResponse) string {
	t.Helper()
	var out []string
	for _, r := range m.Resources {
		got := opened(t, r)
		out = append(out, got.Meta.Labels[api.LabelDisplayName]+" "+string(got.Spec.Value))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// A control plane of release 3.0 would drop older fields without a word: it gets
// the newer form, and nothing of what has none. Those that know older forms get
// what was written.
func TestDialects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "west")
		defer f.close()
		f.global.put(api.Meshes, "", "default", withMTLS)
		named := f.global.put(api.MeshTimeouts, "default", "named", timeoutOf(byName))
		f.global.put(api.MeshTimeouts, "default", "service", timeoutOf(byService))
		f.global.put(api.MeshTrafficPermissions, "default", "all", fromAll)
		requests := f.global.put(api.MeshTrafficPermissions, "default", "requests", byRequest)
		synctest.Wait()
		ask := func(s *stranger, kind string) string {
			t.Helper()
			s.subscribe(kind)
			m := s.response()
			if m.TypeUrl != kind {
				t.Fatalf("asked for %s, got %v", kind, m)
			}
			s.ack(m)
			return specs(t, m)
		}
		expect := func(who, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s got\n%s\nwant\n%s", who, got, want)
			}
		}
		older := dialStranger(f, "z214", kdspb.GlobalToZoneSync)
		older.older = true
		newer := dialStranger(f, "z30", kdspb.GlobalToZoneSync)
		expect("2.14", ask(older, "MeshTimeout"), "named "+timeoutOf(byName)+"\nservice "+timeoutOf(byService))
		expect("3.0", ask(newer, "MeshTimeout"), "named "+timeoutOf(byLabel))
		expect("2.14", ask(older, "MeshTrafficPermission"), "all "+fromAll)
		expect("3.0", ask(newer, "MeshTrafficPermission"), "")
		expect("3.0", ask(newer, "Mesh"), "default \x42\x01*")
		if got := string(f.zones["west"].row(api.MeshTimeouts, named).Raw()); got != timeoutOf(byName) {
			t.Errorf("a zone of this project got %s", got)
		}

		// What it says of requests both would drop, and let in more.
		if got := string(f.zones["west"].row(api.MeshTrafficPermissions, requests).Raw()); got != byRequest {
			t.Errorf("a zone of this project got %s", got)
		}

		synctest.Wait()
		expectRejected := func(zone string, want ...string) {
			t.Helper()
			check := func(where string, got []string) {
				t.Helper()
				if !slices.Equal(got, want) {
					t.Errorf("%s, %s: %v, want %v", zone, where, got, want)
				}
			}
			var status, insight []string
			for _, r := range f.status(zone).Rejected {
				status = append(status, r.Kind+" "+r.Name[:strings.IndexByte(r.Name, '-')]+": "+r.Reason)
			}
			time.Sleep(11 * time.Second)
			synctest.Wait()
			row, _ := api.ZoneInsights.Get(f.global.db.Snapshot(), api.LocalID(api.ZoneInsights, "", "", zone, f.global.site))
			for _, r := range row.Spec.Rejected {
				insight = append(insight, r.Type+" "+r.Name[:strings.IndexByte(r.Name, '-')]+": "+r.Reason)
			}
			check("status", status)
			check("ZoneInsight", insight)
		}
		const why = ": not sent, as it has no newer form: "
		const noLabel = why + "spec.targetRef: proxies have no label for kuma.io/service=web; use kind Dataplane with labels that they carry"
		const byImportance = why + "spec.from: in this form the more important permission decides, in the newer a deny goes before every allow; use rules with deny and allow"
		const known = "spec.rules[0].default.allow[0].method: is known to control planes of this project only"
		const dropped = "MeshTrafficPermission requests: not sent, as a part of it would be dropped: " + known
		const requestsToo = "MeshTrafficPermission requests" + why + known
		expectRejected("z214", dropped)
		expectRejected("z30", "MeshTimeout service"+noLabel, "MeshTrafficPermission all"+byImportance, requestsToo)

		// Nothing is said to a peer that gets nothing new; its insight tells all the same.
		f.global.put(api.MeshTimeouts, "default", "another", timeoutOf(byService))
		synctest.Wait()
		expectRejected("z30", "MeshTimeout another"+noLabel, "MeshTimeout service"+noLabel, "MeshTrafficPermission all"+byImportance, requestsToo)
		// Written anew in the form that the peer has: it is the same.
		f.global.put(api.MeshTimeouts, "default", "named", timeoutOf(byLabel))
		f.global.put(api.MeshTimeouts, "default", "service", timeoutOf(byLabel))
		m := newer.response()
		expect("3.0", specs(t, m), "service "+timeoutOf(byLabel))
		newer.ack(m)
		// What has no newer form any more, the peer loses.
		f.global.put(api.MeshTimeouts, "default", "named", timeoutOf(byService))
		m = newer.response()
		if len(m.Resources) != 0 || len(m.RemovedResources) != 1 || !strings.HasPrefix(m.RemovedResources[0], "named-") {
			t.Errorf("of what cannot be said any more the peer hears %v", m)
		}
		newer.ack(m)
		f.global.remove(named)
		synctest.Wait()
		expectRejected("z30", "MeshTimeout another"+noLabel, "MeshTrafficPermission all"+byImportance, requestsToo)
	})
}
