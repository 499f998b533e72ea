package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
)

func older(as string, tags ...string) *api.TargetRef {
	ref := &api.TargetRef{Kind: api.RefDataplane, Older: &api.OlderRef{As: as, Tags: map[string]string{}}}
	for i := 0; i < len(tags); i += 2 {
		ref.Older.Tags[tags[i]] = tags[i+1]
	}
	return ref
}

func timeoutFor(name string, top *api.TargetRef) *api.Object[api.MeshTimeout] {
	return &api.Object[api.MeshTimeout]{Meta: api.Meta{ID: api.ID{Mesh: "default", Name: name}}, Spec: api.MeshTimeout{TargetRef: top}}
}

func timeoutTop(s *api.MeshTimeout) *api.TargetRef { return s.TargetRef }

// What older forms select by weighs more than labels, whatever the names.
func TestOlderFormsInOrder(t *testing.T) {
	labelled := &api.TargetRef{Kind: api.RefDataplane, Labels: map[string]string{"app": "web"}}
	named := &api.TargetRef{Kind: api.RefDataplane, Labels: map[string]string{"app": "web"}, Older: &api.OlderRef{As: api.RefDataplane}}
	in := func(ref *api.TargetRef) *api.TargetRef {
		with := *ref
		with.SectionName = "http"
		return &with
	}
	route := &api.TargetRef{Kind: api.RefMesh, Older: &api.OlderRef{As: api.RefHTTPRoute}}
	ascending := []*api.TargetRef{
		nil, labelled, in(labelled), named, in(named),
		older(api.RefSubset, "app", "web"), older(api.RefService, "kuma.io/service", "web"), older(api.RefServiceSubset, "kuma.io/service", "web"), route,
	}
	var all []*api.Object[api.MeshTimeout]
	for i, top := range ascending {
		all = append(all, timeoutFor(fmt.Sprintf("p%d", i), top)) // of equals the first name would win
	}
	slices.Reverse(all)
	set := policy.NewSet(all, timeoutTop, false)
	var got, want []string
	for _, s := range set.Select(policy.Proxy{Mesh: "default", Labels: map[string]string{"app": "web", "kuma.io/service": "web"}, Sections: []string{"http"}}) {
		got = append(got, s.Policy.Name)
	}
	for i := range ascending {
		want = append(want, fmt.Sprintf("p%d", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTagsSelectInbounds(t *testing.T) {
	dp := &api.Object[api.Dataplane]{Meta: api.Meta{ID: api.ID{Mesh: "default", Zone: "east", Name: "a"}, Labels: map[string]string{"team": "shop"}}}
	dp.Spec.Networking.Inbound = []api.Inbound{
		{Port: 80, Tags: map[string]string{"kuma.io/service": "web", "version": "v1"}},
		{Port: 81, Tags: map[string]string{"kuma.io/service": "admin", "team": "ops", "kuma.io/zone": "west"}},
	}
	gateway := &api.Object[api.Dataplane]{Meta: dp.Meta}
	gateway.Spec.Networking.Gateway = &api.Gateway{Tags: map[string]string{"kuma.io/service": "edge", "kuma.io/zone": "west"}}
	for _, c := range []struct {
		tags []string
		want string // inbounds of the Dataplane, and whether the gateway is selected
	}{
		{[]string{"team", "shop"}, "80 gateway"},
		{[]string{"team", "ops"}, "81"},
		{[]string{"kuma.io/service", "web"}, "80"},
		{[]string{"kuma.io/service", "web", "team", "ops"}, ""},
		{[]string{"kuma.io/service", "edge"}, "gateway"},
		{[]string{"kuma.io/zone", "east"}, "80 81 gateway"},
		{[]string{"kuma.io/zone", "west"}, ""},
		{[]string{"kuma.io/proxy-type", "gateway"}, "gateway"},
		{[]string{"kuma.io/proxy-type", "sidecar"}, "80 81"},
		{nil, "80 81 gateway"},
	} {
		set := policy.NewSet([]*api.Object[api.MeshTimeout]{timeoutFor("p", older(api.RefSubset, c.tags...))}, timeoutTop, false)
		sections := []string{"80", "81"}
		var got []string
		for _, section := range sections {
			all := policy.Of(dp, set.Keys(), sections)
			one := policy.Of(dp, set.Keys(), []string{section})
			selects := func(p policy.Proxy) bool {
				s := set.Select(p.Class().Proxy())
				return len(s) == 1 && s[0].Selects(section)
			}
			if selects(all) != selects(one) {
				t.Errorf("%v: inbound %s alone %v, among others %v", c.tags, section, selects(one), selects(all))
			}
			if selects(one) {
				got = append(got, section)
			}
		}
		if n := len(set.Select(policy.Of(dp, set.Keys(), nil))); (n == 1) != (len(got) > 0) {
			t.Errorf("%v: the proxy as a client is selected by %d, its inbounds are %v", c.tags, n, got)
		}
		if len(set.Select(policy.Of(gateway, set.Keys(), nil))) == 1 {
			got = append(got, "gateway")
		}
		if list := strings.Join(got, " "); list != c.want {
			t.Errorf("%v select %q, want %q", c.tags, list, c.want)
		}
	}
}

// A permission in the older form decides by importance: against a reference that
// asks each policy in turn.
func TestOlderPermissions(t *testing.T) {
	// Proxies by their tag; b and c share one SPIFFE ID.
	ids := map[string]string{"a": "spiffe://d/a", "b": "spiffe://d/bc", "c": "spiffe://d/bc"}
	callers := func(tags map[string]string) (own, shared []string) {
		if tags["app"] == "a" {
			return []string{ids["a"]}, nil
		}
		return nil, []string{ids[tags["app"]]}
	}
	rapid.Check(t, func(t *rapid.T) {
		type rule struct{ app, action string } // no app: everybody
		rules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) rule {
			return rule{rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "app"), rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "action")}
		}), 0, 5).Draw(t, "rules")
		var ps []*permission
		for i, r := range rules { // the later is the more important
			m := api.PermissionMatch{Caller: &api.Caller{}}
			if r.app != "" {
				m.Caller.Tags = map[string]string{"app": r.app}
			}
			meta := api.Meta{ID: api.ID{Mesh: "default", Name: fmt.Sprintf("p%d", 9-i)}}
			ps = append(ps, permit(t, meta, ref("Mesh"), list{r.action: {m}}))
		}
		set := policy.NewSet(ps, func(s *api.MeshTrafficPermission) *api.TargetRef { return s.TargetRef }, false)
		got := policy.PermissionsFor(set.Select(policy.Proxy{Mesh: "default"}), "http", callers)
		for app, id := range ids {
			want := false
			for _, r := range slices.Backward(rules) {
				names := r.app == "" || r.app == app || ids[r.app] == id
				if surely := r.app == "" || r.app == "a"; names && (r.action == "deny" || surely) {
					want = r.action == "allow"
					break
				}
			}
			if v := decideBy(got, peer{spiffeID: id}, request{}); v.allowed != want {
				t.Fatalf("%v: %s allowed %v, want %v", rules, app, v.allowed, want)
			}
		}
	})
}

