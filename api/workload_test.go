package api_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

func proxy(name string, labels map[string]string, s api.Dataplane) *api.Object[api.Dataplane] {
	return api.Dataplanes.New(api.Meta{ID: api.ID{Kind: "Dataplane", Mesh: "shop", Zone: "east", Name: name}, Labels: labels}, s)
}

func identityOf(name string, labels map[string]string, s api.MeshIdentity) *api.Object[api.MeshIdentity] {
	return api.MeshIdentities.New(api.Meta{ID: api.ID{Mesh: "shop", Name: name}, Labels: labels}, s)
}

func TestWorkload(t *testing.T) {
	gateway := api.Dataplane{Networking: api.Networking{Gateway: &api.Gateway{Tags: map[string]string{"kuma.io/service": "tagged"}}}}
	for _, c := range []struct {
		labels map[string]string
		spec   api.Dataplane
		want   string
	}{
		{nil, api.Dataplane{}, "p1"},
		{nil, gateway, "tagged"},
		{map[string]string{"kuma.io/service": "served"}, gateway, "served"},
		{map[string]string{"kuma.io/service": "served", "kuma.io/workload": "worked"}, gateway, "worked"},
	} {
		if got := api.WorkloadOf(proxy("p1", c.labels, c.spec)); got != c.want {
			t.Errorf("%v: %s, want %s", c.labels, got, c.want)
		}
	}
}

func TestSPIFFEID(t *testing.T) {
	template := func(domain, path string) api.MeshIdentity {
		return api.MeshIdentity{SpiffeID: &api.SpiffeIDTemplate{TrustDomain: domain, Path: path}}
	}
	kube := map[string]string{"kuma.io/env": "kubernetes", "k8s.kuma.io/namespace": "ns", "k8s.kuma.io/service-account": "sa", "team": "blue"}
	for _, c := range []struct {
		spec     api.MeshIdentity
		labels   map[string]string
		want     string
		workload bool
	}{
		{api.MeshIdentity{}, map[string]string{"kuma.io/workload": "cart"}, "spiffe://shop.east.mesh.local/workload/cart", true},
		{api.MeshIdentity{}, kube, "spiffe://shop.east.mesh.local/ns/ns/sa/sa", false},
		{template("a.b", `/{{ .TrustDomain }}/{{ label "team" }}`), kube, "spiffe://a.b/a.b/blue", false},
		{template("", `/{{ label "kuma.io/workload" }}`), map[string]string{"kuma.io/workload": "cart"}, "spiffe://shop.east.mesh.local/cart", true},
	} {
		id, err := api.SPIFFEID(identityOf("i", nil, c.spec), proxy("p1", c.labels, api.Dataplane{}), "east")
		if err != nil || id.String() != c.want || id.FromWorkload != c.workload {
			t.Errorf("%s %v %v, want %s", id, id.FromWorkload, err, c.want)
		}
	}
	for _, bad := range []api.MeshIdentity{
		template("{{ .Nope }}", ""), template("", `/{{ label "absent" }}`), template("", "/{{ .ServiceAccount }}"), template("UPPER", ""),
	} {
		if id, err := api.SPIFFEID(identityOf("i", nil, bad), proxy("p1", nil, api.Dataplane{}), "east"); !errors.Is(err, api.ErrSPIFFE) {
			t.Errorf("%+v: %s %v", bad.SpiffeID, id, err)
		}
	}
}

func TestSelectIdentity(t *testing.T) {
	selects := func(labels map[string]string) api.MeshIdentity {
		return api.MeshIdentity{Selector: &api.IdentitySelector{Dataplane: &api.LabelSelector{MatchLabels: labels}}}
	}
	all := []*api.Object[api.MeshIdentity]{
		identityOf("none", nil, api.MeshIdentity{}),
		identityOf("empty", nil, api.MeshIdentity{Selector: &api.IdentitySelector{}}),
		identityOf("z-all", nil, selects(nil)),
		identityOf("a-all", nil, selects(nil)),
		identityOf("z-app", nil, selects(map[string]string{"app": "cart"})),
		identityOf("both", nil, selects(map[string]string{"app": "cart", "v": "2"})),
	}
	for _, c := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, "a-all"}, {map[string]string{"app": "cart"}, "z-app"}, {map[string]string{"app": "cart", "v": "2"}, "both"},
	} {
		if got := api.SelectIdentity(slices.Values(all), c.labels); got == nil || got.Name != c.want {
			t.Errorf("%v: %v, want %s", c.labels, got, c.want)
		}
	}
	if got := api.SelectIdentity(slices.Values(all[:2]), nil); got != nil {
		t.Errorf("an identity without selector selects: %v", got.Name)
	}
}

