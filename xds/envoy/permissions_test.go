package envoy_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	setfilterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// TestDecision: whatever the permissions, Envoy's list decides as their definition says, names a policy that says so, and
// its shadow decides as if every AllowShadowDeny were a Deny. What is noted after the handshake says the same.
func TestDecision(t *testing.T) {
	ids := []string{"spiffe://a/x", "spiffe://a/xy", "spiffe://b/x"}
	snis := []string{"", "one", "two"}
	rapid.Check(t, func(t *rapid.T) {
		permissions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ir.Permission {
			var m ir.PeerMatch
			switch rapid.IntRange(0, 4).Draw(t, "by") {
			case 0, 1:
				m.SpiffeID = rapid.SampledFrom(ids).Draw(t, "id")
			case 2, 3:
				m.SpiffeIDPrefix = rapid.SampledFrom([]string{"spiffe://a/", "spiffe://a/x"}).Draw(t, "prefix")
			}
			m.SNI = rapid.SampledFrom(snis).Draw(t, "sni")
			return ir.Permission{Policy: rapid.StringMatching("p[0-9]").Draw(t, "policy"), Peer: m}
		}), 0, 3)
		p := ir.Permissions{
			Deny:            permissions.Draw(t, "deny"),
			Allow:           permissions.Draw(t, "allow"),
			AllowShadowDeny: permissions.Draw(t, "allowShadowDeny"),
		}
		l, err := envoy.Listener(ir.Listener{Name: "l", Address: ir.Address{Host: "127.0.0.1"}, Chains: []ir.Chain{{
			Permissions: &p, TCP: &ir.TCP{Backends: []ir.Backend{{Cluster: "c"}}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		var notes setfilterstatev3.Config
		unpack(l.FilterChains[0].Filters[0].GetTypedConfig(), &notes)
		var filter networkrbacv3.RBAC
		unpack(l.FilterChains[0].Filters[1].GetTypedConfig(), &filter)

		soft := slices.Concat(p.Allow, p.AllowShadowDeny)
		hard := slices.Concat(p.Deny, p.AllowShadowDeny)
		for _, id := range ids {
			for _, sni := range snis {
				compare(t, filter.Matcher, id, sni, p.Deny, soft)
				want, first := "c", decide(filter.Matcher, id, sni)
				if first.Action == rbacv3.RBAC_DENY {
					want = "rbac_access_denied_matched_policy[" + first.Name + "]"
				}
				if got := noted(t, notes.OnDownstreamTlsHandshake, id, sni); got != want {
					t.Fatalf("%s asking for %q is sent to %s, and the filter decides for %s", id, sni, got, want)
				}
				if len(p.AllowShadowDeny) > 0 {
					compare(t, filter.ShadowMatcher, id, sni, hard, p.Allow)
				} else if filter.ShadowMatcher != nil {
					t.Fatal("a shadow of nothing")
				}
			}
		}
	})
}

func compare(t *rapid.T, m *xdsmatcherv3.Matcher, id, sni string, deny, allow []ir.Permission) {
	t.Helper()
	names := func(all []ir.Permission) (out []string) {
		for _, p := range all {
			if holds(p.Peer, id, sni) {
				out = append(out, p.Policy)
			}
		}
		return out
	}
	want, by := rbacv3.RBAC_DENY, names(deny)
	if len(by) == 0 {
		want, by = rbacv3.RBAC_ALLOW, names(allow)
	}
	if len(by) == 0 {
		want, by = rbacv3.RBAC_DENY, []string{ir.DefaultPermission}
	}
	if got := decide(m, id, sni); got.Action != want || !slices.Contains(by, got.Name) {
		t.Fatalf("%s asking for %q: %v by %s, want %v by one of %v", id, sni, got.Action, got.Name, want, by)
	}
}

func holds(m ir.PeerMatch, id, sni string) bool {
	return (m.SpiffeID == "" || m.SpiffeID == id) && strings.HasPrefix(id, m.SpiffeIDPrefix) && (m.SNI == "" || m.SNI == sni)
}

// decide does what Envoy does with a matcher list.
func decide(m *xdsmatcherv3.Matcher, id, sni string) *rbacv3.Action {
	verdict := m.OnNoMatch
	for _, f := range m.GetMatcherList().GetMatchers() {
		if predicate(f.Predicate, id, sni) {
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

func predicate(p *xdsmatcherv3.Matcher_MatcherList_Predicate, id, sni string) bool {
	if all := p.GetAndMatcher(); all != nil {
		return !slices.ContainsFunc(all.Predicate, func(p *xdsmatcherv3.Matcher_MatcherList_Predicate) bool { return !predicate(p, id, sni) })
	}
	one := p.GetSinglePredicate()
	value := id
	if one.Input.Name == "envoy.matching.inputs.server_name" {
		value = sni
	}
	if prefix := one.GetValueMatch().GetPrefix(); prefix != "" {
		return strings.HasPrefix(value, prefix)
	}
	return value == one.GetValueMatch().GetExact()
}

func unpack(packed *anypb.Any, m proto.Message) {
	if err := packed.UnmarshalTo(m); err != nil {
		panic(err)
	}
}
