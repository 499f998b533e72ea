package policy_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/google/go-cmp/cmp"
)

// written makes a row of a real kind from its spec in JSON.
func written[S any](t *testing.T, name, body string) *api.Object[S] {
	t.Helper()
	o := &api.Object[S]{Meta: api.Meta{ID: api.ID{Mesh: "default", Name: name}, Labels: map[string]string{api.LabelOrigin: "global"}}}
	if err := json.Unmarshal([]byte(body), &o.Spec); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return o
}

func timeoutTo(s *api.MeshTimeout) []policy.To[api.MeshTimeoutConf] {
	out := make([]policy.To[api.MeshTimeoutConf], len(s.To))
	for i, e := range s.To {
		out[i] = policy.To[api.MeshTimeoutConf](e)
	}
	return out
}

func timeoutRules(s *api.MeshTimeout) []policy.Inbound[api.MeshTimeoutConf] {
	out := make([]policy.Inbound[api.MeshTimeoutConf], len(s.Rules))
	for i, e := range s.Rules {
		out[i] = policy.Inbound[api.MeshTimeoutConf](e)
	}
	return out
}

// oneService resolves everything to the service of the name in the labels.
func oneService(kind string, labels map[string]string) []api.ID {
	return []api.ID{{Kind: kind, Mesh: "default", Name: labels[api.LabelDisplayName]}}
}

func TestTimeouts(t *testing.T) {
	set := policy.NewSet([]*api.Object[api.MeshTimeout]{
		written[api.MeshTimeout](t, "one-service", `{"targetRef":{"kind":"Dataplane","labels":{"app":"web"}},
			"to":[{"targetRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"api"}},"default":{"http":{"requestTimeout":"2s"}}}]}`),
		written[api.MeshTimeout](t, "mesh-timeout-to-all", `{"to":[{"targetRef":{"kind":"Mesh"},
			"default":{"connectionTimeout":"5s","idleTimeout":"1h","http":{"requestTimeout":"15s","streamIdleTimeout":"30m"}}}]}`),
		written[api.MeshTimeout](t, "mesh-timeout-all", `{"rules":[{"default":{"connectionTimeout":"10s","http":{"requestTimeout":"0s"}}}]}`),
		written[api.MeshTimeout](t, "from-web", `{"rules":[{"matches":[{"spiffeID":{"type":"Exact","value":"spiffe://east/web"}}],"default":{"http":{"requestTimeout":"1s"}}}]}`),
	}, func(s *api.MeshTimeout) *api.TargetRef { return s.TargetRef }, false)
	if diff := cmp.Diff([]string{"app"}, set.Keys()); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	selected := set.Select(policy.Proxy{Mesh: "default", Labels: map[string]string{"app": "web"}})

	rules := policy.NewToRules(selected, timeoutTo, oneService, policy.NewRule)
	rule, _, ok := rules.Lookup(policy.Destination{ID: api.ID{Kind: "MeshService", Mesh: "default", Name: "api"}, Section: "http"})
	if got, want := asJSON(rule.Conf), `{"connectionTimeout":"5s","idleTimeout":"1h0m0s","http":{"requestTimeout":"2s","streamIdleTimeout":"30m0s"}}`; !ok || !sameJSON(t, got, want) {
		t.Errorf("to api: %s, want %s", got, want)
	}
	if last := rule.Steps[len(rule.Steps)-1].Policy.Name; last != "one-service" {
		t.Errorf("the last word is %s's", last)
	}

	inbound := policy.InboundRules(selected, "http", timeoutRules)
	if len(inbound) != 2 || inbound[0].Policy.Name != "from-web" || inbound[0].Match.SpiffeID == nil {
		t.Errorf("inbound rules: %s", asJSON(inbound))
	}
	// Zero is a value: it means no limit.
	all, ok := policy.CatchAll(inbound)
	if got, want := asJSON(all.Conf), `{"connectionTimeout":"10s","http":{"requestTimeout":"0s"}}`; !ok || !sameJSON(t, got, want) {
		t.Errorf("catch-all: %s, want %s", got, want)
	}
}

// sameJSON compares durations by what they mean, not by how they are spelt.
func sameJSON(t *testing.T, a, b string) bool {
	var x, y api.MeshTimeoutConf
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		t.Fatalf("no confs: %s, %s", a, b)
	}
	return asJSON(x) == asJSON(y)
}

type httpRule = policy.Keyed[[]api.HTTPMatch, api.HTTPRouteConf]

func routeTo(s *api.MeshHTTPRoute) []policy.To[[]httpRule] {
	var out []policy.To[[]httpRule]
	for _, e := range s.To {
		var rules []httpRule
		for _, r := range e.Rules {
			rules = append(rules, httpRule{Key: r.Matches, Conf: r.Default})
		}
		out = append(out, policy.To[[]httpRule]{TargetRef: e.TargetRef, Default: rules})
	}
	return out
}

func TestRoutes(t *testing.T) {
	to := func(rules string) string {
		return `{"to":[{"targetRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"other"}},"rules":[]},
			{"targetRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"api"}},"rules":[` + rules + `]}]}`
	}
	match := func(prefix string) string {
		return fmt.Sprintf(`"matches":[{"path":{"type":"PathPrefix","value":%q}}]`, prefix)
	}
	refs := func(name string) string {
		return fmt.Sprintf(`"backendRefs":[{"kind":"MeshService","labels":{"kuma.io/display-name":%q},"port":80}]`, name)
	}
	header := `"filters":[{"type":"RequestHeaderModifier","requestHeaderModifier":{"remove":["x"]}}]`
	set := policy.NewSet([]*api.Object[api.MeshHTTPRoute]{
		written[api.MeshHTTPRoute](t, "a", to(`{`+match("/v2")+`,"default":{`+refs("api-v2")+`}}`)),
		written[api.MeshHTTPRoute](t, "b", to(`{`+match("/v1")+`,"default":{`+refs("api-v1")+`}},{`+match("/v2")+`,"default":{`+header+`,`+refs("never")+`}}`)),
	}, func(s *api.MeshHTTPRoute) *api.TargetRef { return s.TargetRef }, false)
	routes := policy.NewToRules(set.Select(policy.Proxy{Mesh: "default"}), routeTo, oneService, policy.MergeKeyed)
	got, _, _ := routes.Lookup(policy.Destination{ID: api.ID{Kind: "MeshService", Mesh: "default", Name: "api"}, Section: "http"})
	var lines []string
	for _, r := range got {
		last := r.Steps[len(r.Steps)-1]
		lines = append(lines, fmt.Sprint(r.Key[0].Path.Value, " -> ", r.Conf.BackendRefs[0].Labels[api.LabelDisplayName],
			" filters ", len(r.Conf.Filters), " named ", last.Policy.Name, " rule_", last.Index))
	}
	want := []string{"/v2 -> api-v2 filters 1 named a rule_1", "/v1 -> api-v1 filters 0 named b rule_1"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}