func TestPorts(t *testing.T) {
	text := func(s string) *api.IntOrString { return &api.IntOrString{Str: s, Text: true} }
	number := api.IntOrStringOf(8080)
	for _, c := range []struct {
		target *api.IntOrString
		in     api.Inbound
		want   bool
	}{
		{nil, api.Inbound{Port: 8080}, false},
		{&api.IntOrString{}, api.Inbound{}, false},
		{&number, api.Inbound{Port: 8080}, true},
		{&number, api.Inbound{Port: 8081, ServicePort: 8080}, false},
		{text("http"), api.Inbound{Name: "http", Port: 1}, true},
		{text("8080"), api.Inbound{Port: 8080}, false},
		{text(""), api.Inbound{Port: 8080}, false},
	} {
		if got := (api.MeshServicePort{TargetPort: c.target}).Targets(c.in); got != c.want {
			t.Errorf("%v to %+v: %v", c.target, c.in, got)
		}
	}
	if a, b := (api.MeshServicePort{Name: "http", Port: 80}).Section(), (api.MultiZoneServicePort{Port: 80}).Section(); a != "http" || b != "80" {
		t.Errorf("sections %s %s", a, b)
	}
	for state, want := range map[string]bool{"": true, "Ready": true, "NotReady": false, "Ignored": false} {
		if in := (api.Inbound{State: state}); in.Healthy() != want {
			t.Errorf("%+v: %v", in, !want)
		}
	}
	if (api.Inbound{Health: &api.Health{}}).Healthy() || !(api.Inbound{Health: &api.Health{Ready: true}}).Healthy() {
		t.Error("health is not heeded")
	}
}

func TestPolicyRole(t *testing.T) {
	ref := func(kind string, pairs ...string) api.TargetRef {
		labels := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			labels[pairs[i]] = pairs[i+1]
		}
		return api.TargetRef{Kind: kind, Labels: labels}
	}
	own := ref("MeshService", api.LabelDisplayName, "a", api.LabelNamespace, "ns")
	other := ref("MeshService", api.LabelDisplayName, "a", api.LabelNamespace, "elsewhere")
	for _, c := range []struct {
		namespace string
		to        []api.TargetRef
		want      string
		ok        bool
	}{
		{"", []api.TargetRef{own}, "system", true},
		{"system", []api.TargetRef{own}, "system", true},
		{"ns", nil, "workload-owner", true},
		{"ns", []api.TargetRef{own, ref("MeshHTTPRoute", api.LabelDisplayName, "r")}, "producer", true},
		{"ns", []api.TargetRef{other, ref("Mesh"), ref("MeshService", "app", "a"), ref("MeshService", api.LabelDisplayName, "a", "app", "a")}, "consumer", true},
		{"ns", []api.TargetRef{own, other}, "", false},
	} {
		if got, ok := api.PolicyRole(c.namespace, "system", c.to); got != c.want || ok != c.ok {
			t.Errorf("%s %v: %s %v, want %s", c.namespace, c.to, got, ok, c.want)
		}
	}
	policy := func(role string, to api.TargetRef) api.Row {
		m := api.Meta{Labels: map[string]string{api.LabelPolicyRole: role, api.LabelNamespace: "ns"}}
		return api.MeshTimeouts.New(m, api.MeshTimeout{To: []api.MeshTimeoutTo{{TargetRef: to}}})
	}
	if !api.MeshTimeouts.MayCross(policy("producer", own)) {
		t.Error("a producer policy stays")
	}
	for _, row := range []api.Row{policy("system", own), policy("producer", other), policy("", own)} {
		if api.MeshTimeouts.MayCross(row) {
			t.Errorf("%v crosses zones", row.Head().Labels)
		}
	}
	if !api.MeshTrusts.MayCross(api.MeshTrusts.New(api.Meta{}, api.MeshTrust{})) || api.Dataplanes.MayCross(proxy("a", nil, api.Dataplane{})) {
		t.Error("trust crosses zones, proxies do not")
	}
}

