package rest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

// at finds a member of a JSON answer by its path: items.0.name.
func at(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch t := v.(type) {
		case map[string]any:
			v = t[key]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(t) {
				return nil
			}
			v = t[i]
		default:
			return nil
		}
	}
	return v
}

// The calls of the ecosystem's command line, as it sends them, in the order in
// which somebody would use it. Inspection of a proxy is served elsewhere.
func TestCallsOfTheExistingCommandLine(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) {
		o.Extra = []rest.Endpoint{{
			Pattern: "GET /meshes/{mesh}/meshtimeouts/{name}/_resources/dataplanes",
			Handle: func(w http.ResponseWriter, r *http.Request) error {
				rest.WriteJSON(w, 200, map[string]any{"total": 0, "items": []string{}})
				return nil
			},
		}}
	})
	key, err := auth.SigningKeyRecord(auth.ZoneToken, "", 1, atZone, start)
	if err != nil {
		t.Fatal(err)
	}
	p.apply(key, store.Record{ID: api.ID{Kind: "Zone", Name: "east"}, Spec: json.RawMessage(`{"enabled":true}`)})
	s := httptest.NewUnstartedServer(nil)
	s.Config = rest.NewServer(p.http, slog.New(slog.DiscardHandler))
	s.Start()
	defer s.Close()

	const zero = `"creationTime":"0001-01-01T00:00:00Z","modificationTime":"0001-01-01T00:00:00Z","kri":""`
	mesh := `{"type":"Mesh","name":"demo",` + zero + `}`
	policy := `{"type":"MeshTimeout","mesh":"demo","name":"t1",` + zero + `,"spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"30m"}}]}}`
	dataplane := `{"type":"Dataplane","mesh":"demo","name":"dp","labels":{"app":"web"},` + zero + `,"networking":{"address":"127.0.0.1","inbound":[{"port":80}]}}`
	secret := `{"type":"Secret","mesh":"demo","name":"s1",` + zero + `,"data":"c2VjcmV0"}`
	global := `{"type":"GlobalSecret","name":"g1",` + zero + `,"data":"c2VjcmV0"}`
	for _, c := range []struct {
		command, method, path, body string
		status                      int
		want                        string // path=value, …; or the beginning of a text
	}{
		{"version", "GET", "/", "", 200, "product=Kuma,gui="},
		{"config control-planes add", "GET", "/", "", 200, "product=Kuma,version=" + rest.KumaVersion},
		{"apply (new mesh)", "GET", "/meshes/demo", "", 404, "title=Could not retrieve a resource,status=404"},
		{"apply", "PUT", "/meshes/demo", mesh, 201, ""},
		{"apply (no mesh)", "PUT", "/meshes/dem/meshtimeouts/t1", strings.Replace(policy, `"demo"`, `"dem"`, 1), 404,
			`title=Failed to retrieve Mesh,detail=Not found,invalid_parameters.0.reason=there is no mesh "dem"; did you mean "demo"?`},
		{"apply", "GET", "/meshes/demo/meshtimeouts/t1", "", 404, "detail=Not found"},
		{"apply", "PUT", "/meshes/demo/meshtimeouts/t1", policy, 201, ""},
		{"apply (again)", "GET", "/meshes/demo/meshtimeouts/t1", "", 200, "name=t1,spec.to.0.default.idleTimeout=30m"},
		{"apply (again)", "PUT", "/meshes/demo/meshtimeouts/t1", policy, 200, ""},
		{"apply (wrong)", "PUT", "/meshes/demo/meshtimeouts/t1", strings.Replace(policy, `"Mesh"`, `"Meshs"`, 1), 400,
			"title=Could not process a resource,invalid_parameters.0.field=spec.to.0.targetRef.kind,causes.0.field=spec.to.0.targetRef.kind"},
		{"apply", "PUT", "/meshes/demo/dataplanes/dp", dataplane, 201, ""},
		{"apply", "PUT", "/meshes/demo/secrets/s1", secret, 201, ""},
		{"apply", "PUT", "/globalsecrets/g1", global, 201, ""},
		{"apply (read-only)", "PUT", "/meshes/demo/dataplane-insights/dp", `{"type":"DataplaneInsight","mesh":"demo","name":"dp"}`, 405, "title=Method not allowed"},
		{"get meshes", "GET", "/meshes", "", 200, "total=1,items.0.name=demo,next=<nil>"},
		{"get mesh demo", "GET", "/meshes/demo", "", 200, "type=Mesh,kri=kri_m____demo_"},
		{"get meshtimeouts --size 1", "GET", "/meshes/demo/meshtimeouts?size=1", "", 200, "total=3,next=" + s.URL + "/meshes/demo/meshtimeouts?offset=1&size=1"},
		{"get meshtimeouts --size 1 --offset 2", "GET", "/meshes/demo/meshtimeouts?offset=2&size=1", "", 200, "items.0.name=t1,next=<nil>"},
		{"get dataplanes", "GET", "/meshes/demo/dataplanes", "", 200, "items.0.labels.app=web,items.0.networking.address=127.0.0.1"},
		{"get global-secrets", "GET", "/globalsecrets", "", 200, "total=3"},
		{"get global-secret g1", "GET", "/globalsecrets/g1", "", 200, "data=c2VjcmV0"},
		{"get global-secret g1 (other path)", "GET", "/global-secrets/g1", "", 200, "data=c2VjcmV0"},
		{"get meshtimeout none", "GET", "/meshes/demo/meshtimeouts/none", "", 404, "detail=Not found,details=Not found,type=/std-errors"},
		{"export", "GET", "/_resources", "", 200, ""},
		{"export", "GET", "/meshes/demo/secrets", "", 200, "total=2"},
		{"export --format kubernetes", "GET", "/meshes/demo/meshtimeouts/t1?format=k8s", "", 200, "kind=MeshTimeout,metadata.namespace=kuma-system"},
		{"inspect dataplanes", "GET", "/meshes/demo/dataplanes/_overview", "", 200, "items.0.type=DataplaneOverview,items.0.dataplane.networking.address=127.0.0.1"},
		{"inspect dataplanes --tag app=web --gateway=false", "GET", "/meshes/demo/dataplanes/_overview?gateway=false&tag=app%3Aweb", "", 200, "total=1"},
		{"inspect dataplanes --tag app=no --ingress", "GET", "/meshes/demo/dataplanes/_overview?ingress=true&tag=app%3Ano", "", 200, "total=0"},
		{"inspect zones", "GET", "/zones/_overview", "", 200, "items.0.zone.enabled=true,items.0.zoneInsight=<nil>"},
		{"inspect zone, older", "GET", "/zones+insights/east", "", 200, "zoneInsight=map[]"},
		{"inspect meshes", "GET", "/mesh-insights", "", 200, "next=<nil>"},
		{"inspect meshtimeout t1 --new-api", "GET", "/meshes/demo/meshtimeouts/t1/-resources/dataplanes", "", 200, "total=0"},
		{"inspect meshtimeout t1 (as it is meant)", "GET", "/meshes/demo/meshtimeouts/t1/_resources/dataplanes", "", 200, "total=0"},
		{"generate dataplane-token", "POST", "/tokens/dataplane", `{"name":"dp","mesh":"demo","tags":{},"type":"","workload":"","validFor":"1h0m0s"}`, 200, "eyJ"},
		{"generate dataplane-token", "POST", "/tokens/dataplane", `{"name":"","mesh":"none","tags":null,"type":"","validFor":"1h0m0s"}`, 404, "title=Signing Key not found"},
		{"generate zone-token", "POST", "/tokens/zone", `{"zone":"east","scope":null,"validFor":"1h0m0s"}`, 200, "eyJ"},
		{"generate user-token", "POST", "/tokens/user", `{"name":"jane","groups":["a"],"validFor":"1h0m0s"}`, 200, "eyJ"},
		{"delete meshtimeout t1", "DELETE", "/meshes/demo/meshtimeouts/t1", "", 200, ""},
		{"delete meshtimeout t1", "DELETE", "/meshes/demo/meshtimeouts/t1", "", 404, "title=Could not delete a resource"},
		{"delete mesh demo", "DELETE", "/meshes/demo", "", 400, "invalid_parameters.0.field=mesh"},
		{"what never was", "GET", "/versions", "", 404, "404: Page Not Found"},
	} {
		q, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("User-Agent", "kumactl/3.0.0 (linux; amd64)")
		q.Header.Set("Authorization", "Bearer "+p.token)
		if !strings.HasPrefix(c.command, "generate") && !strings.HasPrefix(c.command, "inspect d") {
			q.Header.Set("Accept", "application/json")
		}
		if c.body != "" {
			q.Header.Set("Content-Type", "application/json")
		}
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s: %s %s: %d, want %d: %s %v", c.command, c.method, c.path, res.StatusCode, c.status, text, err)
			continue
		}
		if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
			if !strings.HasPrefix(string(text), c.want) || c.want == "" {
				t.Errorf("%s: %s", c.command, text)
			}
			continue
		}
		var body any
		if err := json.Unmarshal(text, &body); err != nil {
			t.Errorf("%s: %v", c.command, err)
		}
		if c.want == "" && c.method != "GET" && string(text) != "{}\n" {
			t.Errorf("%s: %s", c.command, text)
		}
		for one := range strings.SplitSeq(c.want, ",") {
			path, want, _ := strings.Cut(one, "=")
			// Fields of faults have dots and brackets of their own.
			got := strings.NewReplacer("[", ".", "]", "").Replace(fmt.Sprint(at(body, path)))
			if path != "" && got != want && fmt.Sprint(at(body, path)) != want {
				t.Errorf("%s: %s is %q, want %q", c.command, path, got, want)
			}
		}
	}
}
