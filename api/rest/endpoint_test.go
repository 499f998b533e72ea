package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

func (p *plane) client(token string) *client.Client {
	p.t.Helper()
	c, err := client.New(client.Options{URL: "http://cp.example:5681", Token: token, Transport: direct{p.http}})
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestClient(t *testing.T) {
	p := newPlane(t, atZone)
	c := p.client(p.token)
	kind, _ := api.ByName("MeshTimeout")
	if _, err := c.Apply(t.Context(), []byte(`{"type":"Mesh","name":"default","skipCreatingInitialPolicies":["*"]}`)); err != nil {
		t.Fatal(err)
	}
	done, err := c.Apply(t.Context(), []byte(timeout("default", "t")))
	if err != nil || done.Result != client.Created || done.Revision == 0 || done.Kind != "MeshTimeout" || done.Mesh != "default" || done.Name != "t" {
		t.Errorf("%+v, %v", done, err)
	}
	again, err := c.Apply(t.Context(), []byte(timeout("default", "t")))
	if err != nil || again.Result != client.Unchanged || again.Revision != done.Revision {
		t.Errorf("%+v, %v", again, err)
	}
	if body, err := c.Get(t.Context(), kind, "default", "t"); err != nil || !strings.Contains(string(body), `"kri_mt_default_east__t_"`) {
		t.Errorf("%s, %v", body, err)
	}
	if _, err := c.Get(t.Context(), kind, "default", "a/b?c"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if rev, err := c.Delete(t.Context(), kind, "default", "t"); err != nil || rev <= done.Revision {
		t.Errorf("%d, %v", rev, err)
	}
	if _, err := c.Delete(t.Context(), kind, "default", "t"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if root, err := c.Root(t.Context()); err != nil || root.Product != "Kuma" || root.BasedOnKuma == "" || root.AtollVersion != "0.1.0" || !strings.HasPrefix(root.Version, "3.0.") || root.InstanceID != "one" || root.ClusterID != "cluster" {
		t.Errorf("%+v, %v", root, err)
	}
	_, err = c.Apply(t.Context(), []byte(`{"type":"MeshTimeout","mesh":"default","name":"T","spec":{"toe":[]}}`))
	var problem *client.Problem
	if !errors.As(err, &problem) || problem.Status != 400 || len(problem.Faults) < 2 {
		t.Fatalf("%v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if lines[0] != "Could not process a resource (Resource is not valid)" || len(lines) != 1+len(problem.Faults) || !strings.HasPrefix(lines[1], "* ") {
		t.Errorf("%s", err)
	}
	for doc, want := range map[string]string{
		`{"type":"MeshTimout","mesh":"m","name":"a"}`: "MeshTimout",
		`{"type":"MeshTimeout"}`:                      "name: cannot be empty; mesh: cannot be empty",
		`[]`:                                          "not a resource",
	} {
		if _, err := c.Apply(t.Context(), []byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", doc, err)
		}
	}
	if _, err := p.client("").Get(t.Context(), kind, "default", "t"); err == nil || err.Error() != "Invalid authentication data (Unauthenticated)" {
		t.Errorf("%v", err)
	}
}

func TestClientJoinsPages(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	const n = 2345
	records := make([]store.Record, n)
	for i := range records {
		records[i] = dataplaneRecord(fmt.Sprintf("dp-%05d", i))
	}
	p.apply(records...)
	kind, _ := api.ByName("Dataplane")
	for _, list := range []func() (int, error){
		func() (n int, err error) {
			for _, err := range p.client(p.token).List(t.Context(), kind, "default", nil) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		},
		func() (n int, err error) {
			for _, err := range p.client(p.token).Overviews(t.Context(), kind, "", nil) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		},
	} {
		if got, err := list(); got != n || err != nil {
			t.Errorf("%d items, %v; want %d", got, err, n)
		}
	}
	for _, err := range p.client(p.token).List(t.Context(), kind, "nope", nil) {
		if !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
}

func dataplaneRecord(name string) store.Record {
	return store.Record{
		ID:   api.ID{Kind: "Dataplane", Mesh: "default", Zone: "east", Name: name},
		Spec: json.RawMessage(`{"networking":{"address":"127.0.0.1","inbound":[{"port":80}]}}`),
	}
}

func TestTokens(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	key, err := auth.SigningKeyRecord(auth.ZoneToken, "", 1, atZone, start)
	if err != nil {
		t.Fatal(err)
	}
	p.apply(key)
	c, v, snap := p.client(p.token), auth.NewValidator(auth.Options{}), p.db.Snapshot()
	token, err := c.UserToken(t.Context(), client.UserTokenRequest{Name: "jane", Groups: []string{"a"}, ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := v.ParseUser(snap, start.Add(59*time.Minute), token); err != nil || u.Name != "jane" {
		t.Errorf("%v, %v", u, err)
	}
	if _, err := v.ParseUser(snap, start.Add(time.Hour), token); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("after its time: %v", err)
	}
	token, err = c.ZoneToken(t.Context(), client.ZoneTokenRequest{Zone: "west", Scope: []string{"cp"}})
	if err != nil {
		t.Fatal(err)
	}
	if z, err := v.ParseZone(snap, start.AddDate(9, 0, 0), token); err != nil || z.Check("west") != nil || !slices.Equal(z.Scope, []string{"cp"}) {
		t.Errorf("%v, %v", z, err)
	}
	token, err = c.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: "default", Name: "dp", Tags: map[string][]string{"k": {"v"}}, Workload: "w"})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := v.ParseDataplane(snap, start.AddDate(9, 0, 0), "default", token); err != nil || d.Name != "dp" || d.Workload != "w" || d.Tags["k"][0] != "v" {
		t.Errorf("%v, %v", d, err)
	}
	if r := p.want(200, "POST", "/tokens/zone", "{}"); !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") || strings.Count(r.text, ".") != 2 {
		t.Errorf("%v %q", r.header, r.text)
	}
	for _, c := range []struct {
		status     int
		path, body string
		want       string
	}{
		{400, "/tokens/user", `{}`, "name: cannot be empty|validFor: cannot be empty"},
		{400, "/tokens/user", `{"name":"x","validFor":"0s"}`, "validFor: cannot be empty or nil"},
		{400, "/tokens/user", `{"name":"x","validFor":"x"}`, `validFor: cannot be empty or nil|validFor: is invalid: time: invalid duration "x"`},
		{400, "/tokens/dataplane", `{"type":"ingress"}`, "mesh: cannot be empty|type: ingress is not a valid proxy type"},
		{400, "/tokens/zone", `{"validFor":"x"}`, `validFor: is invalid: time: invalid duration "x"`},
		{400, "/tokens/dataplane", `{"mesh":"default","nmae":"web-1"}`, `nmae: unknown field; did you mean "name"?`},
		{400, "/tokens/user", `{"groupps":["a"],"name":"x"}`, `groupps: unknown field; did you mean "groups"?|validFor: cannot be empty`},
		{200, "/tokens/zone", `{"Zone":"east"}`, ""},
		{400, "/tokens/zone", `{"zone":1}`, ""},
		{400, "/tokens/zone", `{`, ""},
		{404, "/tokens/dataplane", `{"mesh":"nope"}`, ""},
		{200, "/tokens/user", `{"name":"x","validFor":"-1h"}`, ""},
	} {
		r := p.want(c.status, "POST", c.path, c.body)
		if c.want != "" && (strings.Join(r.faults(t), "|") != c.want || r.json(t)["title"] != "Invalid request") {
			t.Errorf("%s: %s", c.path, r.text)
		}
		if c.status == 404 && r.json(t)["title"] != "Signing Key not found" {
			t.Errorf("%s: %s", c.path, r.text)
		}
	}
	off := newPlane(t, atZone, func(o *rest.Options) { o.NoIssuing = []auth.Token{auth.DataplaneToken} })
	if e := off.want(400, "POST", "/tokens/dataplane", `{"mesh":"default"}`).json(t); e["detail"] != "issuing tokens using the control plane is disabled." || e["title"] != "Could not issue a token" {
		t.Errorf("%v", e)
	}
}

func TestInformation(t *testing.T) {
	p := newPlane(t, atFederated, func(o *rest.Options) {
		o.Config = map[string]any{"mode": "zone"}
		o.GUI = "/gui"
	})
	if c := p.want(200, "GET", "/config", "").json(t); c["mode"] != "zone" {
		t.Errorf("%v", c)
	}
	if r := p.want(200, "GET", "/", "", anonymous); r.json(t)["gui"] != "/gui" || r.json(t)["product"] != "Kuma" || !strings.HasPrefix(r.text, "{\n \"hostname\"") {
		t.Errorf("%s", r.text)
	}
	find := func(path, list, name string) map[string]any {
		t.Helper()
		for _, one := range p.want(200, "GET", path, "").json(t)[list].([]any) {
			if one := one.(map[string]any); one["name"] == name {
				return one
			}
		}
		return nil
	}
	route := find("/_resources", "resources", "MeshHTTPRoute")
	want := map[string]any{
		"name": "MeshHTTPRoute", "scope": "Mesh", "readOnly": true, "path": "meshhttproutes", "shortName": "mhttpr",
		"singularDisplayName": "Mesh HTTP Route", "pluralDisplayName": "Mesh HTTP Routes", "includeInFederation": true,
	}
	for field, value := range want {
		if route[field] != value {
			t.Errorf("%s: %v, want %v", field, route[field], value)
		}
	}
	if policy, _ := route["policy"].(map[string]any); policy["isTargetRef"] != true || policy["hasToTargetRef"] != true || policy["hasFromTargetRef"] != false {
		t.Errorf("%v", route["policy"])
	}
	if mesh := find("/_resources", "resources", "Mesh"); mesh["readOnly"] != true || mesh["scope"] != "Global" || mesh["policy"] != nil {
		t.Errorf("%v", mesh)
	}
	if hidden := find("/_resources", "resources", "Config"); hidden != nil {
		t.Errorf("%v", hidden)
	}
	if p := find("/policies", "policies", "MeshTimeout"); p["isTargetRefBased"] != true || p["isOutbound"] != true || p["pluralDisplayName"] != "Mesh Timeouts" {
		t.Errorf("%v", p)
	}
	if find("/policies", "policies", "Mesh") != nil {
		t.Error("Mesh is listed as a policy")
	}
}

func TestOverviews(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", "/meshes/default/dataplanes/dp", proxy("default", "dp", ""))
	p.want(201, "PUT", "/zones/west", `{"type":"Zone","name":"west","enabled":true}`)
	dp := p.want(200, "GET", "/meshes/default/dataplanes/dp/_overview", "")
	body := dp.json(t)
	if body["type"] != "DataplaneOverview" || body["kri"] != "kri_dp_default_east__dp_" || body["dataplane"].(map[string]any)["networking"] == nil || body["dataplaneInsight"] != nil || body["networking"] != nil {
		t.Errorf("%s", dp.text)
	}
	if alias := p.want(200, "GET", "/meshes/default/dataplanes+insights/dp", ""); alias.text != dp.text {
		t.Errorf("%s", alias.text)
	}
	now := start
	_, err := p.db.Write(func(tx *db.Tx) error {
		row, _ := api.Dataplanes.Named(tx, "default", "dp")
		insight := api.DataplaneInsights.New(api.Meta{ID: row.ID, Core: "dp"}, api.DataplaneInsight{
			Subscriptions: []api.DataplaneSubscription{{ID: "1", ConnectTime: &now}},
		})
		api.DataplaneInsights.PutObject(tx, insight)
		zone := api.ZoneInsights.New(api.Meta{ID: api.ID{Name: "west"}, Core: "west"}, api.ZoneInsight{
			Subscriptions: []api.ZoneSubscription{{ID: "1", ConnectTime: &now}},
		})
		api.ZoneInsights.PutObject(tx, zone)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/meshes/default/dataplanes/_overview", "/dataplanes/_overview", "/meshes/default/dataplanes+insights", "/dataplanes+insights"} {
		item := p.want(200, "GET", path, "").json(t)["items"].([]any)[0].(map[string]any)
		if item["type"] != "DataplaneOverview" || item["dataplaneInsight"] == nil {
			t.Errorf("%s: %v", path, item)
		}
	}
	for _, path := range []string{"/zones/west/_overview", "/zones+insights/west"} {
		zone := p.want(200, "GET", path, "").json(t)
		if zone["type"] != "ZoneOverview" || zone["zone"].(map[string]any)["enabled"] != true || zone["zoneInsight"].(map[string]any)["subscriptions"] == nil {
			t.Errorf("%s: %v", path, zone)
		}
	}
	p.want(200, "GET", "/zones/_overview", "")
	p.want(404, "GET", "/zones/nope/_overview", "")
	online := p.want(400, "DELETE", "/zones/west", "")
	if f := online.faults(t); len(f) != 1 || f[0] != "zone: unable to delete Zone, Zone CP is still connected, please shut it down first" {
		t.Errorf("%s", online.text)
	}
}

func TestDeletingAZoneDeletesWhatItSent(t *testing.T) {
	p := newPlane(t, atGlobal)
	p.mesh("default")
	p.want(201, "PUT", "/zones/east", `{"type":"Zone","name":"east"}`)
	p.want(201, "PUT", "/zones/west", `{"type":"Zone","name":"west"}`)
	for _, zone := range []string{"east", "west"} {
		record := dataplaneRecord("dp")
		record.Zone, record.Source = zone, zone
		p.apply(record)
	}
	p.want(200, "DELETE", "/zones/east", "")
	for row := range api.Dataplanes.All(p.db.Snapshot()) {
		if row.Source != "west" {
			t.Errorf("%s is left", row.ID)
		}
	}
	if n := p.want(200, "GET", "/dataplanes", "").json(t)["total"]; n != 1.0 {
		t.Errorf("%v dataplanes", n)
	}
}

func TestKubernetesFormat(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	doc := strings.Replace(timeout("default", "t"), `"spec"`, `"labels":{"kuma.io/effect":"shadow"},"spec"`, 1)
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", doc)
	path := "/meshes/default/meshtimeouts/t?format="
	got := p.want(200, "GET", path+"k8s", "")
	o := got.json(t)
	meta := o["metadata"].(map[string]any)
	if o["apiVersion"] != "kuma.io/v1alpha1" || o["kind"] != "MeshTimeout" || o["mesh"] != nil || o["spec"] == nil || meta["namespace"] != "kuma-system" || meta["name"] != "t" || meta["creationTimestamp"] != "2026-03-01T12:00:00Z" {
		t.Errorf("%s", got.text)
	}
	if labels := fmt.Sprint(meta["labels"]); labels != "map[kuma.io/effect:shadow kuma.io/mesh:default]" {
		t.Errorf("labels %s", labels)
	}
	if o := p.want(200, "GET", path+"kubernetes&namespace=ns", "").json(t); o["metadata"].(map[string]any)["namespace"] != "ns" {
		t.Errorf("%v", o)
	}
	if p.want(200, "GET", path+"universal", "").text != p.want(200, "GET", path, "").text {
		t.Error("universal is not the default")
	}
	if f := p.want(400, "GET", path+"yaml", "").faults(t); len(f) != 1 || f[0] != `"format" must be one of ["k8s", "kubernetes", "universal"]` {
		t.Errorf("%q", f)
	}
	p.want(201, "PUT", "/meshes/default/dataplanes/dp", proxy("default", "dp", ""))
	if o := p.want(200, "GET", "/meshes/default/dataplanes/dp?format=k8s", "").json(t); o["mesh"] != "default" {
		t.Errorf("%v", o)
	}
	if o := p.want(200, "GET", "/meshes/default?format=k8s", "").json(t); o["metadata"].(map[string]any)["namespace"] != nil {
		t.Errorf("%v", o)
	}
	secret := p.want(200, "GET", "/meshes/default/secrets/dataplane-token-signing-key-default-1?format=k8s", "").json(t)
	if secret["apiVersion"] != "v1" || secret["kind"] != "Secret" || secret["type"] != "system.kuma.io/secret" || secret["data"].(map[string]any)["value"] == "" {
		t.Errorf("%v", secret)
	}
}

func TestServicesShowTheirSNIsAndWarnOfBadOnes(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	put := func(name, port string) reply {
		return p.want(201, "PUT", "/meshes/default/meshservices/"+name, fmt.Sprintf(
			`{"type":"MeshService","mesh":"default","name":%q,"spec":{"selector":{"dataplaneLabels":{"matchLabels":{"app":"x"}}},"ports":[{"port":443,"targetPort":1},{"name":%q,"port":80,"targetPort":1}]}}`, name, port))
	}
	if r := put("web", "http"); r.text != "{}\n" {
		t.Errorf("%s", r.text)
	}
	got := p.want(200, "GET", "/meshes/default/meshservices/web", "").json(t)
	if snis := fmt.Sprint(got["snis"]); snis != "[map[port:80 sni:sni.msvc.default.east.web.http] map[port:443 sni:sni.msvc.default.east.web.443]]" {
		t.Errorf("%s", snis)
	}
	if w := put("api", "Bad_Name").json(t)["warnings"]; w == nil || !strings.Contains(fmt.Sprint(w), "port 80") {
		t.Errorf("no warning of a port that cannot be reached: %v", w)
	}
}

func TestComputedLabelsOfZoneProxies(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	doc := `{"type":"Dataplane","mesh":"default","name":"zi","networking":{"address":"127.0.0.1","listeners":[{"type":"ZoneIngress","name":"zi","address":"127.0.0.1","port":10001}]}}`
	p.want(201, "PUT", "/meshes/default/dataplanes/zi", doc)
	labels := p.want(200, "GET", "/meshes/default/dataplanes/zi", "").json(t)["labels"].(map[string]any)
	if labels[api.LabelIngress] != "enabled" || labels[api.LabelEgress] != nil {
		t.Errorf("%v", labels)
	}
}

func TestStatusAndExtraEndpoints(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) {
		o.Status = func(_ db.Reader, row api.Row) any {
			if row.Head().Kind == "MeshTimeout" {
				return map[string]string{"of": row.Head().Name}
			}
			return nil
		}
		o.Extra = []rest.Endpoint{
			{Pattern: "GET /open", Open: true, Handle: func(w http.ResponseWriter, r *http.Request) error {
				rest.WriteJSON(w, 200, rest.UserOf(r))
				return nil
			}},
			{Pattern: "GET /closed", Handle: func(http.ResponseWriter, *http.Request) error {
				return &rest.Problem{Status: 418, Detail: "no coffee"}
			}},
			{Pattern: "GET /admins/{x}", Grant: func(a auth.Access) auth.Grant { return a.AdminResources }, Handle: func(w http.ResponseWriter, r *http.Request) error {
				rest.WriteJSON(w, 200, r.PathValue("x"))
				return nil
			}},
			{Pattern: "GET /everybody", Grant: func(a auth.Access) auth.Grant { return a.ViewStats }, Handle: func(w http.ResponseWriter, r *http.Request) error {
				rest.WriteJSON(w, 200, "all who may read")
				return nil
			}},
		}
	})
	p.mesh("default")
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	if got := p.want(200, "GET", "/meshes/default/meshtimeouts/t", "").json(t); fmt.Sprint(got["status"]) != "map[of:t]" {
		t.Errorf("%v", got)
	}
	if who := p.want(200, "GET", "/open", "", anonymous).json(t)["name"]; who != auth.AnonymousName {
		t.Errorf("%v", who)
	}
	p.want(401, "GET", "/closed", "", anonymous)
	if e := p.want(418, "GET", "/closed", "").json(t); e["detail"] != "no coffee" || e["title"] == "" {
		t.Errorf("%v", e)
	}
	p.want(200, "GET", "/everybody", "")
	p.want(401, "GET", "/everybody", "", anonymous)
	p.want(401, "GET", "/admins/a", "", anonymous)
	if r := p.want(200, "GET", "/admins/a", ""); r.text != "\"a\"\n" {
		t.Errorf("%s", r.text)
	}
}

func TestBasePath(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) { o.BasePath = "/api/" })
	p.want(201, "PUT", "/api/meshes/a", `{"type":"Mesh","name":"a"}`)
	p.want(201, "PUT", "/api/meshes/b", `{"type":"Mesh","name":"b"}`)
	p.want(404, "GET", "/meshes", "")
	p.want(404, "GET", "/apimeshes", "")
	p.want(200, "GET", "/api", "", anonymous)
	if next := p.want(200, "GET", "/api/meshes?size=1", "").json(t)["next"]; next != "http://cp.example:5681/api/meshes?offset=1&size=1" {
		t.Errorf("%v", next)
	}
	p.want(200, "POST", "/tokens/user", `{"name":"x","validFor":"1h"}`)
}

