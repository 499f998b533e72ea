package rest_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/rest"
)

// TestDescription holds GET /openapi against what the API answers: every kind is
// written as its tests write it, every path that can be read is read, and every
// answer fits its schema.
func TestDescription(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) { o.Config = map[string]string{"name": "east"} })
	put(t, p, "/meshes/shop", map[string]any{"type": "Mesh", "name": "shop"})
	kri := writeAll(t, p)

	answer := p.do("GET", "/openapi", "")
	described, err := jsonschema.UnmarshalJSON(strings.NewReader(answer.text))
	if err != nil {
		t.Fatalf("%d: %v", answer.status, err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("openapi.json", described); err != nil {
		t.Fatal(err)
	}
	paths := described.(map[string]any)["paths"].(map[string]any)
	checked := 0
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for method, operation := range paths[path].(map[string]any) {
			if operation.(map[string]any)["summary"] == "" {
				t.Errorf("%s %s has no summary", method, path)
			}
		}
		if paths[path].(map[string]any)["get"] == nil {
			continue
		}
		at := "openapi.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(path) +
			"/get/responses/200/content/application~1json/schema"
		schema, err := compiler.Compile(at)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got := p.do("GET", strings.NewReplacer("{mesh}", "shop", "{name}", "a", "{kri}", kri).Replace(path), "")
		if got.status == http.StatusNotFound && strings.Contains(path, "{name}") {
			continue // kinds that only control planes write
		}
		body, err := jsonschema.UnmarshalJSON(strings.NewReader(got.text))
		if err != nil || got.status != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, got.status, got.text)
			continue
		}
		if err := schema.Validate(body); err != nil {
			t.Errorf("GET %s: %v\n%s", path, err, got.text)
		}
		checked++
	}
	if checked < 3*len(api.Kinds)/2 {
		t.Errorf("only %d answers could be checked", checked)
	}
}

// writeAll writes every document that kinds are tested with, as a of its kind, so
// that the last one stays. Each comes back as it was written, a spec byte for
// byte. It returns a KRI.
func writeAll(t *testing.T, p *plane) (kri string) {
	t.Helper()
	files, err := filepath.Glob("../testdata/kinds/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		k, ok := api.ByPlural(strings.TrimSuffix(filepath.Base(file), ".txtar"))
		if !ok || k.Info().ReadOnly {
			continue
		}
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range archive.Files {
			if sort, _, _ := strings.Cut(section.Name, ":"); sort == "bad" {
				continue
			}
			document := map[string]any{}
			if err := yaml.Unmarshal(section.Data, &document); err != nil {
				t.Fatal(err)
			}
			path := "/" + k.Info().Plural + "/a"
			document["type"], document["name"] = k.Info().Name, "a"
			if k.Info().Scope == api.MeshScope {
				document["mesh"], path = "shop", "/meshes/shop"+path
			}
			put(t, p, path, document)
			answer := p.do("GET", path, "")
			if written, back := specBytes(t, document), specBytes(t, json.RawMessage(answer.text)); written != back {
				t.Errorf("%s, %s: written\n%s\nand what came back:\n%s", file, section.Name, written, back)
			}
			got := answer.json(t)
			if back := got["kri"]; back != nil {
				kri = back.(string)
			}
			for _, added := range []string{"labels", "creationTime", "modificationTime", "kri", "status", "snis"} {
				delete(got, added)
				if added == "labels" {
					delete(document, added) // others are added to those written
				}
			}
			if diff := cmp.Diff(document, got); diff != "" {
				t.Errorf("%s, %s: written, and what came back:\n%s", file, section.Name, diff)
			}
		}
	}
	return kri
}

// specBytes is the spec of a document without white space; empty for flat kinds.
func specBytes(t *testing.T, document any) string {
	t.Helper()
	body, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	var parts struct{ Spec json.RawMessage }
	if err := json.Unmarshal(body, &parts); err != nil {
		t.Fatal(err)
	}
	return string(parts.Spec)
}

func put(t *testing.T, p *plane, path string, document map[string]any) {
	t.Helper()
	body, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.do("PUT", path, string(body)); got.status >= 300 {
		t.Errorf("PUT %s: %d %s", path, got.status, got.text)
	}
}
