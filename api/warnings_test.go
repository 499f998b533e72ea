package api_test

import (
	"testing"

	"github.com/atoll-mesh/atoll/api"
)

// A field of any JSON may hold anything, lists and objects in lists too.
func TestWarningsOfAnyJSON(t *testing.T) {
	for _, document := range []string{
		`{"type":"MeshProxyPatch","mesh":"default","name":"a","spec":{"default":{"appendModifications":[{"virtualHost":{"operation":"Patch","jsonPatches":[{"op":"add","path":"/a","value":[{"b":[{"c":1}]}]}]}}]}}}`,
		`{"type":"MeshAccessLog","mesh":"default","name":"a","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"backends":[{"type":"OpenTelemetry","openTelemetry":{"backendRef":{"kind":"MeshOpenTelemetryBackend","labels":{"a":"b"}},"body":{"kvlistValue":{"values":[{"key":"a","value":[[]]}]}}}}]}}]}}`,
	} {
		var r api.Report
		d, k := api.ParseDocument([]byte(document), &r)
		row := k.Decode(api.Meta{}, d.Spec, true, &r)
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		if w := api.Warnings(k, row); len(w) > 0 {
			t.Errorf("%s: %q", k.Info().Name, w)
		}
	}
}