func TestWhatTheDatabaseCouldNotTakeCanBeReplacedAndDeleted(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	broken := store.Record{ID: api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "east", Name: "t"}, Spec: json.RawMessage(`{"to":7}`)}
	p.apply(broken)
	p.want(404, "GET", "/meshes/default/meshtimeouts/t", "")
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	p.want(200, "GET", "/meshes/default/meshtimeouts/t", "")
	p.want(200, "DELETE", "/meshes/default/meshtimeouts/t", "")
	p.apply(broken)
	p.want(200, "DELETE", "/meshes/default/meshtimeouts/t", "")
	p.want(404, "DELETE", "/meshes/default/meshtimeouts/t", "")
	// A good row whose replacement was not understood is not in the way either,
	// nor is either kind when the mesh goes.
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	p.apply(broken)
	p.want(200, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	p.apply(broken)
	other := broken
	other.Name = "u"
	p.apply(other)
	p.want(200, "DELETE", "/meshes/default", "")
	if left := p.feed.Conditions(); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestTheZoneLabelStays(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	record := store.Record{
		ID: api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "east", Name: "t"}, Labels: map[string]string{api.LabelZone: "old"},
		Spec: json.RawMessage(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}`),
	}
	p.apply(record)
	f := p.want(400, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t")).faults(t)
	if len(f) != 1 || f[0] != `labels["kuma.io/zone"]: is immutable, cannot be changed from "old" to "east"` {
		t.Errorf("%q", f)
	}
}

func FuzzBody(f *testing.F) {
	p := newPlane(f, atZone)
	p.mesh("default")
	for _, seed := range []string{
		timeout("default", "t"), proxy("default", "t", ""), `{"type":"Mesh","name":"t"}`, `{"type":"Secret","mesh":"default","name":"t","data":"!"}`,
		`{"type":"MeshTimeout","mesh":"default","name":"t","spec":{"to":{}}}`, `{"type":{},"mesh":[],"name":1,"labels":{"a":1},"spec":[]}`,
		`{"type":"MeshHTTPRoute","mesh":"default","name":"t","spec":{"to":[{"rules":[null]}]}}`, `null`, `{"spec":null}`, "\xff", `{"type":"Dataplane","networking":{"inbound":[{"port":1e99}]}}`,
	} {
		f.Add(seed)
	}
	paths := []string{
		"/meshes/default/meshtimeouts/t", "/meshes/default/dataplanes/t", "/meshes/default/meshhttproutes/t", "/meshes/default/secrets/t",
		"/meshes/default/meshidentities/t", "/meshes/default/meshtrafficpermissions/t", "/meshes/default/meshservices/t", "/hostnamegenerators/t",
	}
	f.Fuzz(func(t *testing.T, body string) {
		p := *p
		p.t = t
		for _, path := range paths {
			r := p.do("PUT", path, body, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
			if r.status >= 500 {
				t.Fatalf("PUT %s %q: %d %s", path, body, r.status, r.text)
			}
			if r.status < 300 {
				p.want(200, "GET", path, "")
				p.want(200, "GET", path+"?format=k8s", "")
			}
		}
	})
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newPlane(b, atZone)
			p.mesh("default")
			records := make([]store.Record, n)
			for i := range records {
				records[i] = dataplaneRecord(fmt.Sprintf("dp-%05d", i))
			}
			p.apply(records...)
			for b.Loop() {
				p.want(200, "GET", "/meshes/default/dataplanes", "")
			}
		})
	}
}

func TestAListRendersItsPageOnly(t *testing.T) {
	rendered := 0
	p := newPlane(t, atZone, func(o *rest.Options) {
		o.Status = func(db.Reader, api.Row) any { rendered++; return nil }
	})
	p.mesh("default")
	records := make([]store.Record, 300)
	for i := range records {
		records[i] = store.Record{
			ID:   api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "east", Name: fmt.Sprintf("t-%03d", i)},
			Spec: json.RawMessage(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}`),
		}
	}
	p.apply(records...)
	if total := p.want(200, "GET", "/meshes/default/meshtimeouts?size=10&offset=100", "").json(t)["total"]; total != 300.0 || rendered != 10 {
		t.Errorf("total %v, rendered %d, want 300 and 10", total, rendered)
	}
}

