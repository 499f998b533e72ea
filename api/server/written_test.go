package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
)

// What is written in an older form comes back as it was written; what only Envoy
// can judge is judged; what is no more is refused with what replaces it.
func TestWritten(t *testing.T) {
	r := run(t, t.TempDir(), api.Site{Env: "universal"}, func(c *server.Config) { c.Store.Type = "memory"; c.API.LocalhostIsAdmin = true })
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	const spec = `{"targetRef":{"kind":"MeshSubset","tags":{"team":"shop"}},"from":[{"targetRef":{"kind":"MeshService","name":"web"},"default":{"action":"Allow"}}]}`
	const permission = "/meshes/default/meshtrafficpermissions/older"
	if code, body := call("PUT", permission, `{"type":"MeshTrafficPermission","mesh":"default","name":"older","spec":`+spec+`}`); code != 201 {
		t.Fatalf("%d %s", code, body)
	}
	var got struct{ Spec json.RawMessage }
	if _, body := call("GET", permission, ""); json.Unmarshal([]byte(body), &got) != nil {
		t.Fatal(body)
	}
	if diff := cmp.Diff(tree(t, spec), tree(t, string(got.Spec))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	code, body := call("PUT", "/meshes/default/meshproxypatches/a", `{"type":"MeshProxyPatch","mesh":"default","name":"a","spec":{"default":{"appendModifications":[{"cluster":{"operation":"Add","value":"nmae: a"}}]}}}`)
	if code != 400 || !strings.Contains(body, "spec.default.appendModifications[0].cluster.value") {
		t.Errorf("%d %s", code, body)
	}
	code, body = call("PUT", "/meshes/default/meshtimeouts/a", `{"type":"Timeout","mesh":"default","name":"a","spec":{}}`)
	if code != 400 || !strings.Contains(body, "MeshTimeout") {
		t.Errorf("%d %s", code, body)
	}
}

func tree(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
