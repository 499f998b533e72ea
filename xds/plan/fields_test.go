package plan_test

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/testing/protocmp"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// TestFieldsAct takes every field of every policy out of the documents of the cases,
// one at a time: for each there is a case in which some proxy then gets something
// else, the document is refused without it, or its writer was warned of it. A field that
// does neither is one that is dropped silently, or one that no case shows.
func TestFieldsAct(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	acted := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		readCase(t, archive).fieldsThatAct(t, acted)
	}
	for _, kind := range api.Kinds {
		if kind.Info().Policy == nil {
			continue
		}
		all := map[string]bool{}
		listFields(kind.Shape(), kind.Info().Name, all)
		for _, path := range slices.Sorted(maps.Keys(all)) {
			if !acted[path] && !refused(kind, path) {
				t.Errorf("%s acts in no case", path)
			}
		}
	}
}

// refused tells of fields that the documents of a kind share with others and that are
// never right there.
func refused(kind api.AnyKind, path string) bool {
	of := kind.Info()
	return path == of.Name+".targetRef.sectionName" && !of.Policy.Rules || path == "MeshHTTPRoute.to[].hostnames" ||
		path == "MeshHTTPRoute.to[].rules[].default.filters[].urlRewrite.hostToBackendHostname"
}

// listFields lists the paths of all fields that a shape has.
func listFields(s *api.Shape, path string, into map[string]bool) {
	if s.Elem != nil {
		listFields(s.Elem, path+"[]", into)
	}
	for _, f := range s.Fields {
		if f.Idle != "" {
			continue
		}
		into[path+"."+f.Name] = true
		listFields(f.Shape, path+"."+f.Name, into)
	}
}

// written is the input of a case.
type written struct {
	documents []document
	proxies   []connected
}

type document struct {
	at   string
	tree map[string]any
}

func readCase(t *testing.T, archive *txtar.Archive) (in written) {
	t.Helper()
	w := newWorld(t)
	for _, f := range archive.Files {
		switch f.Name {
		case "east.yaml", "west.yaml", "global.yaml":
			for one := range strings.SplitSeq(w.fill(string(f.Data)), "\n---\n") {
				d := document{at: strings.TrimSuffix(f.Name, ".yaml")}
				if err := yaml.Unmarshal([]byte(one), &d.tree); err != nil {
					t.Fatal(err)
				}
				in.documents = append(in.documents, d)
			}
		case "proxies.yaml":
			if err := yaml.UnmarshalStrict(f.Data, &in.proxies); err != nil {
				t.Fatal(err)
			}
		}
	}
	return in
}

// plans is what the proxies of the case get, and what the writers of its documents are
// warned of; ok is false if a document is refused.
func (in written) plans(t *testing.T) (out []any, ok bool) {
	t.Helper()
	w := newWorld(t)
	for i, d := range in.documents {
		body, err := json.Marshal(d.tree)
		if err != nil {
			t.Fatal(err)
		}
		var r api.Report
		doc, kind := api.ParseDocument(body, &r)
		if r.Err() != nil {
			return nil, false
		}
		row := rowOf(kind, doc, d.at, i, &r)
		if r.Err() != nil {
			return nil, false
		}
		w.write(func(tx *db.Tx) { kind.Put(tx, row) })
		out = append(out, api.Warnings(kind, row))
	}
	for _, c := range in.proxies {
		w.connect(c)
	}
	for _, c := range in.proxies {
		_, config := w.plan(t, c.id())
		out = append(out, config)
	}
	return out, true
}

func (in written) fieldsThatAct(t *testing.T, acted map[string]bool) {
	before, ok := in.plans(t)
	if !ok {
		t.Fatal("a case holds a document that is refused")
	}
	for _, d := range in.documents {
		kind, ok := api.ByName(d.tree["type"].(string))
		if !ok || kind.Info().Policy == nil {
			continue
		}
		spec, ok := d.tree["spec"].(map[string]any)
		if !ok {
			continue
		}
		eachField(kind.Shape(), spec, kind.Info().Name, func(path string, object map[string]any, name string) {
			if acted[path] {
				return
			}
			value := object[name]
			delete(object, name)
			after, ok := in.plans(t)
			object[name] = value
			acted[path] = !ok || !cmp.Equal(before, after, protocmp.Transform())
		})
	}
}

// eachField calls f for every field that the value has.
func eachField(s *api.Shape, value any, path string, f func(path string, object map[string]any, name string)) {
	switch v := value.(type) {
	case []any:
		for _, elem := range v {
			eachField(s.Elem, elem, path+"[]", f)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if field, ok := s.Field(name); ok {
				f(path+"."+name, v, name)
				eachField(field.Shape, v[name], path+"."+name, f)
			} else if s.Elem != nil {
				eachField(s.Elem, v[name], path+"[]", f)
			}
		}
	}
}
