package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Explained is what a proxy gets, in the words of the IR, by name; and for each
// destination and inbound where the fields that policies decide were written.
type Explained struct {
	Listeners map[string]any            `json:"listeners,omitempty"`
	Routes    map[string]any            `json:"routes,omitempty"`
	Clusters  map[string]any            `json:"clusters,omitempty"`
	Endpoints map[string]any            `json:"endpoints,omitempty"`
	Why       map[string]map[string]any `json:"-"`
}

// Explain is the plan of a proxy before it is encoded.
var Explain = incr.NewQuery("explain", func(r *incr.Run, id api.ID) *Explained {
	out := &Explained{
		Listeners: map[string]any{}, Routes: map[string]any{}, Clusters: map[string]any{}, Endpoints: map[string]any{}, Why: map[string]map[string]any{},
	}
	dp, ok := api.Dataplanes.Get(r, id)
	if !ok {
		return out
	}
	var system systemClusters
	for i, in := range slices.Backward(dp.Spec.Networking.Inbound) {
		k := listenerKey{id, i}
		out.Listeners[inboundName(in)] = inbound.Get(r, k)
		out.Clusters[inboundName(in)] = inboundCluster.Get(r, k)
		out.Why[inboundName(in)] = whyInbound(r, dp, in.Section())
		system = append(system, inboundNeeds.Get(r, k)...)
	}
	for i, l := range dp.Spec.Networking.Listeners {
		if l.Type == "ZoneEgress" {
			out.Listeners[zoneListenerName(l)] = egressListener.Get(r, listenerKey{id, i})
			out.Why[zoneListenerName(l)] = whyInbound(r, dp, l.Section())
			system = append(system, egressNeeds.Get(r, listenerKey{id, i})...)
			continue
		}
		out.Listeners[zoneListenerName(l)] = ingressListener.Get(r, listenerKey{id, i})
		out.Why[zoneListenerName(l)] = whyLogs(r, sectionOf(r, dp, l.Section()))
		system = append(system, ingressNeeds.Get(r, listenerKey{id, i})...)
		for _, x := range exposures.Get(r, id.Mesh) {
			out.Endpoints[x.Port.Name()] = endpoints.Get(r, endpointsKey{x.Port, View{Ingress: true}})
		}
	}
	if k, ok := egressOf(r, dp); ok && identity.Get(r, id).SPIFFE != "" {
		for _, x := range externals.Get(r, id.Mesh) {
			out.Clusters[x.Port.Name()] = egressCluster.Get(r, egressClusterKey{k, x})
		}
	}
	who, x := identity.Get(r, id), redirectionOf(r, dp)
	explainTransparent(r, out, dp, x, who)
	if k, ok := dynamicOf(r, dp, x); ok {
		if l := dynamic.Get(r, k); l != nil {
			out.Listeners[l.Name] = l
		}
	}
	c := newClient(r, classKey(r, dp, x, who))
	for name, k := range c.listeners {
		out.Listeners[name] = outboundListener.Get(r, k)
		out.Why[name] = whyOutbound(r, k.Port, c.class.Policy)
	}
	for name, k := range c.routes {
		out.Routes[name] = routeSettingsOf(r, k).config()
	}
	for name, k := range c.clusters {
		out.Clusters[name] = settingsOf(r, k).cluster(r)
		at := assignedKey{c.class.Policy, k.To.Port, placeOf(r, c.class.Policy, dp)}
		out.Endpoints[name] = endpoints.Get(r, endpointsKey{k.To.Port, at.view(r)})
	}
	for name, k := range c.outside {
		if directCallable.Get(r, k.To.Port.Service()).Complete {
			out.Clusters[name] = directCluster.Get(r, k)
		}
	}
	for _, w := range append(system, c.system...) {
		out.Clusters[w.value().Name] = w.value()
	}
	explainMetrics(r, out, dp)
	maps.DeleteFunc(out.Why, func(_ string, why map[string]any) bool { return len(why) == 0 })
	return out
}, nil)

// explainTransparent reads what a plan names of it.
func explainTransparent(r *incr.Run, out *Explained, dp *api.Object[api.Dataplane], x redirection, w who) {
	s := newSet()
	k := classKey(r, dp, x, w)
	addTransparent(r, s, dp, x, w)
	c := newClient(r, k)
	c.addThrough(s)
	for _, w := range c.system {
		out.Clusters[w.value().Name] = w.value()
	}
	own := ownClass(r, dp)
	for name := range s.Clusters {
		c := throughCluster.Get(r, throughClusterKey{Class: own, Name: name})
		if c == nil || c.SourceAddress == "" && c.Static == nil {
			c = throughCluster.Get(r, throughClusterKey{Class: k.Policy, Name: name})
		}
		x.families(func(v6 bool) {
			for _, one := range passthroughClusters.Get(r, passthroughKey{k.Policy, v6}) {
				if one.Name == name {
					c = throughCluster.Get(r, throughClusterKey{k.Policy, name, one.Protocol})
				}
			}
		})
		if c != nil {
			out.Clusters[name] = c
		}
	}
	x.families(func(v6 bool) {
		if _, ok := s.Listeners[throughName(ir.Inbound, v6)]; ok {
			out.Listeners[throughName(ir.Inbound, v6)] = throughIn.Get(r, throughKey{Class: own, Port: x.Inbound, IPv6: v6, Closed: strictInbounds(r, dp, w)})
		}
		if _, ok := s.Listeners[throughName(ir.Outbound, v6)]; ok {
			out.Listeners[throughName(ir.Outbound, v6)] = throughOut.Get(r, c.throughKey(v6))
			out.Why[throughName(ir.Outbound, v6)] = whyPassthrough(r, k.Policy)
		}
	})
}

