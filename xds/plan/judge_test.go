package plan_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/plan"
)

func TestJudge(t *testing.T) {
	body, err := yaml.YAMLToJSON([]byte(`
type: MeshProxyPatch
mesh: default
name: a
spec:
  default:
    appendModifications:
      - cluster: {operation: Add, value: "name: a"}
      - cluster: {operation: Add, value: "connect_timeout: 5s"}
      - cluster: {operation: Patch, value: "connect_timeout: 5s"}
      - listener: {operation: Patch, value: "colour: red"}
      - listener: {operation: Remove}
`))
	if err != nil {
		t.Fatal(err)
	}
	var r api.Report
	d, k := api.ParseDocument(body, &r)
	row := k.Decode(api.Meta{}, d.Spec, true, &r)
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	plan.Judge(row, &r)
	want := []string{"spec.default.appendModifications[1].cluster.value", "spec.default.appendModifications[3].listener.value"}
	var got []string
	for _, f := range r.Faults() {
		got = append(got, f.Field)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("faults %v", r.Faults())
	}
}
