package xds_test

import (
	"maps"
	"testing"
	"testing/synctest"
)

// metered is the mesh with all its proxies connected.
func metered(t *testing.T, f func(*plane, *meter)) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, costMesh())
		m := &meter{p: p}
		for s := range services {
			for i := range proxies / services {
				m.models = append(m.models, p.model(instance(s, i)).connect())
			}
		}
		synctest.Wait()
		m.ran = maps.Clone(p.engine.Stats().Ran)
		m.since()
		f(p, m)
	})
}

// A mesh-wide log may cost each listener once, whoever shares it; one for a
// service costs its callers alone.
func TestCostOfTelemetry(t *testing.T) {
	metered(t, func(p *plane, m *meter) {
		logs := func(name, target, backend string) {
			p.put("global", "type: MeshAccessLog\nmesh: default\nname: "+name+"\nspec:\n  to: [{targetRef: {"+target+"}, default: {backends: ["+backend+"]}}]\n")
		}
		const file, tcp = "{type: File, file: {path: /tmp/log}}", "{type: Tcp, tcp: {address: 'logs.example:5000'}}"
		logs("one", to("s007"), file)
		m.since() // who the policy is for is found once
		logs("one", to("s007"), tcp)
		// Ten proxies each of four services call it: four classes, and a listener in each.
		m.expect("logs of calls to one service", cost{
			Ran: ran{"access-logs": 1, "client-keys": 1, "server-keys": 1, "access-logs-in": 1, "access-logs-to": 1, "records-wanted": 1, "collectors-used": 1,
				"calls": 200, "reach": 1, "cluster": 1, "routes": 1, "class": 4, "proxy": 40, "outbound": 4, "encode.outbound": 4, "assigned": 1},
			Sent: sent{"LDS +1": 40}, Proxies: 40,
		})
		logs("all", "kind: Mesh", file)
		m.expect("logs of all calls", cost{
			Ran: ran{"access-logs": 1, "client-keys": 1, "server-keys": 1, "access-logs-in": 1, "access-logs-to": 1, "records-wanted": 1, "collectors-used": 1,
				"calls": 200, "reach": 199, "cluster": 199, "routes": 199, "class": 100, "proxy": 1000, "outbound": 496, "encode.outbound": 496, "assigned": 199},
			Sent: sent{"LDS +4": 40, "LDS +5": 960}, Proxies: 1000,
		})
	})
}

// How a service traces costs its own listeners: those of its calls once, as its
// proxies share them, and the inbound of each. How all do costs each listener once.
func TestCostOfTraces(t *testing.T) {
	metered(t, func(p *plane, m *meter) {
		traces := func(name, target, more string) {
			p.put("global", "type: MeshTrace\nmesh: default\nname: "+name+"\nspec:\n  targetRef: {"+target+"}\n  default: {backends: [{type: Zipkin, zipkin: {url: 'http://zipkin.example/spans'}}]"+more+"}\n")
		}
		traces("one", "kind: Dataplane, labels: {app: s007}", "")
		m.since() // who the policy is for is found once
		traces("one", "kind: Dataplane, labels: {app: s007}", ", sampling: {overall: 50}")
		m.expect("traces of one service", cost{
			Ran: ran{"traces": 1, "client-keys": 1, "server-keys": 1, "records-wanted": 1, "collectors-used": 1, "traces-for": 200,
				"class": 1, "proxy": 10, "outbound": 5, "encode.outbound": 5, "inbound-needs": 10, "inbound": 10, "encode.inbound": 10},
			Sent: sent{"LDS +6": 10}, Proxies: 10,
		})
		traces("all", "kind: Mesh", "")
		m.since() // each learns where spans go
		traces("all", "kind: Mesh", ", sampling: {overall: 10}")
		m.expect("traces of all", cost{
			Ran: ran{"traces": 1, "client-keys": 1, "server-keys": 1, "records-wanted": 1, "collectors-used": 1, "traces-for": 200,
				"class": 99, "proxy": 990, "outbound": 495, "encode.outbound": 495, "inbound-needs": 990, "inbound": 990, "encode.inbound": 990},
			Sent: sent{"LDS +6": 990}, Proxies: 990,
		})
	})
}

// What of its metrics a proxy gives out costs its Envoy nothing but what the program
// next to it is told, once for all proxies of a workload; a port costs each a listener.
func TestCostOfMetrics(t *testing.T) {
	metered(t, func(p *plane, m *meter) {
		metrics := func(name, target, profile, path string) {
			p.put("global", "type: MeshMetric\nmesh: default\nname: "+name+"\nspec:\n  targetRef: {"+target+"}\n  default: {sidecar: {profiles: {appendProfiles: [{name: "+profile+"}]}}, backends: [{type: Prometheus, prometheus: {path: "+path+"}}]}\n")
		}
		metrics("one", "kind: Dataplane, labels: {app: s007}", "Basic", "/a")
		m.since() // who the policy is for is found once
		metrics("one", "kind: Dataplane, labels: {app: s007}", "All", "/a")
		m.expect("another profile for one service", cost{
			Ran: ran{"metrics": 1, "own-keys": 1, "collectors-used": 1, "metrics-for": 100, "metric-ports": 1, "metric-pushes": 1,
				"metrics-config": 1, "dynamic": 1, "encode.dynamic": 1},
			Sent: sent{"LDS +1": 10}, Proxies: 10,
		})
		metrics("one", "kind: Dataplane, labels: {app: s007}", "All", "/b")
		m.expect("another path for one service", cost{
			Ran: ran{"metrics": 1, "own-keys": 1, "collectors-used": 1, "metrics-for": 100, "metric-ports": 1, "metric-pushes": 1,
				"metrics-config": 1, "metric-names": 1, "metric-listener": 10, "encode.metric-listener": 10},
			Sent: sent{"LDS +1": 10}, Proxies: 10,
		})
		metrics("all", "kind: Mesh", "Basic", "/a")
		m.since() // each gets a listener and a cluster
		metrics("all", "kind: Mesh", "All", "/a")
		m.expect("another profile for all", cost{
			Ran: ran{"metrics": 1, "own-keys": 1, "collectors-used": 1, "metrics-for": 100, "metric-ports": 100, "metric-pushes": 100,
				"metrics-config": 100, "dynamic": 100, "encode.dynamic": 100},
			Sent: sent{"LDS +1": 1000}, Proxies: 1000,
		})
	})
}