func explainMetrics(r *incr.Run, out *Explained, dp *api.Object[api.Dataplane]) {
	s := newSet()
	addMetrics(r, s, dp)
	class, c := ownClass(r, dp), metricConnection(r, dp)
	for _, name := range metricNamesOf.Get(r, class) {
		if _, ok := s.Listeners[name]; !ok {
			continue
		}
		socket := bootstrap.MetricsSocketName
		if !c.InWorkDir {
			socket = bootstrap.MetricsSocket(c.WorkDir, dp.Core, dp.Mesh)
		}
		out.Listeners[name] = metricListener.Get(r, metricListenerKeyOf(r, dp, class, c, name))
		out.Clusters[name] = metricCluster(name, socket)
	}
	for _, p := range metricPushesOf.Get(r, class) {
		k, cluster := pushWay(r, dp, class, c, p)
		if _, ok := s.Listeners[k.Name]; ok {
			out.Listeners[k.Name], out.Clusters[k.Name] = pushListener(r, k), cluster
		}
	}
	if rule, ok := policy.Single(metricSet.selected(r, class), metricConf); ok {
		out.Why["metrics"] = map[string]any{"MeshMetric": fields(rule.Explain())}
	}
}

func whyPassthrough(r *incr.Run, c policy.Class) map[string]any {
	why := map[string]any{}
	if rule, ok := policy.Single(passthroughSet.selected(r, c), passthroughConf); ok {
		why["MeshPassthrough"] = fields(rule.Explain())
	}
	if said := logsTo.why(r, c, policy.Destination{}); len(said) > 0 {
		why["MeshAccessLog"] = fields(said)
	}
	return why
}

func whyInbound(r *incr.Run, dp *api.Object[api.Dataplane], section string) map[string]any {
	why := map[string]any{}
	k := sectionOf(r, dp, section)
	whyRules(why, "MeshTimeout", policy.InboundRules(timeoutSet.selected(r, k.Class), section, inboundTimeoutRules))
	for _, rule := range policy.InboundRules(faultSet.selected(r, k.Class), section, faultRules) {
		text, _ := json.Marshal(rule.Match)
		why["MeshFaultInjection "+string(text)] = source(rule.Source)
	}
	whyRules(why, "MeshTLS", policy.InboundRules(tlsSet.selected(r, k.Class), section, tlsRules))
	whyRules(why, "MeshRateLimit", policy.InboundRules(rateLimitSet.selected(r, k.Class), section, rateLimitRules))
	maps.Copy(why, whyLogs(r, k))
	maps.Copy(why, whyTraces(r, k.Class))
	return why
}

func whyTraces(r *incr.Run, c policy.Class) map[string]any {
	rule, ok := policy.Single(traceSet.selected(r, c), traceConf)
	if !ok {
		return nil
	}
	return map[string]any{"MeshTrace": fields(rule.Explain())}
}

func whyLogs(r *incr.Run, k sectionKey) map[string]any {
	why := map[string]any{}
	for i, rule := range policy.InboundRules(logSet.selected(r, k.Class), k.Section, inboundLogRules) {
		who, _ := json.Marshal(rule.Match)
		why[fmt.Sprintf("MeshAccessLog %d of %s", i, who)] = source(rule.Source)
	}
	return why
}

func whyRules[C any](why map[string]any, kind string, rules []policy.InboundRule[C]) {
	if all, ok := policy.CatchAll(rules); ok {
		why[kind] = fields(all.Explain())
	}
	for _, peer := range distinctPeers(rules) {
		why[kind+" of "+strings.TrimSpace(peer.SpiffeID+peer.SpiffeIDPrefix+" "+peer.SNI)] = fields(ruleFor(rules, peer).Explain())
	}
}

func whyOutbound(r *incr.Run, p Port, c policy.Class) map[string]any {
	why := map[string]any{}
	for kind, said := range map[string][]policy.Field{
		"MeshTimeout":        timeoutsTo.why(r, c, p.destination()),
		"MeshCircuitBreaker": breakersTo.why(r, c, p.destination()),
		"MeshHealthCheck":    healthTo.why(r, c, p.destination()),
		"MeshRetry":          retriesTo.why(r, c, p.destination()),
		"MeshAccessLog":      logsTo.why(r, c, p.destination()),
		"MeshTCPRoute":       tcpRoutesTo.why(r, c, p.destination()),

		"MeshLoadBalancingStrategy": balanceTo.why(r, c, p.destination()),
	} {
		if len(said) > 0 {
			why[kind] = fields(said)
		}
	}
	maps.Copy(why, whyTraces(r, c))
	for _, rule := range httpRulesFor.Get(r, callsKey{Class: c, Port: p}) {
		text, _ := json.Marshal(rule.Key)
		why["MeshHTTPRoute "+string(text)] = fields(rule.Explain())
	}
	return why
}

func fields(list []policy.Field) map[string]string {
	out := map[string]string{}
	for _, f := range list {
		out[f.Path] = string(f.Value) + " by " + source(f.Source)
	}
	return out
}

func source(s policy.Source) string {
	k, _ := api.ByName(s.Policy.Kind)
	text, _ := json.Marshal(s.Index)
	return k.Info().KRI(s.Policy.ID, "") + "[" + string(text) + "]"
}