// An older Deny of everybody stands against what less important policies let in.
func TestOlderAndNewerPermissions(t *testing.T) {
	meta := func(name string) api.Meta { return api.Meta{ID: api.ID{Mesh: "default", Name: name}} }
	everybody, web := api.PermissionMatch{Caller: &api.Caller{}}, spiffe("Exact", "spiffe://d/web")
	for _, c := range []struct {
		name string
		ps   []*permission
		want bool
	}{
		{"the less important allows", []*permission{permit(t, meta("a"), ref("Mesh"), list{"deny": {everybody}}), permit(t, meta("b"), ref("Mesh"), list{"allow": {web}})}, false},
		{"the more important allows", []*permission{permit(t, meta("b"), ref("Mesh"), list{"deny": {everybody}}), permit(t, meta("a"), ref("Mesh"), list{"allow": {web}})}, true},
		{"a newer Deny has the last word", []*permission{permit(t, meta("a"), ref("Mesh"), list{"allow": {everybody}}), permit(t, meta("b"), ref("Mesh"), list{"deny": {web}})}, false},
	} {
		if v := decide(c.ps, "http", peer{spiffeID: web.SpiffeID.Value}, request{}); v.allowed != c.want {
			t.Errorf("%s: allowed %v", c.name, v.allowed)
		}
	}
}
