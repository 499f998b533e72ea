package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

func TestPagesOfOtherOrigins(t *testing.T) {
	origins, err := rest.ParseOrigins([]string{"gui.example", "https://ops.example:8443", `https://[a-z]+\.team\.example`})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rest.ParseOrigins([]string{"(["}); err == nil {
		t.Error("no regular expression was taken")
	}
	p := newPlane(t, atZone, func(o *rest.Options) { o.Origins = origins })
	for origin, allowed := range map[string]bool{
		"https://gui.example": true, "http://GUI.example": true, "https://guixexample": false, "https://gui.example.evil": false,
		"https://ops.example:8443": true, "http://ops.example:8443": false, "https://a.team.example": true, "https://a.b.team.example": false, "null": false,
	} {
		from := func(r *http.Request) { r.Header.Set("Origin", origin) }
		r := p.want(200, "GET", "/meshes", "", from)
		if got := r.header.Get("Access-Control-Allow-Origin"); (got == origin) != allowed || r.header.Get("Vary") != "Origin" {
			t.Errorf("%s: %v", origin, r.header)
		}
		ask := func(r *http.Request) { r.Header.Set("Access-Control-Request-Method", "PUT") }
		if asked := p.do("OPTIONS", "/meshes/a", "", anonymous, from, ask); (asked.status == 204) != allowed ||
			allowed && !strings.Contains(asked.header.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%s: asked before: %d %v", origin, asked.status, asked.header)
		}
	}
	none := newPlane(t, atZone)
	if r := none.want(200, "GET", "/meshes", "", func(r *http.Request) { r.Header.Set("Origin", "https://gui.example") }); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", r.header)
	}
}

func TestMediaTypesComeFirst(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	yaml := func(r *http.Request) { r.Header.Set("Content-Type", "application/yaml") }
	text := func(r *http.Request) { r.Header.Set("Accept", "text/plain") }
	p.want(415, "PUT", "/meshes/none/meshtimeouts/a", "x", yaml, text)
	p.want(415, "PUT", "/meshes/default/dataplane-insights/a", "x", yaml)
	p.want(406, "PUT", "/meshes/none/meshtimeouts/a", "{}", text)
	p.want(415, "POST", "/tokens/user", "x", yaml)
	for _, path := range []string{"/meshes/none/meshtimeouts", "/zones/_overview", "/_resources", "/policies", "/global-insight", "/"} {
		if r := p.want(406, "GET", path, "", text); r.text != "406: Not Acceptable" {
			t.Errorf("%s", r.text)
		}
	}
}

func TestFaultsListWhatWouldBeRight(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	body := `{"type":"MeshTimeout","mesh":"default","name":"t","spec":{"too":[],"to":[{"targetRef":{"kind":"MeshServise"},"default":{"idleTimeout":"1m"}}]}}`
	var answer struct {
		Invalid []api.Fault `json:"invalid_parameters"`
	}
	if err := json.Unmarshal([]byte(p.want(400, "PUT", timeouts+"/t", body).text), &answer); err != nil {
		t.Fatal(err)
	}
	rules := map[string]api.Fault{}
	for _, f := range answer.Invalid {
		rules[f.Field] = f
	}
	if f := rules["spec.too"]; f.Rule != api.RuleUnknown || !strings.HasSuffix(f.Reason, `did you mean "to"?`) || len(f.Choices) == 0 {
		t.Errorf("%+v", f)
	}
	if f := rules["spec.to[0].targetRef.kind"]; len(answer.Invalid) > 1 && (f.Rule != api.RuleEnum || !strings.HasSuffix(f.Reason, `did you mean "MeshService"?`)) {
		t.Errorf("%+v", answer.Invalid)
	}
}

