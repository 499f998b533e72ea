package plan

import (
	"encoding/json"
	"reflect"
	"slices"
	"unique"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// A kind of policies enters the plan by a [policySet] and one or two views of it,
// each with a function from its conf to what that means here:
//
//	policySet ─┬▶ toPolicy    what proxies call   ─▶ a field of calls   ─▶ clusters, routes, outbound listeners
//	           ├▶ inPolicy    who calls a section ─▶ inbound listeners and their clusters
//	           └▶ ownPolicy   the proxy as such
//
// Its labels join [clientKeys], [serverKeys] or [ownKeys], and provenance comes by
// itself: a merged rule knows its steps.

// policySet is the policies of a kind in a mesh, in their order.
type policySet[S any] struct {
	*incr.Query[string, *policy.Set[S]]
}

func newPolicySet[S any](name string, kind *api.Kind[S], target func(*S) *api.TargetRef) policySet[S] {
	return policySet[S]{incr.NewQuery(name, func(r *incr.Run, mesh string) *policy.Set[S] {
		return policy.NewSet(slices.Collect(kind.In(r, mesh)), target, false)
	}, (*policy.Set[S]).Equal)}
}

func (s policySet[S]) keys(r *incr.Run, mesh string) []string { return s.Get(r, mesh).Keys() }

// selected is the policies that a class gets.
func (s policySet[S]) selected(r *incr.Run, c policy.Class) []policy.Selected[S] {
	p := c.Proxy()
	return s.Get(r, p.Mesh).Select(p)
}

// labelKeys are the labels by which policies select: others make no difference,
// so that proxies which differ only there (each has a name of its own) are one
// class.
func labelKeys(name string, of ...func(*incr.Run, string) []string) *incr.Query[string, []string] {
	return incr.NewQuery(name, func(r *incr.Run, mesh string) []string {
		var all []string
		for _, keys := range of {
			all = append(all, keys(r, mesh)...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}, slices.Equal[[]string])
}

// toRule is the merge of what policies of a kind say to a destination, and what
// that means.
type toRule[C, V any] struct {
	policy.Rule[C]
	meaning V
}

// toPolicy is what policies of a kind say to what a class calls, by destination.
// A merge is read once, when something looks it up. It is no query per
// destination: [callsTo] is that for all kinds.
type toPolicy[C, V any] struct {
	rules *incr.Query[policy.Class, *policy.ToRules[toRule[C, V]]]
}

func newToPolicy[S, C, V any](name string, set policySet[S], to func(*S) []policy.To[C], mean func(C) V) toPolicy[C, V] {
	merge := func(steps []policy.Step[C]) toRule[C, V] {
		rule := policy.NewRule(steps)
		return toRule[C, V]{rule, mean(rule.Conf)}
	}
	return toPolicy[C, V]{incr.NewQuery(name, func(r *incr.Run, c policy.Class) *policy.ToRules[toRule[C, V]] {
		return policy.NewToRules(set.selected(r, c), to, resolver(r, c.Proxy().Mesh), merge)
	}, (*policy.ToRules[toRule[C, V]]).Equal)}
}

// at is what is said to the first of the destinations that anything is said to;
// the zero value if nothing is.
func (p toPolicy[C, V]) at(r *incr.Run, c policy.Class, to ...policy.Destination) V {
	rule, _, _ := p.rules.Get(r, c).Lookup(to...)
	return rule.meaning
}

// why tells of each field of what is said to a destination who said it.
func (p toPolicy[C, V]) why(r *incr.Run, c policy.Class, to policy.Destination) []policy.Field {
	rule, _, ok := p.rules.Get(r, c).Lookup(to)
	if !ok {
		return nil
	}
	return rule.Explain()
}

// inPolicy is what policies of a kind say of those who call a section of a proxy.
type inPolicy[C, V any] struct{ *incr.Query[sectionKey, V] }

func newInPolicy[S, C, V any](name string, set policySet[S], rules func(*S) []policy.Inbound[C], mean func([]policy.InboundRule[C]) V) inPolicy[C, V] {
	return inPolicy[C, V]{incr.NewQuery(name, func(r *incr.Run, k sectionKey) V {
		return mean(policy.InboundRules(set.selected(r, k.Class), k.Section, rules))
	}, func(a, b V) bool { return reflect.DeepEqual(a, b) })}
}

// resolver finds what the targetRef of a to entry selects, and records it.
func resolver(r *incr.Run, mesh string) policy.Resolve {
	return func(kind string, labels map[string]string) []api.ID {
		return labelled.Get(r, labelledKey{kind, mesh, encodeLabels(labels)})
	}
}

type labelledKey struct{ Kind, Mesh, Labels string }

// labelled lists the IDs of the rows with the labels: whoever asks depends on
// which there are, not on what they say.
var labelled = incr.NewQuery("labelled", func(r *incr.Run, k labelledKey) []api.ID {
	kind, ok := api.ByName(k.Kind)
	if !ok {
		return nil
	}
	var ids []api.ID
	for row := range kind.RowsLabelled(r, k.Mesh, decodeLabels(k.Labels)) {
		ids = append(ids, row.Head().ID)
	}
	return ids
}, slices.Equal[[]api.ID])

// ownPolicy is what policies of a kind say of a proxy as such.
type ownPolicy[V any] struct{ *incr.Query[policy.Class, V] }

// newOwnPolicy: mean gets the confs of the policies that select the class, the most
// important last.
func newOwnPolicy[S, C, V any](name string, set policySet[S], conf func(*S) C, mean func(policy.Rule[C]) V) ownPolicy[V] {
	return ownPolicy[V]{incr.NewQuery(name, func(r *incr.Run, c policy.Class) V {
		rule, _ := policy.Single(set.selected(r, c), conf)
		return mean(rule)
	}, func(a, b V) bool { return reflect.DeepEqual(a, b) })}
}

// convert is f of each of the list.
func convert[E, T any](list []E, f func(E) T) []T {
	out := make([]T, len(list))
	for i, e := range list {
		out[i] = f(e)
	}
	return out
}

// word is a value that is one comparable word, for keys of queries: equal where the
// JSON of the values is. The zero word holds the zero value.
type word[V any] struct{ text unique.Handle[string] }

func wordOf[V any](v V) word[V] {
	text, err := json.Marshal(v)
	if err != nil {
		panic("plan: " + err.Error()) // plain exported data encodes
	}
	return word[V]{unique.Make(string(text))}
}

func (w word[V]) value() (v V) {
	if w == (word[V]{}) {
		return v
	}
	if err := json.Unmarshal([]byte(w.text.Value()), &v); err != nil {
		panic("plan: " + err.Error()) // it was encoded from a V
	}
	return v
}

// callsKey asks what policies say of a class's calls to a port, or to a route of it.
type callsKey struct {
	Class policy.Class
	Port  Port
	Route policy.Destination // zero: none
}

// calls is what policies say of the calls to one destination. It holds comparable
// values only.
type calls struct {
	Timeouts ir.Timeouts
	Breaker  word[ir.Breaker]
	Health   healthChecks
	Retries  retries
	Logs     logBackends
	Split    word[[]api.BackendRef] // where connections go; the zero word: to the port itself
	Balance  balance
}

// callsTo is a query so that a policy for one service ends here for all others.
var callsTo = incr.NewQuery("calls", func(r *incr.Run, k callsKey) calls {
	at := []policy.Destination{k.Port.destination()}
	if k.Route != (policy.Destination{}) {
		at = slices.Insert(at, 0, k.Route)
	}
	return calls{
		Timeouts: timeoutsTo.at(r, k.Class, at...).Or(defaultTimeouts),
		Breaker:  breakersTo.at(r, k.Class, at...),
		Health:   healthTo.at(r, k.Class, at...),
		Retries:  retriesTo.at(r, k.Class, at...),
		Logs:     logsTo.at(r, k.Class, at...),
		Split:    tcpRoutesTo.at(r, k.Class, at...),
		Balance:  balanceTo.at(r, k.Class, at...),
	}
}, func(a, b calls) bool { return a == b })

// clientKeys are the labels of policies about what proxies call, serverKeys those
// of policies about who calls, ownKeys those of policies about the proxy as such.
var (
	clientKeys = labelKeys("client-keys", timeoutSet.keys, breakerSet.keys, healthSet.keys, httpRouteSet.keys,
		patchSet.keys,
		retrySet.keys, tcpRouteSet.keys, balanceSet.keys,
		passthroughSet.keys,
		logSet.keys, traceSet.keys)
	serverKeys = labelKeys("server-keys", timeoutSet.keys, breakerSet.keys, permissionSet.keys,
		rateLimitSet.keys, faultSet.keys, tlsSet.keys,
		logSet.keys, traceSet.keys)
	ownKeys = labelKeys("own-keys", patchSet.keys,
		metricSet.keys)
)

// ownClass is a proxy as policies about it as such see it.
func ownClass(r *incr.Run, dp *api.Object[api.Dataplane]) policy.Class {
	return policy.Of(dp, ownKeys.Get(r, dp.Mesh), nil).Class()
}
