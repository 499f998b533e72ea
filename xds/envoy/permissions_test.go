package envoy_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	setfilterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// asking is a call, as far as permissions see it.
type asking struct{ id, sni, method, path, header string }

// drawPermission draws one of few, so that permissions and calls often meet.
func drawPermission(t *rapid.T) ir.Permission {
	p := ir.Permission{Policy: rapid.StringMatching("p[0-9]").Draw(t, "policy")}
	switch rapid.IntRange(0, 4).Draw(t, "by") {
	case 0, 1:
		p.Peer.SpiffeID = rapid.SampledFrom(ids).Draw(t, "id")
	case 2, 3:
		p.Peer.SpiffeIDPrefix = rapid.SampledFrom([]string{"spiffe://a/", "spiffe://a/x"}).Draw(t, "prefix")
	}
	p.Peer.SNI = rapid.SampledFrom(snis).Draw(t, "sni")
	if rapid.Bool().Draw(t, "by request") {
		p.Request.Method = rapid.SampledFrom([]string{"", "GET", "POST"}).Draw(t, "method")
		p.Request.Path = rapid.SampledFrom(append(slices.Collect(maps.Keys(paths)), ir.PathMatch{})).Draw(t, "path")
		if h := rapid.SampledFrom(append(slices.Collect(maps.Keys(headers)), ir.HeaderMatch{})).Draw(t, "header"); h.Match != "" {
			p.Request.Headers = []ir.HeaderMatch{{Name: "h", Match: h.Match, Value: h.Value}}
		}
	}
	return p
}

// What conditions mean to who lets in, and to who denies more than that.
type meaning struct{ lets, denies []string }

var (
	ids     = []string{"spiffe://a/x", "spiffe://a/xy", "spiffe://b/x"}
	snis    = []string{"", "one", "two"}
	methods = map[string]meaning{"GET": {[]string{"GET"}, []string{"HEAD"}}, "POST": {[]string{"POST"}, []string{"post"}}}
	paths   = map[ir.PathMatch]meaning{
		{Match: ir.Exact, Value: "/a"}:   {[]string{"/a"}, []string{"/A", "/a/", "/a;x"}},
		{Match: ir.Exact, Value: "/a:"}:  {[]string{"/a:", "/a%3a"}, nil},
		{Match: ir.Prefix, Value: "/a"}:  {[]string{"/a", "/a/", "/a/b"}, []string{"/A", "/a;x"}},
		{Match: ir.Prefix, Value: "/"}:   {[]string{"/", "/a", "/a:", "/a%3a", "/a/", "/a/b", "/A", "/a;x"}, []string{"*"}},
		{Match: ir.Regex, Value: "/a.?"}: {[]string{"/a", "/a:", "/a/"}, nil},
	}
	headers = map[ir.HeaderMatch]meaning{
		{Match: ir.Exact, Value: "v"}:    {[]string{"v"}, []string{"u,v", "V"}},
		{Match: ir.Prefix, Value: "v"}:   {[]string{"v", "vw"}, []string{"u,v", "V"}},
		{Match: ir.Regex, Value: ".v|."}: {[]string{"v", "V"}, nil},
		{Match: ir.Present}:              {[]string{"v", "vw", "u,v", "V"}, nil},
		{Match: ir.Absent}:               {[]string{""}, nil},
	}
)

func (m meaning) holds(of string, denial bool) bool {
	return slices.Contains(m.lets, of) || denial && slices.Contains(m.denies, of)
}

// holds is the definition of a permission; at TCP a call has no method.
func holds(p ir.Permission, c asking, denial bool) bool {
	m := p.Peer
	if m.SpiffeID != "" && m.SpiffeID != c.id || !strings.HasPrefix(c.id, m.SpiffeIDPrefix) || m.SNI != "" && m.SNI != c.sni {
		return false
	}
	if c.method == "" {
		return denial || p.Request.IsZero()
	}
	ok := p.Request.Method == "" || methods[p.Request.Method].holds(c.method, denial)
	ok = ok && (p.Request.Path == ir.PathMatch{} || paths[p.Request.Path].holds(c.path, denial))
	for _, h := range p.Request.Headers {
		ok = ok && headers[ir.HeaderMatch{Match: h.Match, Value: h.Value}].holds(c.header, denial)
	}
	return ok
}

