package plan

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var tcpRouteSet = newPolicySet("tcp-routes", api.MeshTCPRoutes, func(s *api.MeshTCPRoute) *api.TargetRef { return s.TargetRef })

var tcpRoutesTo = newToPolicy("tcp-routes-to", tcpRouteSet, func(s *api.MeshTCPRoute) []policy.To[api.TCPRouteConf] {
	return convert(s.To, func(t api.MeshTCPRouteTo) policy.To[api.TCPRouteConf] {
		to := policy.To[api.TCPRouteConf]{TargetRef: t.TargetRef}
		if len(t.Rules) > 0 { // there is one at most
			to.Default = t.Rules[0].Default
		}
		return to
	})
}, func(c api.TCPRouteConf) word[[]api.BackendRef] {
	if len(c.BackendRefs) == 0 {
		return word[[]api.BackendRef]{}
	}
	return wordOf(c.BackendRefs)
})

// needsOf is what a class needs to reach a port. Its requests are told apart if
// the port speaks HTTP or a MeshHTTPRoute is about it, which goes before a
// MeshTCPRoute.
func needsOf(r *incr.Run, k reachKey) needs {
	key := callsKey{Class: k.Class, Port: k.To.Port}
	said := callsTo.Get(r, key)
	spoken := k.To.Protocol
	requests := len(httpRulesFor.Get(r, key)) > 0
	if requests && !isHTTP(spoken) {
		spoken = "http"
	}
	split := said.Split.value()
	if isHTTP(spoken) && (requests || len(split) == 0) {
		routes := routesKey{k.Class, target{k.To.Port, spoken}}
		return needs{
			Protocol: spoken, Timeout: said.Timeouts.RequestHeaders, Backends: append([]target{k.To}, routeBackends(r, routes)...),
			Logs: said.Logs, RouteLogs: routeLogsOf(r, routes, said.Logs),
		}
	}
	out := needs{Protocol: "tcp", Timeout: said.Timeouts.Idle, Connects: said.Retries.Connects, Logs: said.Logs}
	if h := said.Balance.connectionHash(); h != nil {
		out.Hash = wordOf(h)
	}
	if len(split) == 0 {
		out.Backends = []target{k.To}
		return out
	}
	var backends []ir.Backend
	for _, ref := range split {
		if to := backendOf(r, k.Class.Proxy().Mesh, ref); to != (target{}) && weightOf(ref) > 0 {
			out.Backends = append(out.Backends, to)
			backends = append(backends, ir.Backend{Cluster: to.Port.Name(), Weight: weightOf(ref)})
		}
	}
	if len(backends) == 0 {
		return needs{} // nothing listens: the connection is refused, instead of being closed once it is there
	}
	out.Split = wordOf(backends)
	return out
}