func TestManyWritersOfOneResource(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	statuses := make(chan int)
	for i := range 16 {
		go func() {
			doc := strings.Replace(timeout("default", "t"), "30m", fmt.Sprintf("%dm", i+1), 1)
			statuses <- p.do("PUT", "/meshes/default/meshtimeouts/t", doc).status
		}()
	}
	count := map[int]int{}
	for range 16 {
		count[<-statuses]++
	}
	if count[201] != 1 || count[200] < 1 || count[200]+count[201]+count[409] != 16 {
		t.Errorf("answers %v", count)
	}
	p.want(200, "GET", "/meshes/default/meshtimeouts/t", "")
}

func TestServerRefusesLargeHeaders(t *testing.T) {
	p := newPlane(t, atZone)
	s := httptest.NewUnstartedServer(nil)
	s.Config = rest.NewServer(p.http, slog.New(slog.DiscardHandler))
	s.Start()
	defer s.Close()
	get := func(header string) int {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Much", header)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if got := get("little"); got != 200 {
		t.Errorf("%d", got)
	}
	if got := get(strings.Repeat("x", 200<<10)); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", got)
	}
}

// TestWarningsOfWhatDoesNothing: fields that are only read for compatibility are taken
// and said to do nothing, in a PUT and in its trial.
func TestWarningsOfWhatDoesNothing(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for _, c := range []struct{ path, doc, want string }{
		{"meshratelimits", `{"type":"MeshRateLimit","mesh":"default","name":"a","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"local":{"tcp":{"connectionRate":{"num":1,"interval":"1s"}}}}}]}}`,
			"spec.to: limits nothing; use rules"},
		{"meshfaultinjections", `{"type":"MeshFaultInjection","mesh":"default","name":"a","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"http":[{"abort":{"httpStatus":503,"percentage":1}}]}}]}}`,
			"spec.to: injects nothing; use rules"},
		{"meshservices", `{"type":"MeshService","mesh":"default","name":"a","spec":{"ports":[{"port":80,"targetPort":80}]}}`, "spec.selector: selects no Dataplane"},
		{"meshhttproutes", `{"type":"MeshHTTPRoute","mesh":"default","name":"a","spec":{"to":[{"targetRef":{"kind":"MeshService","labels":{"a":"b"}},"rules":[{"matches":[{"method":"GET"}],"default":{"filters":[{"type":"RequestMirror","requestMirror":{"backendRef":{"kind":"MeshService","labels":{"a":"c"},"port":80,"weight":5}}}]}}]}]}}`,
			"spec.to[0].rules[0].default.filters[0].requestMirror.backendRef.weight: does nothing; percentage"},
		{"meshtimeouts", `{"type":"MeshTimeout","mesh":"default","name":"a","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1s"}}]}}`, ""},
	} {
		path := "/meshes/default/" + c.path + "/a"
		for _, one := range []struct {
			at     string
			status int
		}{{path + "?dryRun=true", 200}, {path, 201}} {
			got, _ := p.want(one.status, "PUT", one.at, c.doc).json(t)["warnings"].([]any)
			if c.want == "" && len(got) == 0 || len(got) == 1 && c.want != "" && strings.HasPrefix(got[0].(string), c.want) {
				continue
			}
			t.Errorf("%s: %v, want %q", one.at, got, c.want)
		}
	}
}
