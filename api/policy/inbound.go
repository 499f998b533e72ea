package policy

import (
	"cmp"
	"slices"

	"github.com/atoll-mesh/atoll/api"
)

// Inbound is one element of a policy's rules list. The element types of package
// api have the same fields and convert.
type Inbound[C any] struct {
	Matches []api.Match // any of them; none: every caller
	Default C
}

// InboundRule is a conf for callers that match.
type InboundRule[C any] struct {
	Step[C]
	// Match is the one condition of this rule; the zero value is every caller.
	Match api.Match
}

// InboundRules returns the rules of one inbound or listener, one for each
// match: exact SPIFFE IDs first, then prefixes, then none; of these those with a
// server name first; the rest as the policies are ordered, ascending. They are
// not merged with each other; see [CatchAll].
func InboundRules[S, C any](selected []Selected[S], section string, rules func(*S) []Inbound[C]) []InboundRule[C] {
	var out []InboundRule[C]
	for _, s := range selected {
		if !s.Selects(section) {
			continue
		}
		for i, r := range rules(&s.Policy.Spec) {
			step := Step[C]{Source{&s.Policy.Meta, i}, r.Default}
			for _, m := range r.Matches {
				out = append(out, InboundRule[C]{step, m})
			}
			if len(r.Matches) == 0 {
				out = append(out, InboundRule[C]{Step: step})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b InboundRule[C]) int { return cmp.Compare(vagueness(a.Match), vagueness(b.Match)) })
	return out
}

// CatchAll merges the rules for every caller, for what cannot depend on the
// caller; ok is false when there are none.
func CatchAll[C any](rules []InboundRule[C]) (rule Rule[C], ok bool) {
	var steps []Step[C]
	for _, r := range rules {
		if everyone(r.Match) {
			steps = append(steps, r.Step)
		}
	}
	return NewRule(steps), len(steps) > 0
}

func everyone(m api.Match) bool { return m.SpiffeID == nil && m.SNI == nil && m.Caller == nil }

func vagueness(m api.Match) int {
	v := 4
	switch {
	case m.SpiffeID == nil:
	case m.SpiffeID.Type == "Prefix":
		v = 2
	default:
		v = 0
	}
	if m.SNI == nil {
		v++
	}
	return v
}

// Permission is one condition on calls and the policy that set it.
type Permission struct {
	Source
	Match api.PermissionMatch
}

// vagueness orders permissions of the same caller by whether they look at the
// request.
func (p Permission) vagueness() int {
	if p.Match.ByRequest() {
		return 2 * vagueness(p.Match.Peer())
	}
	return 2*vagueness(p.Match.Peer()) + 1
}

// Permissions decide what calls an inbound or listener takes: a match in Deny
// refuses; else one in Allow or AllowWithShadowDeny lets in; else the caller is
// refused. All lists are ordered with the narrowest match first and then the
// most important policy first, which only decides who is named. The zero value
// refuses everybody.
type Permissions struct {
	Deny, Allow, AllowWithShadowDeny []Permission
}

// Callers returns the SPIFFE IDs of the proxies that carry the tags: those by
// which only such proxies call, and those that others share. Of what is not
// known well enough, what only may carry the tags counts as shared.
type Callers func(tags map[string]string) (own, shared []string)

// PermissionsFor collects the permissions of one inbound or listener. Those in
// the older form, which name callers by tags, become exact SPIFFE IDs: an ID that
// others share is refused where one of them is, and let in only where all are.
//
// Of two older permissions that speak of one caller the more important decides,
// as it did when they were written, and an older Deny of everybody stands for
// what less important policies let in, older or not. Otherwise a Deny goes
// before what others say.
func PermissionsFor(selected []Selected[api.MeshTrafficPermission], section string, callers Callers) Permissions {
	var p Permissions
	closed := false // nobody whom the policies that follow let in may pass
	open := false   // an older permission lets in everybody: those that follow say nothing new
	decided := map[string]bool{}
	older := func(list *[]Permission, from Source, c *api.Caller) {
		if open || closed {
			return
		}
		if len(c.Tags) == 0 {
			if list == &p.Deny {
				closed = true
			} else {
				open = true
				*list = append(*list, Permission{Source: from})
			}
			return
		}
		own, shared := callers(c.Tags)
		if list == &p.Deny {
			own = slices.Concat(own, shared)
		}
		for _, id := range own {
			if !decided[id] {
				decided[id] = true
				*list = append(*list, Permission{from, api.PermissionMatch{SpiffeID: &api.SpiffeIDMatch{Type: "Exact", Value: id}}})
			}
		}
	}
	for _, s := range slices.Backward(selected) {
		if !s.Selects(section) {
			continue
		}
		lists := func(i int, take func(list *[]Permission, from Source, m api.PermissionMatch)) {
			conf, from := s.Policy.Spec.Rules[i].Default, Source{&s.Policy.Meta, i}
			for _, m := range conf.Deny {
				take(&p.Deny, from, m)
			}
			for _, m := range conf.Allow {
				take(&p.Allow, from, m)
			}
			for _, m := range conf.AllowWithShadowDeny {
				take(&p.AllowWithShadowDeny, from, m)
			}
		}
		for i := range slices.Backward(s.Policy.Spec.Rules) { // in the older form the later wins
			lists(i, func(list *[]Permission, from Source, m api.PermissionMatch) {
				if m.Caller != nil {
					older(list, from, m.Caller)
				}
			})
		}
		for i := range s.Policy.Spec.Rules {
			lists(i, func(list *[]Permission, from Source, m api.PermissionMatch) {
				if m.Caller == nil && (list == &p.Deny || !closed) {
					*list = append(*list, Permission{from, m})
				}
			})
		}
	}
	for _, list := range [][]Permission{p.Deny, p.Allow, p.AllowWithShadowDeny} {
		slices.SortStableFunc(list, func(a, b Permission) int { return cmp.Compare(a.vagueness(), b.vagueness()) })
	}
	return p
}
