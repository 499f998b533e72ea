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
	check("a service of which nothing is known", "a", `null`)
	check("a kind without", "e-1", `null`)

	// What this control plane gave services: addresses and names.
	put(api.MeshExternalServices, zone, "", "mail", nil, `{"match":{"port":443}}`)
	check("nothing yet", "mail", `{"vip":{}}`)
	address := func(name, ip string) api.Row {
		return api.VirtualIPs.New(api.Meta{ID: api.ID{Name: ip}}, api.VirtualIP{Address: ip, Service: api.ServiceID(rows[name].Head().ID)})
	}
	if _, err := d.Write(func(tx *db.Tx) error {
		for name, ip := range map[string]string{"mail": "242.0.0.1", "a": "241.0.0.1", "both": "243.0.0.1"} {
			api.VirtualIPs.Put(tx, address(name, ip))
			by := api.GeneratorRef{CoreName: "g"}
			api.Hostnames.Put(tx, &api.ServiceHostnames{
				Service: rows[name].Head().ID, Addresses: []api.ServiceAddress{{name + ".local", "HostnameGenerator", &by}},
				Generators: []api.HostnameGeneratorStatus{{by, []api.Condition{{Type: "Generated", Status: "True", Reason: "Generated", Message: "m"}}}},
			})
		}
		for _, k := range []string{api.RefService, api.RefExternalService, api.RefMultiZoneService} {
			api.Exhaustions.Put(tx, &api.Exhaustion{Kind: k, CIDR: "10.0.0.0/30"})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	names := func(name string) string {
		return `"addresses":[{"hostname":"` + name + `.local","origin":"HostnameGenerator","hostnameGeneratorRef":{"coreName":"g"}}],` +
			`"hostnameGenerators":[{"hostnameGeneratorRef":{"coreName":"g"},"conditions":[{"type":"Generated","status":"True","reason":"Generated","message":"m"}]}]`
	}
	check("with names", "mail", `{"vip":{"ip":"242.0.0.1"},`+names("mail")+`}`)
	check("with names", "a", `{"vips":[{"ip":"241.0.0.1"}],`+names("a")+`,"tls":{}}`)
	check("with names", "both", `{"vips":[{"ip":"243.0.0.1"}],`+names("both")+`,"meshServices":[{"name":"a","namespace":"","zone":"east","mesh":"shop"},{"name":"b","namespace":"","zone":"west","mesh":"shop"}],"conditions":[{"type":"MeshServicesMatched","status":"True","reason":"MatchesFound","message":"Some MeshServices match"}]}`)
	if _, err := d.Write(func(tx *db.Tx) error {
		api.ServiceStates.Put(tx, &api.ServiceState{Service: rows["a"].Head().ID, Identities: []string{"spiffe://x"}, Healthy: 1, Total: 2})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	check("and a state", "a", `{"vips":[{"ip":"241.0.0.1"}],`+names("a")+`,"tls":{"status":"Ready"},"dataplaneProxies":{"connected":0,"healthy":1,"total":2}}`)
	put(api.MeshExternalServices, zone, "", "late", nil, `{"match":{"port":443}}`)
	put(api.MeshMultiZoneServices, zone, "", "late-too", nil, `{"selector":{"meshService":{"matchLabels":{"app":"none"}}},"ports":[{"port":80}]}`)
	const exhausted = `{"type":"VIPAllocated","status":"False","reason":"Exhausted","message":"All addresses of 10.0.0.0/30 are taken"}]}`
	check("no address is left", "late", `{"vip":{},"conditions":[`+exhausted)
	check("no address is left", "b", `{"tls":{},"conditions":[`+exhausted)
	check("no address is left", "late-too", `{"meshServices":[],"conditions":[{"type":"MeshServicesMatched","status":"False","reason":"NoMatchesFound","message":"No MeshService carries the labels of the selector"},`+exhausted)
}