func TestInitialRows(t *testing.T) {
	names := func(rows []api.Row) (out []string) {
		for _, row := range rows {
			m := row.Head()
			k, _ := api.ByName(m.Kind)
			var r api.Report
			k.Decode(*m, row.Raw(), true, &r)
			if r.Err() != nil {
				t.Errorf("%s: %v", m.ID, r.Err())
			}
			out = append(out, m.ID.String())
		}
		return out
	}
	mesh := func(skip ...string) *api.Object[api.Mesh] {
		return api.Meshes.New(api.Meta{ID: api.ID{Name: "shop"}}, api.Mesh{SkipCreatingInitialPolicies: skip})
	}
	policies := []string{"MeshTimeout shop///mesh-timeout-all-shop", "MeshTimeout shop///mesh-timeout-to-all-shop",
		"MeshCircuitBreaker shop///mesh-circuit-breaker-all-shop", "MeshRetry shop///mesh-retry-all-shop"}
	if got, want := names(api.InitialRows(mesh(), api.Site{})), append(slices.Clone(policies), "MeshIdentity shop///default"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := names(api.InitialRows(mesh("MeshIdentity", "MeshRetry"), api.Site{})); !slices.Equal(got, policies[:3]) {
		t.Errorf("%v", got)
	}
	if got := names(api.InitialRows(mesh("*"), api.Site{})); got != nil {
		t.Errorf("%v", got)
	}
	for i, want := range []string{
		`{"targetRef":{"kind":"Mesh"},"rules":[{"default":{"connectionTimeout":"10s","idleTimeout":"2h0m0s","http":{"requestTimeout":"0s","streamIdleTimeout":"1h0m0s","maxStreamDuration":"0s"}}}]}`,
		`{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"connectionTimeout":"5s","idleTimeout":"1h0m0s","http":{"requestTimeout":"15s","streamIdleTimeout":"30m0s"}}}]}`,
		`{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"connectionLimits":{"maxConnections":1024,"maxPendingRequests":1024,"maxRetries":3,"maxRequests":1024}}}]}`,
		`{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"tcp":{"maxConnectAttempt":5},"http":{"numRetries":5,"perTryTimeout":"16s","backOff":{"baseInterval":"25ms","maxInterval":"250ms"}},"grpc":{"numRetries":5,"perTryTimeout":"16s","backOff":{"baseInterval":"25ms","maxInterval":"250ms"}}}}]}`,
	} {
		if got := string(api.InitialRows(mesh(), api.Site{})[i].Raw()); got != want {
			t.Errorf("%s", got)
		}
	}
	if got := names(api.DefaultHostnameGenerators(api.Site{})); len(got) != 5 {
		t.Errorf("%v", got)
	}
	if got := names(api.DefaultHostnameGenerators(zone)); !slices.Equal(got, []string{"HostnameGenerator /east//local-mesh-external-service", "HostnameGenerator /east//local-universal-mesh-service"}) {
		t.Errorf("%v", got)
	}
}

func TestHostname(t *testing.T) {
	hostname := func(template string, service *api.Meta, zone string) (string, error) {
		h, err := api.ParseHostname(template)
		if err != nil {
			return "", err
		}
		return h.Render(service, zone)
	}
	svc := &api.Meta{ID: api.ID{Mesh: "shop", Name: "cart"}, Core: "cart-x", Labels: map[string]string{"kuma.io/zone": "west", "team": "blue"}}
	for template, want := range map[string]string{
		"{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local": "cart.svc.west.mesh.local",
		`{{ .Name }}.{{ label "team" }}.{{ .Mesh }}`:    "cart-x.blue.shop",
	} {
		if got, err := hostname(template, svc, "east"); got != want || err != nil {
			t.Errorf("%s: %s %v", template, got, err)
		}
	}
	for _, template := range []string{`{{ label "absent" }}`, "{{ .Namespace }}.x", "{{ .Nope }}", "A", "{{"} {
		if got, err := hostname(template, svc, "east"); err == nil {
			t.Errorf("%s: %s", template, got)
		}
	}
	// Templates of strangers run here: none may be slow or large.
	for _, template := range []string{
		`{{ range 1000000000 }}x{{ end }}`, `{{ printf "%1000000000d" 1 }}`, `{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`,
		`{{ "\\"` + strings.Repeat("|js", 200) + ` }}`, `{{ $a := "x" }}{{ $a }}`, strings.Repeat("a", 2000),
	} {
		if got, err := hostname(template, svc, "east"); err == nil || !strings.Contains(err.Error(), "not available") && len(template) < 1024 {
			t.Errorf("%s: %s %v", template, got, err)
		}
	}
}

// Rows are found by what they are called and what they carry.
func TestTables(t *testing.T) {
	d := db.New(api.Schema)
	put := func(k api.AnyKind, row api.Row) {
		if _, err := d.Write(func(tx *db.Tx) error { k.Put(tx, row); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, zone := range []string{"east", "west"} {
		for _, app := range []string{"a", "b"} {
			m := api.Meta{ID: api.ID{Kind: "MeshService", Mesh: "shop", Zone: zone, Name: app}, Labels: map[string]string{"app": app, "kuma.io/zone": zone}}
			if zone == "west" {
				m.Source = api.Global
			}
			m.Core = api.CoreName(api.MeshServices, &m)
			put(api.MeshServices, api.MeshServices.New(m, api.MeshService{}))
		}
	}
	snap := d.Snapshot()
	if o, ok := api.MeshServices.Named(snap, "shop", "a"); !ok || o.Zone != "east" {
		t.Errorf("own service by name: %v", ok)
	}
	copied := api.SyncName(api.MeshServices, api.ID{Mesh: "shop", Zone: "west", Name: "a"})
	if o, ok := api.MeshServices.Named(snap, "shop", copied); !ok || o.Zone != "west" {
		t.Errorf("copy by name: %v", ok)
	}
	var got []string
	for o := range api.MeshServices.Labelled(snap, "shop", map[string]string{"app": "a", "kuma.io/zone": "west"}) {
		got = append(got, o.Core)
	}
	if !slices.Equal(got, []string{copied}) {
		t.Errorf("labelled: %v", got)
	}
	n := 0
	for range api.MeshServices.In(snap, "other") {
		n++
	}
	if n != 0 {
		t.Errorf("%d services in another mesh", n)
	}
}
