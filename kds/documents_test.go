package kds_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
)

// Every document that may be written of a kind that crosses arrives on the other
// side: from global in a zone, and from a zone at global where only zones write
// it. A nested spec is there byte for byte, a policy in an older form as well; a
// flat one, which crosses as protobuf, means the same.
func TestDocumentsCross(t *testing.T) {
	files, err := filepath.Glob("../api/testdata/kinds/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		type crossing struct {
			kind     api.AnyKind
			id       api.ID
			from, to *plane
			section  string
		}
		var all []crossing
		kinds := map[string]bool{}
		for _, file := range files {
			k, ok := api.ByPlural(strings.TrimSuffix(filepath.Base(file), ".txtar"))
			if !ok || k.Info().Flow == 0 {
				continue
			}
			from, to := f.global, f.zones["east"]
			if !k.Info().Flow.Has(api.Down) {
				from, to = to, from
			}
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, section := range archive.Files {
				if strings.HasPrefix(section.Name, "bad") {
					continue
				}
				id := from.put(k, "default", fmt.Sprintf("d%d", i), specOf(t, k, section.Data), api.LabelEffect, "shadow")
				all = append(all, crossing{k, id, from, to, section.Name})
				kinds[k.Info().Name] = true
			}
		}
		synctest.Wait()
		for _, c := range all {
			written, arrived := c.from.row(c.kind, c.id), c.to.row(c.kind, c.id)
			got, want := arrived.Raw(), written.Raw()
			if c.kind.Info().Flat {
				got, want = encode(t, arrived), encode(t, written)
			}
			if !bytes.Equal(got, want) || arrived.Head().Label(api.LabelEffect) != "shadow" {
				t.Errorf("%s, %s\nwritten %s\narrived %s %v", c.id, c.section, want, got, arrived.Head().Labels)
			}
		}
		for _, k := range api.Kinds {
			if i := k.Info(); i.Flow != 0 && !i.ReadOnly && !i.Hidden && !kinds[i.Name] {
				t.Errorf("no document of %s crossed", i.Name)
			}
		}
	})
}

// specOf is the spec of a document that may leave out what all kinds have.
func specOf(t *testing.T, k api.AnyKind, document []byte) string {
	t.Helper()
	fields := map[string]any{}
	if err := yaml.Unmarshal(document, &fields); err != nil {
		t.Fatal(err)
	}
	fields["type"] = k.Info().Name
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := api.ParseDocument(body, new(api.Report))
	return string(d.Spec)
}

// encode is what a row means.
func encode(t *testing.T, row api.Row) []byte {
	t.Helper()
	body, err := json.Marshal(row.Body())
	if err != nil {
		t.Fatal(err)
	}
	return body
}