// TestDecision: whatever the permissions, Envoy's list decides as their definition says, names a policy that says so, and
// its shadow decides as if every AllowShadowDeny were a Deny. What is noted after the handshake says the same.
func TestDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, regex bool) []ir.Permission {
			return rapid.SliceOfN(rapid.Custom(drawPermission).Filter(func(p ir.Permission) bool {
				return regex || p.Request.Path.Match != ir.Regex && !slices.ContainsFunc(p.Request.Headers, func(h ir.HeaderMatch) bool { return h.Match == ir.Regex })
			}), 0, 3).Draw(t, name)
		}
		p := ir.Permissions{Deny: draw("deny", false), Allow: draw("allow", true), AllowShadowDeny: draw("allowShadowDeny", false)}
		l, err := envoy.Listener(ir.Listener{Name: "l", Address: ir.Address{Host: "127.0.0.1"}, Chains: []ir.Chain{
			{Permissions: &p, TCP: &ir.TCP{Backends: []ir.Backend{{Cluster: "c"}}}},
			{Permissions: &p, HTTP: &ir.HTTP{RouteName: "r"}, Match: ir.ChainMatch{SNI: []string{"http"}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var notes setfilterstatev3.Config
		unpack(l.FilterChains[0].Filters[0].GetTypedConfig(), &notes)
		var filter networkrbacv3.RBAC
		unpack(l.FilterChains[0].Filters[1].GetTypedConfig(), &filter)
		var manager hcmv3.HttpConnectionManager
		unpack(l.FilterChains[1].Filters[0].GetTypedConfig(), &manager)
		i := slices.IndexFunc(manager.HttpFilters, func(f *hcmv3.HttpFilter) bool { return f.Name == "envoy.filters.http.rbac" })
		var requests httprbacv3.RBAC
		unpack(manager.HttpFilters[i].GetTypedConfig(), &requests)

		soft := slices.Concat(p.Allow, p.AllowShadowDeny)
		hard := slices.Concat(p.Deny, p.AllowShadowDeny)
		check := func(m, shadow *xdsmatcherv3.Matcher, c asking) {
			compare(t, m, c, p.Deny, soft)
			if len(p.AllowShadowDeny) > 0 {
				compare(t, shadow, c, hard, p.Allow)
			} else if shadow != nil {
				t.Fatal("a shadow of nothing")
			}
		}
		for _, id := range ids {
			for _, sni := range snis {
				c := asking{id: id, sni: sni}
				check(filter.Matcher, filter.ShadowMatcher, c)
				want, first := "c", decide(filter.Matcher, c)
				if first.Action == rbacv3.RBAC_DENY {
					want = "rbac_access_denied_matched_policy[" + first.Name + "]"
				}
				if got := noted(t, notes.OnDownstreamTlsHandshake, id, sni); got != want {
					t.Fatalf("%s asking for %q is sent to %s, and the filter decides for %s", id, sni, got, want)
				}
				c.method = rapid.SampledFrom([]string{"GET", "HEAD", "POST", "post", "PUT"}).Draw(t, "method")
				c.path = rapid.SampledFrom([]string{"/", "/a", "/a:", "/a%3a", "/a/", "/a/b", "/A", "/a;x", "*"}).Draw(t, "path")
				c.header = rapid.SampledFrom([]string{"", "v", "vw", "u,v", "V"}).Draw(t, "header")
				check(requests.Matcher, requests.ShadowMatcher, c)
			}
		}
	})
}

func compare(t *rapid.T, m *xdsmatcherv3.Matcher, c asking, deny, allow []ir.Permission) {
	t.Helper()
	names := func(all []ir.Permission, denial bool) (out []string) {
		for _, p := range all {
			if holds(p, c, denial) {
				out = append(out, p.Policy)
			}
		}
		return out
	}
	want, by := rbacv3.RBAC_DENY, names(deny, true)
	if len(by) == 0 {
		want, by = rbacv3.RBAC_ALLOW, names(allow, false)
	}
	if len(by) == 0 {
		want, by = rbacv3.RBAC_DENY, []string{ir.DefaultPermission}
	}
	if got := decide(m, c); got.Action != want || !slices.Contains(by, got.Name) {
		t.Fatalf("%v: %v by %s, want %v by one of %v", c, got.Action, got.Name, want, by)
	}
}

// decide does what Envoy does with a matcher list.
func decide(m *xdsmatcherv3.Matcher, c asking) *rbacv3.Action {
	verdict := m.OnNoMatch
	for _, f := range m.GetMatcherList().GetMatchers() {
		if predicate(f.Predicate, c) {
			verdict = f.OnMatch
			break
		}
	}
	var action rbacv3.Action
	unpack(verdict.GetAction().TypedConfig, &action)
	return &action
}

var (
	choice    = regexp.MustCompile(`^%CEL\((?:(.*) \? )?'([^']*)'(?: : '')?\)%$`)
	condition = regexp.MustCompile(`^has\(connection\.(\w+)\) && connection\.(\w+)( == |\.startsWith\()'([^']*)'\)?$`)
)

// noted does what Envoy does with the notes, as far as they have the shape that is expected here.
func noted(t *rapid.T, notes []*statev3.FilterStateValue, id, sni string) (cluster string) {
	t.Helper()
	for _, note := range notes {
		parts := choice.FindStringSubmatch(note.GetFormatString().GetTextFormatSource().GetInlineString())
		if note.GetObjectKey() != "envoy.tcp_proxy.cluster" || !note.SkipIfEmpty || parts == nil {
			t.Fatalf("unexpected note %v", note)
		}
		all := true
		for one := range strings.SplitSeq(strings.ReplaceAll(parts[1], " && has", "\nhas"), "\n") {
			if one == "" {
				continue
			}
			c := condition.FindStringSubmatch(one)
			if c == nil || c[1] != c[2] {
				t.Fatalf("unexpected condition %s", one)
			}
			value := map[string]string{"uri_san_peer_certificate": id, "requested_server_name": sni}[c[1]]
			if c[3] == " == " {
				all = all && value == c[4]
			} else {
				all = all && strings.HasPrefix(value, c[4])
			}
		}
		if all {
			cluster = parts[2]
		}
	}
	return cluster
}

func predicate(p *xdsmatcherv3.Matcher_MatcherList_Predicate, c asking) bool {
	if all := p.GetAndMatcher(); all != nil {
		return !slices.ContainsFunc(all.Predicate, func(p *xdsmatcherv3.Matcher_MatcherList_Predicate) bool { return !predicate(p, c) })
	}
	if not := p.GetNotMatcher(); not != nil {
		return !predicate(not, c)
	}
	one := p.GetSinglePredicate()
	value, there := c.id, true
	switch one.Input.Name {
	case "envoy.matching.inputs.server_name":
		value = c.sni
	case "envoy.matching.inputs.filter_state":
		value = c.path
	case "envoy.matching.inputs.request_headers":
		var header matcherv3.HttpRequestHeaderMatchInput
		unpack(one.Input.TypedConfig, &header)
		if value = c.method; header.HeaderName == "h" {
			value, there = c.header, c.header != ""
		}
	}
	switch m := one.GetValueMatch(); {
	case m.GetPrefix() != "":
		return there && strings.HasPrefix(value, m.GetPrefix())
	case m.GetSafeRegex() != nil:
		return there && regexp.MustCompile("^(?:"+strings.ReplaceAll(m.GetSafeRegex().Regex, `\C`, "(?s:.)")+")$").MatchString(value)
	default:
		return there && value == m.GetExact()
	}
}

func unpack(packed *anypb.Any, m proto.Message) {
	if err := packed.UnmarshalTo(m); err != nil {
		panic(err)
	}
}
