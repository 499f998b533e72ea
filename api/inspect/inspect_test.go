package inspect_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/inspect"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/rest"
)

var update = flag.Bool("update", false, "rewrite the expected answers in testdata")

// TestCases runs testdata/*.txtar: rows, and the answers to calls.
//
//	site                                the control plane that is asked: a zone (east, if there is no such file) or global
//	east.yaml, global.yaml, west.yaml   documents, by where they were written
//	/meshes/…                           a call, and its answer: the status, if it is not 200, and the body
//
// {kri_…} in a call stands for the name that the resource has at that control plane.
// A resource that an answer names is shown as its KRI alone.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runCase(t, file) })
	}
}

func runCase(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "east")
	for i, f := range archive.Files {
		switch {
		case f.Name == "site":
			w = newWorld(t, strings.TrimSpace(string(f.Data)))
		case strings.HasSuffix(f.Name, ".yaml"):
			w.documents(strings.TrimSuffix(f.Name, ".yaml"), string(f.Data))
		default:
			status, body := w.get(w.name(f.Name))
			text := ""
			if status != http.StatusOK {
				text = fmt.Sprintf("# %d\n", status)
			} else if err := w.described(f.Name, body); err != nil {
				t.Errorf("GET %s: %v", f.Name, err)
			}
			text += asYAML(t, body)
			if !*update {
				if diff := cmp.Diff(string(f.Data), text); diff != "" {
					t.Errorf("GET %s (-want +got):\n%s", f.Name, diff)
				}
			}
			archive.Files[i].Data = []byte(text)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// described holds an answer against the schema of its endpoint.
func (w *world) described(call, body string) error {
	mux, schemas := http.NewServeMux(), map[string]openapi.Schema{}
	for _, e := range inspect.Endpoints(w.db, siteOf(w.here)) {
		mux.HandleFunc(e.Pattern, func(http.ResponseWriter, *http.Request) {})
		schemas[e.Pattern] = e.Doc.Answer
	}
	_, pattern := mux.Handler(httptest.NewRequest("GET", call, nil))
	text, err := json.Marshal(schemas[pattern])
	if err != nil {
		return err
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("answer.json", schema); err != nil {
		return err
	}
	compiled, err := c.Compile("answer.json")
	if err != nil {
		return err
	}
	got, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	return compiled.Validate(got)
}

var placeholder = regexp.MustCompile(`\{(kri_.*)\}`)

func (w *world) name(call string) string {
	return placeholder.ReplaceAllStringFunc(call, func(text string) string {
		id, _, err := api.ParseKRI(strings.Trim(text, "{}"))
		if err != nil {
			w.t.Fatal(err)
		}
		kind, _ := api.ByName(id.Kind)
		row, ok := kind.Row(w.db.Snapshot(), id)
		if !ok {
			w.t.Fatalf("there is no %s", id)
		}
		return row.Head().Core
	})
}

func asYAML(t *testing.T, body string) string {
	var tree any
	if err := json.Unmarshal([]byte(body), &tree); err != nil {
		return body + "\n"
	}
	text, err := yaml.Marshal(shorten(tree))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shorten shows resources by their KRI, and of errors what is not said twice.
func shorten(tree any) any {
	switch v := tree.(type) {
	case map[string]any:
		if _, labelled := v["labels"]; labelled && v["type"] != nil && v["kri"] != nil {
			return v["kri"]
		}
		for _, name := range []string{"details", "causes", "status"} {
			if v["title"] != nil {
				delete(v, name)
			}
		}
		for name, one := range v {
			v[name] = shorten(one)
		}
	case []any:
		for i, one := range v {
			v[i] = shorten(one)
		}
	}
	return tree
}

// fataler is a test, or one of the many of rapid.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is a control plane: its database and its API.
type world struct {
	t        fataler
	here     string
	db       *db.DB
	http     http.Handler
	sequence int
}

func newWorld(t fataler, here string) *world {
	w := &world{t: t, here: here, db: db.New(api.Schema)}
	w.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{Site: siteOf(here)}) })
	w.documents("global", "type: Mesh\nname: default")
	w.http = rest.New(rest.Options{
		DB: w.db, Site: siteOf(here), Access: auth.DefaultAccess(), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Extra: inspect.Endpoints(w.db, siteOf(here)),
	})
	return w
}

func siteOf(name string) api.Site {
	if name == "global" {
		return api.Site{Env: "universal"}
	}
	return api.Site{Zone: name, Federated: true, Env: "universal"}
}

func (w *world) write(f func(*db.Tx)) {
	w.t.Helper()
	if _, err := w.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// documents enters what was written at global or in a zone.
func (w *world) documents(at, text string) {
	w.t.Helper()
	for one := range strings.SplitSeq(text, "\n---\n") {
		body, err := yaml.YAMLToJSON([]byte(one))
		if err != nil {
			w.t.Fatal(err)
		}
		w.put(at, body)
	}
}

func (w *world) put(at string, body []byte) {
	w.t.Helper()
	var r api.Report
	doc, kind := api.ParseDocument(body, &r)
	if err := r.Err(); err != nil {
		w.t.Fatalf("%v in %s", err, body)
	}
	m := api.Meta{ID: api.LocalID(kind, doc.Mesh, "", doc.Name, siteOf(at)), Created: time.Unix(int64(w.sequence), 0).UTC()}
	w.sequence++
	m.Labels = api.ComputeLabels(kind, m.ID, doc.Labels, siteOf(at))
	switch {
	case at == w.here:
	case w.here == "global":
		m.Source = at
	default:
		m.Source = api.Global
		m.Labels[api.LabelOrigin] = api.OriginGlobal
	}
	m.Core = api.CoreName(kind, &m)
	row := kind.Decode(m, doc.Spec, true, &r)
	if err := r.Err(); err != nil {
		w.t.Fatalf("%v in %s", err, body)
	}
	w.write(func(tx *db.Tx) { kind.Put(tx, row) })
}

func (w *world) get(path string, change ...func(*http.Request) *http.Request) (int, string) {
	w.t.Helper()
	r := rest.Inside(httptest.NewRequest("GET", "http://cp.example:5681"+path, nil))
	for _, f := range change {
		r = f(r)
	}
	rec := httptest.NewRecorder()
	w.http.ServeHTTP(rec, r)
	body, err := io.ReadAll(rec.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return rec.Code, string(body)
}

// read decodes an answer, which must be good.
func read[T any](w *world, path string) T {
	w.t.Helper()
	status, body := w.get(path)
	var out T
	if err := json.Unmarshal([]byte(body), &out); status != http.StatusOK || err != nil {
		w.t.Fatalf("GET %s: %d %s (%v)", path, status, body, err)
	}
	return out
}

const oneProxy = `
type: Dataplane
mesh: default
name: web
labels: {app: web, kuma.io/workload: web}
networking:
  address: 10.0.0.1
  inbound: [{port: 8080, protocol: http}]
---
type: MeshMetric
mesh: default
name: all
spec: {default: {sidecar: {includeUnused: true}}}`

func TestBodies(t *testing.T) {
	w := newWorld(t, "east")
	w.documents("east", oneProxy)
	_, got := w.get("/meshes/default/dataplanes/web/_rules")
	const want = `{
 "resource": {
  "type": "Dataplane",
  "mesh": "default",
  "name": "web",
  "labels": {
   "app": "web",
   "kuma.io/display-name": "web",
   "kuma.io/env": "universal",
   "kuma.io/mesh": "default",
   "kuma.io/origin": "zone",
   "kuma.io/workload": "web",
   "kuma.io/zone": "east"
  },
  "kri": "kri_dp_default_east__web_"
 },
 "httpMatches": [],
 "rules": [
  {
   "type": "MeshMetric",
   "toResourceRules": [],
   "inboundRules": [],
   "proxyRule": {
    "conf": {
     "sidecar": {
      "includeUnused": true
     }
    },
    "origin": [
     {
      "type": "MeshMetric",
      "mesh": "default",
      "name": "all",
      "labels": {
       "kuma.io/display-name": "all",
       "kuma.io/env": "universal",
       "kuma.io/mesh": "default",
       "kuma.io/origin": "zone",
       "kuma.io/zone": "east"
      },
      "kri": "kri_mm_default_east__all_"
     }
    ]
   },
   "warnings": []
  }
 ]
}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, "east")
	w.documents("east", oneProxy)
	for i := range 5 {
		w.documents("east", fmt.Sprintf("type: Dataplane\nmesh: default\nname: dp-%d\nnetworking: {address: 10.0.1.%d, inbound: [{port: 80}]}", i, i))
	}
	type page struct {
		Total int
		Items []struct{ Name string }
		Next  *string
	}
	path := "/meshes/default/meshmetrics/all/_resources/dataplanes"
	var names []string
	next := path + "?name=dp-&size=2"
	for next != "" {
		p := read[page](w, next)
		if p.Total != 5 {
			t.Fatalf("total %d", p.Total)
		}
		for _, one := range p.Items {
			names = append(names, one.Name)
		}
		if next = ""; p.Next != nil {
			next = strings.TrimPrefix(*p.Next, "http://cp.example:5681")
		}
	}
	if want := []string{"dp-0", "dp-1", "dp-2", "dp-3", "dp-4"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
	if _, body := w.get(path); strings.Contains(body, "next") || !strings.Contains(body, `"total": 6`) {
		t.Errorf("the last page: %s", body)
	}
	_, a := w.get(path)
	if _, b := w.get(strings.Replace(path, "_resources", "-resources", 1)); a != b {
		t.Errorf("the alias answers %s", b)
	}
	if p := read[page](w, path+"?offset=9"); p.Items == nil || len(p.Items) != 0 || p.Next != nil {
		t.Errorf("beyond the end: %+v", p)
	}
	for query, reason := range map[string]string{"size=0": "must be greater than 0", "size=x": "invalid format", "size=1001": "Maximum page size", "offset=-1": "invalid offset"} {
		if status, body := w.get(path + "?" + query); status != 400 || !strings.Contains(body, reason) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

func TestWhoMayInspect(t *testing.T) {
	w := newWorld(t, "east")
	w.documents("east", oneProxy)
	outside := func(r *http.Request) *http.Request { return httptest.NewRequest(r.Method, r.URL.String(), nil) }
	// The grants for what a proxy shows hold for those who may read at all.
	for _, path := range []string{"_config", "_rules", "_layout"} {
		if status, body := w.get("/meshes/default/dataplanes/web/"+path, outside); status != 401 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := w.get("/meshes/default/dataplanes/web/_config"); status != 404 {
		t.Errorf("an administrator gets as far as to find no insight: %d %s", status, body)
	}
}
