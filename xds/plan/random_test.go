package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// TestRandomMeshes: whatever policies say that are accepted, alone or together,
// Envoy takes what comes of it; and what follows from change to change is what
// comes of the last state from scratch.
func TestRandomMeshes(t *testing.T) {
	written := policyDocuments(t)
	var all batch
	meshes := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for _, at := range slices.Sorted(maps.Keys(randomMesh)) {
			w.documents(t, at, randomMesh[at])
		}
		secured := rapid.Bool().Draw(rt, "secured")
		if secured {
			w.documents(t, "east", w.fill(randomIdentity))
		}
		beside := rapid.Bool().Draw(rt, "beside") // each has the program of this project beside it
		for _, name := range randomProxies {
			w.connect(connected{Name: name, Certificate: secured, ReadinessPort: 9902, AdminPort: 9901, InWorkDir: beside, OTLP: beside})
		}
		e, advance := w.follow(t)
		held := map[plan.Ref]bool{}
		advance()
		compare(rt, w, e, held)
		for i := range rapid.IntRange(1, 8).Draw(rt, "policies") {
			at := rapid.SampledFrom([]string{"east", "global"}).Draw(rt, "at")
			w.put(t, at, policyDocument(rt, written, at, fmt.Sprintf("p%d", rapid.IntRange(0, i).Draw(rt, "name"))))
			advance()
			compare(rt, w, e, held)
		}
		if meshes++; meshes > 40 {
			return
		}
		for _, name := range randomProxies {
			_, config := w.plan(t, connected{Name: name}.id())
			all.add(fmt.Sprintf("mesh-%d/%s", meshes, name), config)
		}
	})
	all.validate(t)
}

// compare holds what the proxies get by changes against what they get from scratch.
func compare(t *rapid.T, w *world, e *incr.Engine, held map[plan.Ref]bool) {
	fresh := incr.New(w.db.Snapshot(), incr.WithWorkers(1))
	for _, name := range randomProxies {
		ref := plan.Proxy.Ref(connected{Name: name}.id())
		got, err := incr.Peek(e, ref)
		want, wantErr := incr.Peek(fresh, ref)
		if err != nil || wantErr != nil {
			t.Fatal(name, err, wantErr)
		}
		for _, typ := range wire.Types() {
			versions := map[string]string{}
			want.All(typ, func(resource string, ref plan.Ref) bool {
				res, err := incr.Peek(fresh, ref)
				if err != nil {
					t.Fatalf("%s: %s %s: %v", name, typ.Short(), resource, err)
				}
				versions[resource] = version(res)
				return true
			})
			got.All(typ, func(resource string, ref plan.Ref) bool {
				if !held[ref] {
					held[ref] = true
					incr.Hold(e, ref, func(*wire.Resource, error) {})
				}
				res, err := incr.Peek(e, ref)
				if v, ok := versions[resource]; !ok || err != nil || version(res) != v {
					t.Fatalf("%s: %s %s differs from what it is from scratch (%v)", name, typ.Short(), resource, err)
				}
				delete(versions, resource)
				return true
			})
			for resource := range versions {
				t.Fatalf("%s: %s %s is missing", name, typ.Short(), resource)
			}
		}
	}
}

func version(r *wire.Resource) string {
	if r == nil {
		return "absent"
	}
	return fmt.Sprint(r.Version)
}

// sample is a spec that a kind accepts.
type sample struct {
	kind api.Facts
	spec map[string]any
}

// policyDocuments are the examples of package api: together they use every field.
func policyDocuments(t *testing.T) (out []sample) {
	for _, k := range api.Kinds {
		if k.Info().Policy == nil {
			continue
		}
		archive, err := txtar.ParseFile(filepath.Join("..", "..", "api", "testdata", "kinds", k.Info().Plural+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if sort, _, _ := strings.Cut(f.Name, ":"); sort != "minimal" && sort != "full" && sort != "newer" {
				continue
			}
			var doc struct{ Spec map[string]any }
			if err := yaml.Unmarshal(f.Data, &doc); err != nil {
				t.Fatalf("%s %s: %v", k.Info().Name, f.Name, err)
			}
			out = append(out, sample{k.Info(), doc.Spec})
		}
	}
	return out
}

// policyDocument is a part of an example, about what there is in the random mesh.
func policyDocument(t *rapid.T, from []sample, at, name string) []byte {
	for range 100 {
		s := rapid.SampledFrom(from).Draw(t, "sample")
		doc := map[string]any{"type": s.kind.Name, "mesh": "default", "name": strings.ToLower(s.kind.Short) + "-" + name, "spec": retarget(t, "", prune(t, s.spec))}
		body, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		var r api.Report
		parsed, kind := api.ParseDocument(body, &r)
		if r.Err() != nil {
			continue
		}
		if row := rowOf(kind, parsed, at, 0, &r); r.Err() == nil {
			if plan.Judge(row, &r); r.Err() == nil {
				return body
			}
		}
	}
	t.Skip("no example is left valid")
	return nil
}

// prune leaves out parts at random.
func prune(t *rapid.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if rapid.IntRange(0, 9).Draw(t, "keep") > 0 {
				out[key] = prune(t, v[key])
			}
		}
		return out
	case []any:
		out := []any{}
		for _, one := range v {
			if rapid.IntRange(0, 3).Draw(t, "keep") > 0 {
				out = append(out, prune(t, one))
			}
		}
		return out
	}
	return v
}

