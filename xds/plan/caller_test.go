package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/plan"
)

const (
	localCallers = `
type: MeshIdentity
mesh: default
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  spiffeID: {trustDomain: here, path: "/{{ label \"team\" }}"}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
---
type: Dataplane
mesh: default
name: api
labels: {team: api, version: v1}
networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: api}}]}
---
type: MeshTrafficPermission
mesh: default
name: open
spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: "spiffe://there"}}]}}]}
`
	remoteCallers = `
type: MeshService
mesh: default
name: far
labels: {version: v1, tier: front}
spec:
  selector: {dataplaneLabels: {matchLabels: {app: shop, tier: back}}}
  ports: [{port: 80}]
  identities: [{type: SpiffeID, value: "spiffe://there/far"}]
`
)

// What a MeshService of another zone does not say of the proxies behind it, they
// may carry: a Deny refuses them, and an Allow does not let them in.
func TestTagsOfRemoteCallers(t *testing.T) {
	for _, c := range []struct {
		name, ref string
		denied    string // the ID that is refused
		allowed   string // the ID that is let in
		may       bool   // that is not known
	}{
		{"all confirmed", "{kind: MeshSubset, tags: {version: v1, app: shop}}", "far", "far", false},
		{"by its name", "{kind: MeshService, name: far}", "far", "far", false},
		{"by its zone", "{kind: MeshSubset, tags: {kuma.io/zone: west}}", "far", "far", false},
		{"part of them", "{kind: MeshServiceSubset, name: far, tags: {color: red}}", "far", "", true},
		{"nothing is said", "{kind: MeshSubset, tags: {color: red}}", "far", "", true},
		{"its display name is its own", "{kind: MeshSubset, tags: {kuma.io/display-name: one}}", "far", "", true},
		{"another value", "{kind: MeshSubset, tags: {version: v2}}", "", "", false},
		{"another value, and one not said", "{kind: MeshSubset, tags: {color: red, version: v2}}", "", "", false},
		{"the selector knows better", "{kind: MeshSubset, tags: {tier: front}}", "", "", false},
		{"another service", "{kind: MeshService, name: near}", "", "", false},
		{"another zone", "{kind: MeshSubset, tags: {kuma.io/zone: north, color: red}}", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for action, want := range map[string]string{"Deny": c.denied, "Allow": c.allowed} {
				w := newWorld(t)
				w.documents(t, "east", localCallers)
				w.documents(t, "west", remoteCallers)
				policy := w.put(t, "east", []byte(`{"type":"MeshTrafficPermission","mesh":"default","name":"tags","spec":`+asJSON(t, "{from: [{targetRef: "+c.ref+", default: {action: "+action+"}}]}")+`}`))
				got := w.permissions(t, "api")
				list := got.Allow
				if action == "Deny" {
					list = got.Deny
				}
				var ids []string
				for _, p := range list {
					if strings.HasSuffix(p.Policy, "_tags_") {
						ids = append(ids, strings.TrimPrefix(p.Peer.SpiffeID, "spiffe://there/"))
					}
				}
				ids = slices.DeleteFunc(ids, func(id string) bool { return strings.HasPrefix(id, "spiffe://here/") })
				if strings.Join(ids, " ") != want {
					t.Errorf("%s: %q, want %q", action, ids, want)
				}
				if shared := w.shared(t, policy); (len(shared) == 1) != c.may {
					t.Errorf("%s: reported are %v", action, shared)
				}
			}
		})
	}
}

// On Kubernetes the tag named a port of a Service.
func TestKubernetesServiceTag(t *testing.T) {
	for tag, want := range map[string]int{"far_shop_svc_80": 1, "far_shop_svc_81": 0, "far_other_svc_80": 0, "near_shop_svc_80": 0} {
		w := newWorld(t)
		w.documents(t, "east", localCallers)
		id := api.ID{Kind: "MeshService", Mesh: "default", Zone: "west", Namespace: "shop", Name: "far"}
		w.write(func(tx *db.Tx) {
			api.MeshServices.PutObject(tx, api.MeshServices.New(api.Meta{ID: id, Core: "far", Source: api.Global}, api.MeshService{
				Ports: []api.MeshServicePort{{Port: 80}}, Identities: []api.ServiceIdentity{{Type: "SpiffeID", Value: "spiffe://there/far"}},
			}))
		})
		w.put(t, "east", []byte(`{"type":"MeshTrafficPermission","mesh":"default","name":"tags","spec":{"from":[{"targetRef":{"kind":"MeshService","name":"`+tag+`"},"default":{"action":"Deny"}}]}}`))
		if got := w.permissions(t, "api").Deny; len(got) != want {
			t.Errorf("%s refuses %v", tag, got)
		}
	}
}

// A report names the entry, the ID and who else calls by it; global speaks for
// all zones.
func TestSharedCallers(t *testing.T) {
	w := newWorld(t)
	w.documents(t, "global", "type: Zone\nname: east\nenabled: true\n---\ntype: Zone\nname: west\nenabled: true")
	w.documents(t, "east", localCallers+"---\ntype: Dataplane\nmesh: default\nname: other\nlabels: {team: api}\nnetworking: {address: 10.0.0.2, inbound: [{port: 80, tags: {kuma.io/service: other}}]}")
	w.documents(t, "west", remoteCallers)
	policy := w.put(t, "global", []byte(`{"type":"MeshTrafficPermission","mesh":"default","name":"tags","spec":{"from":[
		{"targetRef":{"kind":"MeshService","name":"api"},"default":{"action":"Allow"}},
		{"targetRef":{"kind":"MeshSubset","tags":{"color":"red","app":"shop"}},"default":{"action":"Deny"}}]}}`))
	other := api.ID{Kind: "Dataplane", Mesh: "default", Zone: "east", Name: "other"}
	far := api.ID{Kind: "MeshService", Mesh: "default", Zone: "west", Name: "far"}
	want := []plan.SharedCaller{
		{Index: 0, Tags: "kuma.io/service=api", ID: "spiffe://here/api", List: "allow", With: other},
		{Index: 1, Tags: "app=shop, color=red", ID: "spiffe://there/far", List: "deny", With: far, May: true},
	}
	if diff := cmp.Diff(want, w.shared(t, policy)); diff != "" {
		t.Errorf("in the zone (-want +got)\n%s", diff)
	}
	w.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{}) })
	if diff := cmp.Diff(want, w.shared(t, policy)); diff != "" {
		t.Errorf("at global (-want +got)\n%s", diff)
	}
}

func (w *world) permissions(t *testing.T, name string) *ir.Permissions {
	t.Helper()
	x, err := incr.Peek(w.engine(), plan.Explain.Ref(connected{Name: name}.id()))
	if err != nil {
		t.Fatal(err)
	}
	return x.Listeners["self_inbound_dp_80"].(*ir.Listener).Chains[0].Permissions
}

func (w *world) shared(t *testing.T, policy api.ID) []plan.SharedCaller {
	t.Helper()
	shared, err := incr.Peek(w.engine(), plan.SharedCallers.Ref(policy))
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func asJSON(t *testing.T, text string) string {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
