package envoy

import (
	"iter"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	actionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

type predicate = xdsmatcherv3.Matcher_MatcherList_Predicate

// callersOf yields all that tells callers apart in HTTP filters of c.
func callersOf(c ir.Chain) iter.Seq[ir.Callers] {
	return func(yield func(ir.Callers) bool) {
		if c.HTTP == nil {
			return
		}
		for _, l := range c.HTTP.Limits {
			if !yield(l.Callers) {
				return
			}
		}
		for _, f := range c.HTTP.Faults {
			if !yield(f.Callers) {
				return
			}
		}
	}
}

// forCallers is a filter of the name, of the extension, that others than the callers pass by.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/common/matching/v3/extension_matcher.proto
func (w *work) forCallers(callers ir.Callers, name, extension string, config message) *hcmv3.HttpFilter {
	if len(callers) == 0 {
		return w.httpFilter(name, config)
	}
	var any []*predicate
	for _, c := range callers {
		var all []*predicate
		if !c.Peer.IsZero() {
			all = append(all, w.peerPredicate(name, c.Peer))
		}
		for _, p := range c.Except {
			all = append(all, notHolds(w.peerPredicate(name, p)))
		}
		if len(all) == 0 {
			w.fail("%s: everybody is no caller among others", name)
			continue
		}
		any = append(any, allHold(all))
	}
	return w.httpFilter(name, &matchingv3.ExtensionWithMatcher{
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: extension, TypedConfig: w.pack(config)},
		XdsMatcher: &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
			Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: notHolds(oneHolds(any)),
				OnMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
					Name: "skip", TypedConfig: w.pack(&actionv3.SkipFilter{}),
				}}},
			}},
		}}},
	})
}

func allHold(all []*predicate) *predicate {
	if len(all) == 1 {
		return all[0]
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher{
		AndMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: all},
	}}
}

func oneHolds(any []*predicate) *predicate {
	if len(any) == 1 {
		return any[0]
	}
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: any},
	}}
}

func notHolds(p *predicate) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: p}}
}
