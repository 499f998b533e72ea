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

// Every document that may be written of a nested kind arrives in a zone byte
// for byte: a policy in the shadow and one in an older form as well.
func TestDocumentsCross(t *testing.T) {
	files, err := filepath.Glob("../api/testdata/kinds/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		written := map[api.ID]json.RawMessage{}
		for _, file := range files {
			k, ok := api.ByPlural(strings.TrimSuffix(filepath.Base(file), ".txtar"))
			if !ok || k.Info().Flat || !k.Info().Flow.Has(api.Down) {
				continue
			}
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, section := range archive.Files {
				if strings.HasPrefix(section.Name, "bad") {
					continue
				}
				body, err := yaml.YAMLToJSON(section.Data)
				if err != nil {
					t.Fatal(err)
				}
				var document struct{ Spec json.RawMessage }
				if err := json.Unmarshal(body, &document); err != nil {
					t.Fatal(err)
				}
				id := f.global.put(k, "default", fmt.Sprintf("d%d", i), string(document.Spec), api.LabelEffect, "shadow")
				written[id] = document.Spec
			}
		}
		synctest.Wait()
		for id, spec := range written {
			k, _ := api.ByName(id.Kind)
			row := f.zones["east"].row(k, id)
			if !bytes.Equal(row.Raw(), spec) || row.Head().Label(api.LabelEffect) != "shadow" {
				t.Errorf("%s\nwritten %s\narrived %s %v", id, spec, row.Raw(), row.Head().Labels)
			}
		}
	})
}
