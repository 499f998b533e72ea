package policy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"pgregory.net/rapid"
)

type permission = api.Object[api.MeshTrafficPermission]

// list is a rule as written: lists of matches by name.
type list = map[string][]api.PermissionMatch

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

// peer is who calls over mutual TLS.
type peer struct{ spiffeID, sni string }

// request is what is asked where HTTP is spoken.
type request struct{ method, path, header string }

type verdict struct {
	allowed bool
	by      *policy.Permission // nil: nobody spoke of the call
	shadow  bool               // let in, and counted as refused
}

func decide(ps []*permission, section string, p peer, q request) verdict {
	set := policy.NewSet(ps, func(s *api.MeshTrafficPermission) *api.TargetRef { return s.TargetRef }, false)
	selected := set.Select(policy.Proxy{Mesh: "default", Sections: []string{"http", "admin"}})
	return decideBy(policy.PermissionsFor(selected, section, nil), p, q)
}

// decideBy does what a proxy does with its permissions.
func decideBy(all policy.Permissions, p peer, q request) verdict {
	first := func(list []policy.Permission) *policy.Permission {
		i := slices.IndexFunc(list, func(one policy.Permission) bool { return holds(one.Match, p, q) })
		if i < 0 {
			return nil
		}
		return &list[i]
	}
	if by := first(all.Deny); by != nil {
		return verdict{by: by}
	}
	by, shadow := first(all.Allow), first(all.AllowWithShadowDeny)
	if by == nil {
		by = shadow
	}
	return verdict{by != nil, by, shadow != nil}
}

func spiffe(typ, value string) api.PermissionMatch {
	return api.PermissionMatch{SpiffeID: &api.SpiffeIDMatch{Type: typ, Value: value}}
}

func TestPermissions(t *testing.T) {
	meta := func(name string) api.Meta {
		return api.Meta{ID: api.ID{Kind: "MeshTrafficPermission", Mesh: "default", Name: name}}
	}
	web := peer{"spiffe://east/ns/shop/sa/web", "api.shop"}
	exact, prefix := spiffe("Exact", web.spiffeID), spiffe("Prefix", "spiffe://east/ns/shop")
	sni := api.PermissionMatch{SNI: &api.SNIMatch{Type: "Exact", Value: "api.shop"}}
	both := api.PermissionMatch{SpiffeID: exact.SpiffeID, SNI: &api.SNIMatch{Type: "Exact", Value: "other"}}
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
		v := decide(c.ps, "http", web, request{})
		got := map[bool]string{true: "allow ", false: "deny "}[v.allowed]
		if v.by != nil {
			got += fmt.Sprint(v.by.Policy.Name, " ", v.by.Index)
		}
		if v.shadow {
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
				r[name] = drawPermissionMatches(t)
			}
			return permit(t, m, ref("Mesh"), r)
		}), 0, 4).Draw(t, "permissions")
		caller := peer{rapid.SampledFrom(spiffeIDs).Draw(t, "peer"), rapid.SampledFrom(snis).Draw(t, "sni")}
		asked := request{rapid.SampledFrom(methods).Draw(t, "method"), rapid.SampledFrom(paths).Draw(t, "path"), rapid.SampledFrom(headerValues).Draw(t, "header")}
		speaks := func(m api.PermissionMatch) bool { return holds(m, caller, asked) }
		denied, allowed := false, false
		for _, p := range ps {
			for _, r := range p.Spec.Rules {
				denied = denied || slices.ContainsFunc(r.Default.Deny, speaks)
				allowed = allowed || slices.ContainsFunc(slices.Concat(r.Default.Allow, r.Default.AllowWithShadowDeny), speaks)
			}
		}
		v := decide(ps, "http", caller, asked)
		if v.allowed != (allowed && !denied) {
			t.Fatalf("%v lets in: %v; some deny matches: %v, some allow matches: %v", caller, v.allowed, denied, allowed)
		}
		if (v.by != nil) != (allowed || denied) || v.by != nil && !speaks(v.by.Match) {
			t.Fatalf("named is %v", v.by)
		}
		other := slices.Clone(ps)
		slices.Reverse(other)
		if w := decide(other, "http", caller, asked); v.allowed != w.allowed || v.shadow != w.shadow || asJSON(v.by) != asJSON(w.by) {
			t.Fatalf("arrival order is seen: %v, %v", v, w)
		}
	})
}

func holds(m api.PermissionMatch, p peer, q request) bool {
	ok := true
	if s := m.SpiffeID; s != nil && s.Type == "Exact" {
		ok = s.Value == p.spiffeID
	} else if s != nil {
		ok = strings.Index(p.spiffeID, s.Value) == 0
	}
	ok = ok && (m.SNI == nil || m.SNI.Value == p.sni) && (m.Method == "" || m.Method == q.method)
	if m.Path != nil {
		ok = ok && slices.Contains(pathsOf[m.Path.Type+" "+m.Path.Value], q.path)
	}
	for _, h := range m.Headers {
		ok = ok && slices.Contains(valuesOf[h.Type+" "+h.Value], q.header)
	}
	return ok
}

var (
	methods      = []string{"GET", "POST"}
	paths        = []string{"/", "/a", "/a/b", "/ab", "/a:b"}
	headerValues = []string{"", "one", "onetwo"} // "": there is none

	// What conditions mean, written out.
	pathsOf = map[string][]string{
		"Exact /a": {"/a"}, "Exact /a:b": {"/a:b"}, "PathPrefix /": paths, "PathPrefix /a": {"/a", "/a/b"}, "RegularExpression /a.": {"/ab"},
	}
	valuesOf = map[string][]string{
		"Exact one": {"one"}, "Prefix one": {"one", "onetwo"}, "RegularExpression o|one.+": {"onetwo"}, "Present ": {"one", "onetwo"}, "Absent ": {""},
	}
)

func drawPermissionMatches(t *rapid.T) []api.PermissionMatch {
	either := func(from map[string][]string, name string) (typ, value string) {
		typ, value, _ = strings.Cut(rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, name), " ")
		return typ, value
	}
	var out []api.PermissionMatch
	for _, peer := range drawMatches(t) {
		m := api.PermissionMatch{SpiffeID: peer.SpiffeID, SNI: peer.SNI, Method: rapid.SampledFrom([]string{"", "GET", "POST"}).Draw(t, "by method")}
		if rapid.Bool().Draw(t, "by path") {
			m.Path = new(api.PathMatch)
			m.Path.Type, m.Path.Value = either(pathsOf, "path is")
		}
		if rapid.IntRange(0, 2).Draw(t, "by header") == 0 {
			h := api.HeaderMatch{Name: "x-a"}
			h.Type, h.Value = either(valuesOf, "header is")
			m.Headers = []api.HeaderMatch{h}
		}
		out = append(out, m)
	}
	return out
}
