package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Statuses are computed of rows, alike in every control plane.
func TestStatusOf(t *testing.T) {
	d := db.New(api.Schema)
	born := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := map[string]api.Row{}
	put := func(k api.AnyKind, site api.Site, source, name string, user labels, spec string) {
		t.Helper()
		born = born.Add(time.Second)
		m := api.Meta{ID: api.LocalID(k, "shop", "", name, site), Source: source, Created: born}
		m.Labels = api.ComputeLabels(k, m.ID, user, site)
		m.Core = api.CoreName(k, &m)
		var r api.Report
		row := k.Decode(m, []byte(spec), true, &r)
		if r.Err() != nil {
			t.Fatalf("%s: %v", name, r.Err())
		}
		rows[name] = row
		if _, err := d.Write(func(tx *db.Tx) error { k.Put(tx, row); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when, name, want string) {
		t.Helper()
		got, err := json.Marshal(api.StatusOf(d.Snapshot(), rows[name]))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s\ngot  %s %v\nwant %s", when, name, got, err, want)
		}
	}
	west := api.Site{Zone: "west", Env: "universal"}
	const otel = `{"type":"OpenTelemetry","openTelemetry":{"backendRef":{"kind":"MeshOpenTelemetryBackend","labels":{"app":"otel"}}}}`
	const unused = `{"conditions":[{"type":"ReferencedByPolicies","status":"False","reason":"NotReferenced","message":"No policy refers to this backend"}]}`

	put(api.MeshTraces, zone, "", "plain", nil, `{"default":{"backends":[{"type":"Datadog","datadog":{"url":"http://a:1"}}]}}`)
	put(api.MeshTraces, zone, "", "trace", nil, `{"default":{"backends":[`+otel+`]}}`)
	put(api.MeshMetrics, zone, "", "metric", nil, `{"default":{"backends":[`+otel+`]}}`)
	put(api.MeshAccessLogs, zone, "", "log", nil, `{"to":[{"targetRef":{"kind":"Mesh"},"default":{"backends":[`+otel+`]}}]}`)
	check("a policy without a collector", "plain", `null`)
	for _, name := range []string{"trace", "metric", "log"} {
		check("without the collector", name, `{"conditions":[{"type":"BackendRefsResolved","status":"False","reason":"UnresolvedBackendRefs","message":"Not found: MeshOpenTelemetryBackend with app=otel"}]}`)
	}
	put(api.MeshOpenTelemetryBackends, zone, "", "first", labels{"app": "otel"}, `{}`)
	put(api.MeshOpenTelemetryBackends, zone, "", "second", labels{"app": "otel"}, `{}`)
	put(api.MeshOpenTelemetryBackends, zone, "", "other", labels{"app": "x"}, `{}`)
	for _, name := range []string{"trace", "metric", "log"} {
		check("with it", name, `{"conditions":[{"type":"BackendRefsResolved","status":"True","reason":"AllBackendRefsResolved","message":"All backends that the policy refers to exist"}]}`)
	}
	check("the oldest is meant", "first", `{"conditions":[{"type":"ReferencedByPolicies","status":"True","reason":"Referenced","message":"Policies that refer to this backend: 3"}]}`)
	check("not the second", "second", unused)
	check("nor another", "other", unused)

	put(api.Workloads, zone, "", "cart", nil, `{}`)
	put(api.Workloads, west, "west", "cart-of-west", nil, `{}`)
	proxies := func(site api.Site, source, workload string, names ...string) {
		for _, name := range names {
			put(api.Dataplanes, site, source, name, labels{api.LabelWorkload: workload}, `{"networking":{"address":"10.0.0.1","inbound":[{"port":80}]}}`)
		}
	}
	proxies(zone, "", "cart", "e-1", "e-2")
	proxies(west, "west", "cart", "x-1")
	proxies(west, "west", "cart-of-west", "w-1", "w-2", "w-3")
	put(api.Dataplanes, zone, "", "e-3", labels{api.LabelWorkload: "cart"}, `{"networking":{"address":"10.0.0.1","inbound":[{"port":80},{"port":81,"state":"NotReady"}]}}`)
	put(api.DataplaneInsights, west, "west", "w-1", nil, `{"subscriptions":[{"id":"1","connectTime":"2026-01-01T00:00:00Z"}]}`)
	put(api.DataplaneInsights, west, "west", "w-2", nil, `{"subscriptions":[{"id":"1","connectTime":"2026-01-01T00:00:00Z","disconnectTime":"2026-01-01T00:00:01Z"}]}`)
	if _, err := d.Write(func(tx *db.Tx) error {
		api.Connections.Put(tx, &api.Connection{Proxy: rows["e-3"].Head().ID})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	check("the zone's own", "cart", `{"dataplaneProxies":{"connected":1,"healthy":2,"total":3}}`)
	check("as a zone reports it", "cart-of-west", `{"dataplaneProxies":{"connected":1,"healthy":3,"total":3}}`)

	put(api.MeshMultiZoneServices, zone, "", "both", nil, `{"selector":{"meshService":{"matchLabels":{"app":"api"}}},"ports":[{"port":80}]}`)
	check("no members", "both", `{"meshServices":[],"conditions":[{"type":"MeshServicesMatched","status":"False","reason":"NoMatchesFound","message":"No MeshService carries the labels of the selector"}]}`)
	put(api.MeshServices, west, "west", "b", labels{"app": "api"}, `{}`)
	put(api.MeshServices, zone, "", "a", labels{"app": "api"}, `{}`)
	check("members", "both", `{"meshServices":[{"name":"a","namespace":"","zone":"east","mesh":"shop"},{"name":"b","namespace":"","zone":"west","mesh":"shop"}],"conditions":[{"type":"MeshServicesMatched","status":"True","reason":"MatchesFound","message":"Some MeshServices match"}]}`)
	check("a kind without", "a", `null`)
}