func TestKRIsOfWhatIsLocal(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", timeouts+"/t", timeout("default", "t"))
	id := api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "west", Name: "far"}
	p.apply(store.Record{ID: id, Source: api.Global, Spec: json.RawMessage(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}`)})
	for kri, status := range map[string]int{
		"kri_m____default_":            200,
		"kri_m__east__default_":        200,
		"kri_mt_default_east__t_":      200,
		"kri_mt_default___t_":          200,
		"kri_mt_default_west__t_":      404,
		"kri_mt_default_west__far_":    200,
		"kri_mt_default___far_":        404,
		"kri_mt_default_east__t_s_e_c": 200,
	} {
		p.want(status, "GET", "/_kri/"+kri, "")
	}
	if e := p.want(400, "GET", "/_kri/kri_xx_default_east__t_", "").json(t); e["detail"] != `bad request: unknown short name of resource type: "xx"` {
		t.Errorf("%v", e)
	}
	p.want(400, "GET", "/_kri/kri_mt_default_east__t_?format=yaml", "")
}

func TestCountsOverEverything(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", timeouts+"/t", timeout("default", "t"))
	for _, name := range []string{"on", "off", "half"} {
		doc := proxy("default", name, "")
		if name == "half" {
			doc = strings.Replace(doc, `{"port":80}`, `{"port":80},{"port":81,"state":"NotReady"}`, 1)
		}
		p.want(201, "PUT", "/meshes/default/dataplanes/"+name, doc)
	}
	p.want(201, "PUT", "/meshes/default/dataplanes/gw", `{"type":"Dataplane","mesh":"default","name":"gw","networking":{"address":"127.0.0.1","gateway":{"type":"DELEGATED","tags":{"kuma.io/service":"edge"}}}}`)
	p.want(201, "PUT", "/meshes/default/meshservices/web", `{"type":"MeshService","mesh":"default","name":"web","spec":{"selector":{"dataplaneLabels":{"matchLabels":{"app":"x"}}},"ports":[{"port":80,"targetPort":80}]}}`)
	p.want(201, "PUT", "/zones/east", `{"type":"Zone","name":"east"}`)
	if _, err := p.db.Write(func(tx *db.Tx) error {
		now := start
		for _, name := range []string{"on", "half", "gw"} {
			api.DataplaneInsights.PutObject(tx, api.DataplaneInsights.New(api.Meta{ID: api.ID{Mesh: "default", Zone: "east", Name: name}, Core: name},
				api.DataplaneInsight{Subscriptions: []api.DataplaneSubscription{{ID: "1", ConnectTime: &now}}}))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	body := p.want(200, "GET", "/global-insight", "").json(t)
	for path, want := range map[string]string{
		"createdAt":                          "2026-03-01T12:00:00Z",
		"dataplanes.standard":                "map[offline:1 online:1 partiallyDegraded:1 total:3]",
		"dataplanes.gatewayDelegated.online": "1",
		"services.gatewayDelegated.total":    "1",
		"services.internal":                  "map[offline:1 online:0 partiallyDegraded:0 total:1]",
		"services.external.total":            "0",
		"zones.controlPlanes":                "map[online:1 total:1]",
		"zones.zoneEgresses":                 "map[online:0 total:0]",
		"policies.total":                     "1",
		"meshes.total":                       "1",
		"resources.Dataplane.total":          "4",
		"resources.Config":                   "<nil>",
	} {
		if got := fmt.Sprint(at(body, path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if all := p.want(200, "GET", "/global-insights", "").json(t); all["type"] != "GlobalInsights" || at(all, "resources.Dataplane.total") != 4.0 || all["creationTime"] == nil {
		t.Errorf("%v", all)
	}
}

func TestServiceInsightsOfAnOlderRelease(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for _, path := range []string{"/service-insights", "/meshes/default/service-insights?type=internal,external&size=10"} {
		if r := p.want(200, "GET", path, "").json(t); r["total"] != 0.0 || r["next"] != nil || len(r["items"].([]any)) != 0 {
			t.Errorf("%v", r)
		}
	}
	if e := p.want(400, "GET", "/service-insights?type=inner", "").json(t); e["detail"] != "unsupported service type" {
		t.Errorf("%v", e)
	}
	p.want(400, "GET", "/service-insights?size=0", "")
	p.want(404, "GET", "/meshes/none/service-insights", "")
	p.want(404, "GET", "/meshes/default/service-insights/all-services-default", "")
	p.want(405, "PUT", "/meshes/default/service-insights/all-services-default", "{}")
}

func TestAddressesBehindAProxy(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) { o.RootURL = "https://mesh.example/api/" })
	p.mesh("a")
	p.mesh("b")
	if next := p.want(200, "GET", "/meshes?size=1", "").json(t)["next"]; next != "https://mesh.example/api/meshes?offset=1&size=1" {
		t.Errorf("%v", next)
	}
	federated := newPlane(t, atFederated)
	if e := federated.want(404, "POST", "/tokens/zone", "{}").json(t); !strings.Contains(fmt.Sprint(e["detail"]), "global control plane") {
		t.Errorf("%v", e)
	}
}
