package plan_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/plan"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct{ document, want string }{
		{`
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
`, "spec.default.appendModifications[1].cluster.value spec.default.appendModifications[3].listener.value"},
		{`
type: MeshAccessLog
mesh: default
name: a
spec:
  to:
    - targetRef: {kind: Mesh}
      default:
        backends:
          - {type: File, file: {path: /log, format: {type: Plain, plain: '%KUMA_MESH% %RESPONSE_CODE% %REQ(A)%'}}}
          - {type: File, file: {path: /log, format: {type: Plain, plain: '%KUMA_PLANET%'}}}
          - {type: Tcp, tcp: {address: 'a:1', format: {type: Json, json: [{key: a, value: '%PROTOCOL%'}, {key: b, value: '%PROTO%'}]}}}
          - type: OpenTelemetry
            openTelemetry:
              backendRef: {kind: MeshOpenTelemetryBackend, labels: {a: b}}
              attributes: [{key: a, value: '%REQ%'}]
              body: {kvlistValue: {values: [{key: a, value: {stringValue: '10%'}}]}}
`, "spec.to[0].default.backends[1].file.format.plain spec.to[0].default.backends[2].tcp.format.json[1].value " +
			"spec.to[0].default.backends[3].openTelemetry.attributes[0].value spec.to[0].default.backends[3].openTelemetry.body"},
		{`
type: MeshAccessLog
mesh: default
name: a
spec:
  rules: [{default: {backends: [{type: File, file: {path: /log, format: {type: Plain, plain: '%NONE%'}}}]}}]
`, "spec.rules[0].default.backends[0].file.format.plain"},
	} {
		body, err := yaml.YAMLToJSON([]byte(c.document))
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
		var got []string
		for _, f := range r.Faults() {
			got = append(got, f.Field)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\nfaults %v", c.document, r.Faults())
		}
	}
}
