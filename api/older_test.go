package api_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
)

// TestOlderForms runs testdata/older/*.txtar: for NAME.yaml, a document in an
// older form, NAME.model is what it means, or the faults it is refused with, and
// NAME.newer is how the newer form says it, or why it cannot (rewritten by
// -update: read what it wrote).
func TestOlderForms(t *testing.T) {
	files, err := filepath.Glob("testdata/older/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		out := &txtar.Archive{Comment: archive.Comment}
		for _, f := range archive.Files {
			want[f.Name] = string(f.Data)
		}
		for _, f := range archive.Files {
			name, ok := strings.CutSuffix(f.Name, ".yaml")
			if !ok {
				continue
			}
			out.Files = append(out.Files, f)
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+name, func(t *testing.T) {
				model, newer := meaning(t, f.Data)
				for _, part := range []struct{ name, got string }{{name + ".model", model}, {name + ".newer", newer}} {
					if diff := cmp.Diff(want[part.name], part.got); diff != "" && !*update {
						t.Errorf("%s (-want +got)\n%s", part.name, diff)
					}
					if part.got != "" {
						out.Files = append(out.Files, txtar.File{Name: part.name, Data: []byte(part.got)})
					}
				}
				if refused := strings.HasPrefix(model, "# "); refused != (strings.HasPrefix(name, "refused") || strings.HasPrefix(name, "meant")) {
					t.Errorf("refused: %v\n%s", refused, model)
				}
			})
		}
		if !*update && len(out.Files) != len(archive.Files) {
			t.Errorf("%s: some of its files are the outcome of none", file)
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// meaning returns what a document means and its newer form; empty: it is in that.
func meaning(t *testing.T, document []byte) (model, newer string) {
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict(document, &fields); err != nil {
		t.Fatal(err)
	}
	fields["mesh"], fields["name"] = "shop", "a"
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	var r api.Report
	k, _ := api.ByName(fields["type"].(string))
	row, d := write(k, body, &r)
	if r.Err() != nil {
		return "# " + strings.Join(lines(&r), "\n# ") + "\n", ""
	}
	if !bytes.Equal(row.Raw(), d.Spec) {
		t.Errorf("written %s, kept %s", d.Spec, row.Raw())
	}
	var loose api.Report
	if k.Decode(*row.Head(), row.Raw(), false, &loose); loose.Unknown() != nil {
		t.Errorf("unknown %v", loose.Unknown())
	}
	out, err := yaml.Marshal(row.Body())
	if err != nil {
		t.Fatal(err)
	}
	return string(out), inNewerForm(t, k, row)
}

// inNewerForm checks what a newer form must be: acceptable to those who know no
// other, and the newer form of itself.
func inNewerForm(t interface{ Errorf(string, ...any) }, k api.AnyKind, row api.Row) string {
	spec, err := k.Newer(row.Head(), row.Raw())
	if err != nil {
		return "# " + strings.ReplaceAll(err.Error(), "; spec", "\n# spec") + "\n"
	}
	if bytes.Equal(spec, row.Raw()) {
		return ""
	}
	var strict api.Report
	k.Decode(*row.Head(), spec, true, &strict)
	again, err := k.Newer(row.Head(), spec)
	if strict.Err() != nil || err != nil || !bytes.Equal(spec, again) {
		t.Errorf("newer form %s: %v; its newer form %s: %v", spec, strict.Err(), again, err)
	}
	out, _ := yaml.JSONToYAML(spec)
	return string(out)
}

// Whatever is written, reading it does not panic; what has a meaning has the
// same one when it is written in the newer form.
func TestAnyReference(t *testing.T) {
	scalar := rapid.OneOf(rapid.Just[any]("a"), rapid.Just[any]("a_b_svc_80"), rapid.Just[any]("shop"), rapid.Just[any](7.0), rapid.Just[any](nil), rapid.Just[any]([]any{"Sidecar"}),
		rapid.Just[any](map[string]any{"kuma.io/zone": "east"}), rapid.Just[any](map[string]any{"a": "b", "c": 1.0}))
	kinds := rapid.SampledFrom([]any{"Mesh", "Dataplane", "MeshSubset", "MeshGateway", "MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshServiceSubset", "MeshHTTPRoute", "", 7.0})
	ref := rapid.Custom(func(t *rapid.T) any {
		out := rapid.MapOfN(rapid.SampledFrom([]string{"name", "namespace", "labels", "tags", "mesh", "proxyTypes", "sectionName", "port", "older"}), scalar, 0, 3).Draw(t, "fields")
		ref := map[string]any{"kind": kinds.Draw(t, "kind")}
		for name, value := range out {
			ref[name] = value
		}
		return ref
	})
	conf := rapid.SampledFrom([]any{map[string]any{"idleTimeout": "1s"}, map[string]any{"action": "Allow"}, map[string]any{"http": map[string]any{"numRetries": 1.0}}, nil, 7.0,
		map[string]any{"backendRefs": []any{map[string]any{"kind": "MeshService", "name": "a"}, nil}}})
	item := rapid.Custom(func(t *rapid.T) any {
		one := map[string]any{"targetRef": ref.Draw(t, "ref"), "default": conf.Draw(t, "conf")}
		if rapid.Bool().Draw(t, "routes") {
			one["rules"] = []any{map[string]any{"default": conf.Draw(t, "conf")}}
		}
		return rapid.SampledFrom([]any{one, one, one, 7.0, nil}).Draw(t, "item")
	})
	policies := []api.AnyKind{api.MeshTimeouts, api.MeshTrafficPermissions, api.MeshRetries, api.MeshRateLimits, api.MeshTLSes, api.MeshHTTPRoutes, api.MeshTCPRoutes, api.MeshPassthroughs}
	rapid.Check(t, func(t *rapid.T) {
		spec := map[string]any{}
		if rapid.Bool().Draw(t, "top") {
			spec["targetRef"] = rapid.OneOf(ref, scalar).Draw(t, "targetRef")
		}
		for _, field := range []string{"to", "from", "rules"} {
			if rapid.Bool().Draw(t, field) {
				spec[field] = rapid.SliceOfN(item, 0, 2).Draw(t, field)
			}
		}
		body, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		k := rapid.SampledFrom(policies).Draw(t, "kind")
		m := api.Meta{ID: api.ID{Mesh: "shop", Name: "a"}}
		for _, strict := range []bool{true, false} {
			var r api.Report
			row := k.Decode(m, body, strict, &r)
			if r.Err() == nil && strict {
				inNewerForm(t, k, row)
			}
			if r.Err() != nil || bytes.Contains(encoded(t, row), []byte(`"older"`)) || bytes.Contains(encoded(t, row), []byte(`"caller"`)) {
				continue // refused, or of a meaning that the newer form cannot say
			}
			var again api.Report
			newer := k.Decode(m, encoded(t, row), true, &again)
			if again.Err() != nil || !bytes.Equal(encoded(t, row), encoded(t, newer)) {
				t.Fatalf("%s\nmeans %s\nwhich means %s: %v", body, encoded(t, row), encoded(t, newer), again.Err())
			}
		}
	})
}

func encoded(t *rapid.T, row api.Row) []byte {
	body, err := json.Marshal(row.Body())
	if err != nil {
		t.Fatal(err)
	}
	return body
}