// retarget points references to what there is.
func retarget(t *rapid.T, key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if key == "targetRef" || key == "backendRef" {
			aim(t, v)
		}
		for name, one := range v {
			v[name] = retarget(t, name, one)
		}
		return v
	case []any:
		for i, one := range v {
			if ref, ok := one.(map[string]any); ok && key == "backendRefs" {
				aim(t, ref)
			}
			v[i] = retarget(t, "", one)
		}
	}
	return v
}

func aim(t *rapid.T, ref map[string]any) {
	switch ref["kind"] {
	case "Dataplane":
		if ref["labels"] != nil {
			ref["labels"] = map[string]any{"app": rapid.SampledFrom([]string{"web", "api"}).Draw(t, "app")}
		}
		if ref["sectionName"] != nil {
			ref["sectionName"] = rapid.SampledFrom([]string{"http", "http2", "grpc", "raw", "none"}).Draw(t, "section")
		}
	case "MeshOpenTelemetryBackend":
		ref["labels"] = map[string]any{"app": rapid.SampledFrom([]string{"grpc", "http", "none"}).Draw(t, "collector")}
	case "MeshService", "MeshMultiZoneService":
		names := []string{"api", "west"}
		if ref["kind"] == "MeshMultiZoneService" {
			names = []string{"multi"}
		}
		ref["labels"] = map[string]any{"kuma.io/display-name": rapid.SampledFrom(names).Draw(t, "service")}
		if ref["sectionName"] != nil {
			ref["sectionName"] = rapid.SampledFrom([]string{"http", "http2", "grpc", "raw"}).Draw(t, "port")
		}
		if ref["port"] != nil {
			ref["port"] = rapid.SampledFrom([]int{80, 81, 82, 83}).Draw(t, "number")
		}
	}
}

var randomProxies = []string{"web", "api", "ingress"}

// randomMesh is a service with a port of each protocol in this zone and in another
// one, one over both, and who calls them.
var randomMesh = map[string]string{
	"east": `type: MeshService
mesh: default
name: api
spec:
  selector: {dataplaneLabels: {matchLabels: {app: api}}}
` + randomPorts + `
---
type: Dataplane
mesh: default
name: api
labels: {app: api}
networking:
  address: 10.0.0.65
  inbound:
    - {port: 8080, name: http, protocol: http}
    - {port: 8081, name: http2, protocol: http2}
    - {port: 8082, name: grpc, protocol: grpc}
    - {port: 8083, name: raw, protocol: tcp}
---
type: Dataplane
mesh: default
name: web
labels: {app: web}
networking:
  address: 10.0.0.69
  inbound: [{port: 8080, name: http, protocol: http}]
  outbound:
` + randomOutbounds(10_000, "MeshService", "api") + randomOutbounds(10_010, "MeshService", "west") + randomOutbounds(10_020, "MeshMultiZoneService", "multi") + `
---
type: Dataplane
mesh: default
name: ingress
networking:
  address: 10.0.0.70
  listeners: [{type: ZoneIngress, name: in, address: 10.0.0.70, port: 10001}]`,
	"global": `type: MeshOpenTelemetryBackend
mesh: default
name: grpc
labels: {app: grpc}
spec: {}
---
type: MeshOpenTelemetryBackend
mesh: default
name: http
labels: {app: http}
spec: {protocol: http, endpoint: {address: otel.example, path: /in}}
---
type: MeshMultiZoneService
mesh: default
name: multi
spec:
  selector: {meshService: {matchLabels: {multi: "true"}}}
` + strings.NewReplacer(", targetPort: 8080", "", ", targetPort: 8081", "", ", targetPort: 8082", "", ", targetPort: 8083", "").Replace(randomPorts),
	"west": `type: MeshService
mesh: default
name: west
labels: {multi: "true"}
spec:
  state: Available
  identities: [{type: SpiffeID, value: "spiffe://default.west.mesh.local/workload/west"}]
` + randomPorts + `
---
type: MeshZoneAddress
mesh: default
name: west
spec: {address: 192.0.2.1, port: 10001}`,
}

const randomPorts = `  ports:
    - {port: 80, name: http, targetPort: 8080, appProtocol: http}
    - {port: 81, name: http2, targetPort: 8081, appProtocol: http2}
    - {port: 82, name: grpc, targetPort: 8082, appProtocol: grpc}
    - {port: 83, name: raw, targetPort: 8083, appProtocol: tcp}`

const randomIdentity = `type: MeshIdentity
mesh: default
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
---
type: MeshTrust
mesh: default
name: identity
spec: {trustDomain: default.east.mesh.local, caBundles: [{type: Pem, pem: {value: ${ca.pem}}}]}`

func randomOutbounds(port int, kind, name string) string {
	var b strings.Builder
	for i := range 4 {
		fmt.Fprintf(&b, "    - {port: %d, backendRef: {kind: %s, labels: {kuma.io/display-name: %s}, port: %d}}\n", port+i, kind, name, 80+i)
	}
	return b.String()
}
