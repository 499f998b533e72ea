package openapi_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/openapi"
)

// TestSchemas holds each kind's schema against the documents that package api
// tests the kind with: what is accepted there fits the schema, and what is
// refused there for its shape does not.
func TestSchemas(t *testing.T) {
	files, err := filepath.Glob("../testdata/kinds/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, file := range files {
		plural := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(plural, func(t *testing.T) {
			k, ok := api.ByPlural(plural)
			if !ok {
				t.Skip("a kind without a path")
			}
			schema := compile(t, k)
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, section := range archive.Files {
				sort, _, _ := strings.Cut(section.Name, ":")
				err := schema.Validate(document(t, k.Info(), section.Data))
				switch {
				case sort == "minimal" || sort == "full" || sort == "newer":
					if err != nil {
						t.Errorf("section %d (%s): %v\n%s", i+1, section.Name, err, section.Data)
					}
				case sort == "bad" && ofShape(k, section.Data) && err == nil:
					t.Errorf("section %d (%s) fits the schema:\n%s", i+1, section.Name, section.Data)
				}
			}
		})
	}
}

// ofShape reports whether a bad section is refused for its shape: those reasons
// begin as validators of schemas word them. Code words it so as well where a
// field is needed for want of another; that is not in a shape.
func ofShape(k api.AnyKind, section []byte) bool {
	for line := range strings.Lines(string(section)) {
		fault, ok := strings.CutPrefix(line, "# ")
		if !ok {
			return false
		}
		field, reason, _ := strings.Cut(strings.TrimSpace(fault), ": ")
		if strings.HasPrefix(reason, "in body ") && (reason != "in body is required" || required(k, field)) {
			return true
		}
	}
	return false
}

var place = regexp.MustCompile(`\[[^\]]*\]`)

func required(k api.AnyKind, path string) bool {
	shape := openapi.Written(k)
	var f api.Field
	for name := range strings.SplitSeq(place.ReplaceAllString(path, ""), ".") {
		var ok bool
		if f, ok = openapi.Inner(shape).Field(name); !ok {
			return false
		}
		shape = f.Shape
	}
	return f.Required
}

func compile(t *testing.T, k api.AnyKind) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	if err := c.AddResource("kind.json", tree(t, openapi.Standalone(k))); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("kind.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func document(t *testing.T, i api.Facts, text []byte) any {
	t.Helper()
	fields := map[string]any{}
	if err := yaml.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"type": i.Name, "mesh": "shop", "name": "a"} {
		if _, has := fields[name]; !has && (name != "mesh" || i.Scope == api.MeshScope) {
			fields[name] = value
		}
	}
	return tree(t, fields)
}

// tree is a value as a JSON decoder has it.
func tree(t *testing.T, v any) any {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDefinitions checks what Kubernetes demands of custom resource definitions.
func TestDefinitions(t *testing.T) {
	for _, k := range api.Kinds {
		crd := openapi.CRD(k)
		if crd == nil {
			continue
		}
		body, err := json.Marshal(crd)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Metadata struct{ Name string }
			Spec     struct {
				Group    string
				Names    struct{ Plural string }
				Versions []struct {
					Schema struct{ OpenAPIV3Schema map[string]any }
				}
			}
		}
		if err := json.Unmarshal(body, &d); err != nil {
			t.Fatal(err)
		}
		if want := d.Spec.Names.Plural + "." + d.Spec.Group; d.Metadata.Name != want {
			t.Errorf("%s: the name is %s, want %s", k.Info().Name, d.Metadata.Name, want)
		}
		structural(t, k.Info().Name, d.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
}

// structural fails for what is no structural schema: each value says its type,
// or that it is an integer or a text, or that anything may be there.
func structural(t *testing.T, at string, s map[string]any) {
	t.Helper()
	any1, either := s["x-kubernetes-preserve-unknown-fields"] == true, s["x-kubernetes-int-or-string"] == true
	if s["type"] == nil && !any1 && !either {
		t.Errorf("%s: no type", at)
	}
	for _, word := range []string{"enum", "required", "default", "pattern", "minimum"} {
		if s[word] != nil {
			t.Errorf("%s: %s would hide faults from the webhook", at, word)
		}
	}
	if p, ok := s["properties"].(map[string]any); ok {
		for name, v := range p {
			structural(t, at+"."+name, v.(map[string]any))
		}
	}
	for _, word := range []string{"items", "additionalProperties"} {
		if v, ok := s[word].(map[string]any); ok {
			structural(t, at+"."+word, v)
		}
	}
}
