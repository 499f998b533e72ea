package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"pgregory.net/rapid"
)

type permission = api.Object[api.MeshTrafficPermission]

// list is a rule as written: lists of matches by name.
type list = map[string][]api.Match

func permit(t interface{ Fatal(...any) }, m api.Meta, top api.TargetRef, rules ...list) *permission {
	written := []any{}
	for _, r := range rules {
		written = append(written, map[string]any{"default": r})
	}
	p := &permission{Meta: m}
	body, err := json.Marshal(map[string]any{"rules": written})
	if err == nil {
		err = json.Unmarshal(body, &p.Spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.TargetRef = &top
	return p
}

func decide(ps []*permission, section string, peer policy.Peer) policy.Verdict {
	set := policy.NewSet(ps, func(s *api.MeshTrafficPermission) *api.TargetRef { return s.TargetRef }, false)
	selected := set.Select(policy.Proxy{Mesh: "default", Sections: []string{"http", "admin"}})
	return policy.PermissionsFor(selected, section, nil).Decide(peer)
}

func spiffe(typ, value string) api.Match {
	return api.Match{SpiffeID: &api.SpiffeIDMatch{Type: typ, Value: value}}
}

func TestPermissions(t *testing.T) {
	meta := func(name string) api.Meta {
		return api.Meta{ID: api.ID{Kind: "MeshTrafficPermission", Mesh: "default", Name: name}}
	}
	web := policy.Peer{SpiffeID: "spiffe://east/ns/shop/sa/web", SNI: "api.shop"}
	exact, prefix := spiffe("Exact", web.SpiffeID), spiffe("Prefix", "spiffe://east/ns/shop")
	sni := api.Match{SNI: &api.SNIMatch{Type: "Exact", Value: "api.shop"}}
	both := api.Match{SpiffeID: exact.SpiffeID, SNI: &api.SNIMatch{Type: "Exact", Value: "other"}}
	mesh, admin := ref("Mesh"), section(ref("Dataplane"), "admin")
	for _, c := range []struct {
		name string
		ps   []*permission
		want string // "allow" or "deny", by whom; + when shadowed
	}{
		{"none", nil, "deny "},
		{"allowed", []*permission{permit(t, meta("a"), mesh, list{"allow": {exact}})}, "allow a 0"},
		{"prefix", []*permission{permit(t, meta("a"), mesh, list{"allow": {prefix}})}, "allow a 0"},
		{"server name", []*permission{permit(t, meta("a"), mesh, list{"allow": {sni}})}, "allow a 0"},
		{"everyone", []*permission{permit(t, meta("a"), mesh, list{"allow": {{}}})}, "allow a 0"},
		{"both must hold", []*permission{permit(t, meta("a"), mesh, list{"allow": {both}})}, "deny "},
		{"someone else", []*permission{permit(t, meta("a"), mesh, list{"allow": {spiffe("Exact", "spiffe://east/ns/shop")}})}, "deny "},
		{"second rule", []*permission{permit(t, meta("a"), mesh, list{"allow": {both}}, list{"allow": {exact}})}, "allow a 1"},
		{"deny beats allow", []*permission{permit(t, meta("a"), mesh, list{"allow": {exact}, "deny": {prefix}})}, "deny a 0"},
		{"however much more the allow weighs", []*permission{
			permit(t, meta("a"), section(ref("Dataplane"), "http"), list{"allow": {exact}}),
			permit(t, meta("z"), mesh, list{"deny": {{}}}),
		}, "deny z 0"},
		{"other section", []*permission{permit(t, meta("a"), mesh, list{"allow": {exact}}), permit(t, meta("b"), admin, list{"deny": {exact}})}, "allow a 0"},
		{"shadow deny lets in", []*permission{permit(t, meta("a"), mesh, list{"allowWithShadowDeny": {exact}})}, "allow a 0 +"},
		{"shadow deny beside allow", []*permission{permit(t, meta("a"), mesh, list{"allow": {prefix}}), permit(t, meta("b"), mesh, list{"allowWithShadowDeny": {exact}})}, "allow a 0 +"},
		{"the narrowest is named", []*permission{permit(t, meta("a"), mesh, list{"allow": {prefix}}), permit(t, meta("b"), mesh, list{"allow": {exact}})}, "allow b 0"},
		{"then the most important", []*permission{permit(t, meta("a"), mesh, list{"allow": {exact}}), permit(t, meta("b"), mesh, list{"allow": {exact}})}, "allow a 0"},
	} {
		v := decide(c.ps, "http", web)
		got := map[bool]string{true: "allow ", false: "deny "}[v.Allowed]
		if v.By != nil {
			got += fmt.Sprint(v.By.Policy.Name, " ", v.By.Index)
		}
		if v.Shadow {
			got += " +"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDenyBeatsAllow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := map[api.ID]bool{}
		ps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *permission {
			m := drawMeta(t, "MeshTrafficPermission", used)
			delete(m.Labels, api.LabelEffect)
			m.Labels[api.LabelOrigin], m.Labels[api.LabelPolicyRole] = "global", "system"
			r := list{}
			for _, name := range []string{"deny", "allow", "allowWithShadowDeny"} {
				r[name] = drawMatches(t)
			}
			return permit(t, m, ref("Mesh"), r)
		}), 0, 4).Draw(t, "permissions")
		peer := policy.Peer{SpiffeID: rapid.SampledFrom(spiffeIDs).Draw(t, "peer"), SNI: rapid.SampledFrom(snis).Draw(t, "sni")}

		denied, allowed := false, false
		for _, p := range ps {
			for _, r := range p.Spec.Rules {
				denied = denied || slices.ContainsFunc(r.Default.Deny, func(m api.Match) bool { return holds(m, peer) })
				allowed = allowed || slices.ContainsFunc(slices.Concat(r.Default.Allow, r.Default.AllowWithShadowDeny), func(m api.Match) bool { return holds(m, peer) })
			}
		}
		v := decide(ps, "http", peer)
		if v.Allowed != (allowed && !denied) {
			t.Fatalf("%v lets in: %v; some deny matches: %v, some allow matches: %v", peer, v.Allowed, denied, allowed)
		}
		if (v.By != nil) != (allowed || denied) || v.By != nil && !holds(v.By.Match, peer) {
			t.Fatalf("named is %v", v.By)
		}
		other := slices.Clone(ps)
		slices.Reverse(other)
		if w := decide(other, "http", peer); asJSON(v) != asJSON(w) {
			t.Fatalf("arrival order is seen: %s, %s", asJSON(v), asJSON(w))
		}
	})
}

func holds(m api.Match, p policy.Peer) bool {
	ok := true
	if s := m.SpiffeID; s != nil && s.Type == "Exact" {
		ok = s.Value == p.SpiffeID
	} else if s != nil {
		ok = strings.Index(p.SpiffeID, s.Value) == 0
	}
	return ok && (m.SNI == nil || m.SNI.Value == p.SNI)
}
