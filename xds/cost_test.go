package xds_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// The mesh of the cost table: 1,000 proxies of 100 services in this zone, ten
// each, and 100 services of another zone. Each service calls the next four of
// this zone, and the one of its number of the other. All have identities.
const (
	proxies  = 1000
	services = 100
	calls    = 4
)

func instance(s, i int) string { return fmt.Sprintf("s%03d-%d", s, i) }

func costly(s, i int, ready bool) string {
	var targets []string
	for n := range calls {
		targets = append(targets, fmt.Sprintf("s%03d", (s+n+1)%services))
	}
	return dataplane(instance(s, i), fmt.Sprintf("s%03d", s), fmt.Sprintf("10.%d.0.%d", s, i+1), ready, targets...) +
		fmt.Sprintf("    - {port: 20000, backendRef: {kind: MeshService, labels: {kuma.io/display-name: w%03d}, port: 80}}\n", s)
}

func costMesh() *rows {
	r := newRows()
	docs := []string{
		"type: MeshIdentity\nmesh: default\nname: identity\nspec:\n  selector: {dataplane: {matchLabels: {}}}\n  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}\n",
		trust("east"),
	}
	west := []string{trust("west"), "type: MeshZoneAddress\nmesh: default\nname: west\nspec: {address: 192.0.2.1, port: 10001}\n"}
	for s := range services {
		docs = append(docs, service(fmt.Sprintf("s%03d", s)))
		west = append(west, service(fmt.Sprintf("w%03d", s)))
		for i := range proxies / services {
			docs = append(docs, costly(s, i, true))
		}
	}
	r.put("east", docs...)
	r.put("west", west...)
	r.write(func(tx *db.Tx) {
		mid := api.LocalID(api.MeshIdentities, "default", "", "identity", east)
		for s := range services {
			for i := range proxies / services {
				api.Leaves.Put(tx, &api.Leaf{
					Proxy: proxyID(instance(s, i)), Identity: mid, Chain: "certificate", Key: "key",
					SPIFFE: fmt.Sprintf("spiffe://default.east.mesh.local/workload/s%03d", s),
				})
			}
		}
	})
	return r
}

// cost is what one change cost: queries run by name, messages and resources by
// type, and the proxies that got any.
type cost struct {
	Ran     map[string]uint64
	Sent    map[string]int // "EDS +1": messages of a type with so many resources
	Proxies int
}

type meter struct {
	p      *plane
	models []*model
	ran    map[string]uint64
}

// since is the cost since the last call.
func (m *meter) since() cost {
	synctest.Wait()
	now := m.p.engine.Stats().Ran
	c := cost{Ran: ran{}, Sent: sent{}}
	for name, n := range now {
		if n > m.ran[name] {
			c.Ran[name] = n - m.ran[name]
		}
	}
	m.ran = maps.Clone(now)
	for _, one := range m.models {
		one.mu.Lock()
		for _, r := range one.log {
			c.Sent[fmt.Sprintf("%s +%d", shortOf(r.GetTypeUrl()), len(r.GetResources())+len(r.GetRemovedResources()))]++
		}
		if len(one.log) > 0 {
			c.Proxies++
		}
		one.log = nil
		one.mu.Unlock()
	}
	return c
}

func (m *meter) expect(what string, want cost) {
	m.p.t.Helper()
	if want.Ran == nil {
		want.Ran = ran{}
	}
	if want.Sent == nil {
		want.Sent = sent{}
	}
	if diff := cmp.Diff(want, m.since()); diff != "" {
		m.p.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func permit(name, target string) string {
	return "type: MeshTrafficPermission\nmesh: default\nname: " + name + "\nspec:\n" + target + "  rules: [{default: {allow: [{spiffeID: {type: Prefix, value: spiffe://default.east.mesh.local}}]}}]\n"
}

// tcpSplit is a route of a port that speaks http: a MeshHTTPRoute is not needed for it.
func tcpSplit(weight int) string {
	return fmt.Sprintf("type: MeshTCPRoute\nmesh: default\nname: split\nspec:\n  to: [{targetRef: {%s}, rules: [{default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: s007}, port: 80}, {kind: MeshService, labels: {kuma.io/display-name: s008}, port: 80, weight: %d}]}}]}]\n", to("s007"), weight)
}

type ran = map[string]uint64
type sent = map[string]int

// connected is a meter over all proxies but the first, who have their plans.
func connected(p *plane) *meter {
	m := &meter{p: p, ran: map[string]uint64{}}
	for s := range services {
		for i := range proxies / services {
			if s+i > 0 {
				m.models = append(m.models, p.model(instance(s, i)).connect())
			}
		}
	}
	m.since()
	return m
}

func TestCost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlane(t, costMesh())
		m := connected(p)
		t.Log(text(p.engine.Stats()))

		p.put("east", costly(7, 3, false))
		// Its own plan is looked at, and that service's endpoints; four services of ten proxies call it.
		m.expect("an endpoint becomes unhealthy", cost{
			Ran:  ran{"identity": 1, "proxy": 1, "inbound": 1, "inbound-cluster": 1, "servers-of": 1, "members": 1, "endpoints": 1, "encode.endpoints": 1, "assigned": 1},
			Sent: sent{"EDS +1": 40}, Proxies: 40,
		})
		p.put("east", costly(7, 3, false))
		m.expect("the same row again", cost{
			Ran: ran{"identity": 1, "proxy": 1, "inbound": 1, "inbound-cluster": 1, "servers-of": 1, "members": 1},
		})
		p.put("global", timeout("one", to("s007"), "2s"))
		m.since() // who the policy is for is found once
		p.put("global", timeout("one", to("s007"), "3s"))
		// Policies see one class of proxies, which has 200 destinations to look up. No proxy is planned again: what four classes
		// of callers name is the same, its content is not. The same endpoints follow the cluster, or it stays warming.
		m.expect("a timeout policy for one service", cost{
			Ran:  ran{"timeouts": 1, "client-keys": 1, "server-keys": 1, "timeouts-in": 1, "timeouts-to": 1, "calls": 200, "reach": 1, "cluster": 1, "routes": 1, "encode.cluster": 1, "encode.routes": 1, "assigned": 1},
			Sent: sent{"CDS +1": 40, "EDS +1": 40, "RDS +1": 40}, Proxies: 40,
		})
		p.put("global", timeout("all", "kind: Mesh", "4s"))
		// One service has timeouts of its own. Each distinct resource is encoded once.
		m.expect("a policy for the mesh", cost{
			Ran:  ran{"timeouts": 1, "client-keys": 1, "server-keys": 1, "timeouts-in": 1, "timeouts-to": 1, "calls": 200, "reach": 199, "cluster": 199, "routes": 199, "encode.cluster": 199, "encode.routes": 199, "assigned": 199},
			Sent: sent{"CDS +4": 40, "CDS +5": 959, "EDS +4": 40, "EDS +5": 959, "RDS +4": 40, "RDS +5": 959}, Proxies: 999,
		})
		m.models = append(m.models, p.model(instance(0, 0)).connect())
		m.expect("a proxy connects", cost{
			Ran:  ran{"proxy": 1, "inbound": 1, "inbound-cluster": 1, "encode.inbound": 1, "encode.inbound-cluster": 1, "encode.secret": 1},
			Sent: sent{"CDS +6": 1, "EDS +5": 1, "LDS +6": 1, "RDS +5": 1, "SDS +2": 1}, Proxies: 1,
		})
		p.put("east", costly(7, 10, true))
		m.expect("a service gets another instance", cost{
			Ran:  ran{"identity": 1, "members": 1, "servers-of": 1, "endpoints": 1, "encode.endpoints": 1, "assigned": 1},
			Sent: sent{"EDS +1": 40}, Proxies: 40,
		})
		p.put("global", permit("all", ""))
		m.expect("a permission for the mesh", cost{
			Ran:  ran{"permissions": 1, "server-keys": 1, "permissions-in": 1, "inbound": 1000, "encode.inbound": 1000},
			Sent: sent{"LDS +1": 1000}, Proxies: 1000,
		})
		p.put("global", permit("one", "  targetRef: {kind: Dataplane, labels: {app: s007}}\n"))
		// From now on proxies of different values of the label are told apart.
		m.expect("the first policy that selects by a label", cost{
			Ran:  ran{"permissions": 1, "server-keys": 1, "permissions-in": 100, "timeouts-in": 100, "breakers-in": 100, "access-logs-in": 100, "rate-limits-in": 100, "faults-in": 100, "tls-in": 100, "traces-for": 100, "inbound": 1000, "inbound-cluster": 1000, "encode.inbound": 10},
			Sent: sent{"LDS +1": 10}, Proxies: 10,
		})
		p.put("global", permit("two", "  targetRef: {kind: Dataplane, labels: {app: s008}}\n"))
		m.expect("the next one", cost{
			Ran:  ran{"permissions": 1, "server-keys": 1, "permissions-in": 100, "inbound": 10, "encode.inbound": 10},
			Sent: sent{"LDS +1": 10}, Proxies: 10,
		})
		p.put("global", "type: MeshTrafficPermission\nmesh: default\nname: older\nspec:\n  targetRef: {kind: Dataplane, labels: {app: s009}}\n"+
			"  from: [{targetRef: {kind: MeshSubset, tags: {app: s010}}, default: {action: Allow}}]\n")
		// Who carries a tag is asked of each Dataplane and of each service of another zone, once.
		m.expect("a permission that names callers by tags", cost{
			Ran:  ran{"permissions": 1, "server-keys": 1, "permissions-in": 100, "callers": 1, "caller": 1101, "labelled": 2, "inbound": 10, "encode.inbound": 10},
			Sent: sent{"LDS +1": 10}, Proxies: 10,
		})
		p.put("east", costly(10, 3, false))
		// That it still carries the tag, and calls by the same ID, is all that the permission hears of it.
		m.expect("one of these callers becomes unhealthy", cost{
			Ran: ran{"identity": 1, "proxy": 1, "inbound": 1, "inbound-cluster": 1, "servers-of": 1, "members": 1, "endpoints": 1, "encode.endpoints": 1,
				"labelled": 1, "caller": 1, "assigned": 1},
			Sent: sent{"EDS +1": 40}, Proxies: 40,
		})
		p.write(func(tx *db.Tx) {
			for s := range services {
				for i := range proxies / services {
					id := proxyID(instance(s, i))
					id.Kind = "DataplaneInsight"
					api.DataplaneInsights.PutObject(tx, api.DataplaneInsights.New(api.Meta{ID: id}, api.DataplaneInsight{}))
				}
			}
		})
		m.expect("status of a thousand proxies", cost{})
		for _, one := range m.models {
			one.complete()
		}
	})
}

// TestCostOfPolicies: what a change of a policy of each kind costs whose like is
// there already. Policies see one class of proxies, which has 200 destinations to
// look up; what is sent is what changed, to those who have it.
func TestCostOfPolicies(t *testing.T) {
	toOne := func(kind, conf string) string {
		return "type: " + kind + "\nmesh: default\nname: one\nspec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: s007}}, default: " + conf + "}]}\n"
	}
	const patch = "type: MeshProxyPatch\nmesh: default\nname: one\nspec: {default: {appendModifications: [{cluster: {operation: Patch, match: {name: kri_msvc_default_east__s007_http}, value: 'connectTimeout: %s'}}]}}\n"
	fromMesh := func(conf string) string {
		return "type: MeshTLS\nmesh: default\nname: one\nspec: {rules: [{default: " + conf + "}]}\n"
	}
	fromAll := func(kind, conf string) string {
		return "type: " + kind + "\nmesh: default\nname: one\nspec: {targetRef: {kind: Dataplane, labels: {app: s007}}, rules: [{default: " + conf + "}]}\n"
	}
	const affinity = "{localityAwareness: {localZone: {affinityTags: [{key: app}]}}"
	bubble(t, func(t *testing.T) {
		p := newPlane(t, costMesh())
		m := connected(p)
		for _, c := range []struct {
			kind        string
			first, then string
			want        cost
		}{
			{
				"MeshCircuitBreaker", toOne("MeshCircuitBreaker", "{connectionLimits: {maxRequests: 1}}"), toOne("MeshCircuitBreaker", "{connectionLimits: {maxRequests: 2}}"),
				cost{
					Ran:  ran{"breakers": 1, "client-keys": 1, "server-keys": 1, "breakers-in": 1, "breakers-to": 1, "calls": 200, "reach": 1, "cluster": 1, "routes": 1, "encode.cluster": 1, "assigned": 1},
					Sent: sent{"CDS +1": 40, "EDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshHealthCheck", toOne("MeshHealthCheck", "{http: {path: /a}}"), toOne("MeshHealthCheck", "{http: {path: /b}}"),
				cost{
					Ran:  ran{"health-checks": 1, "client-keys": 1, "health-checks-to": 1, "calls": 200, "reach": 1, "cluster": 1, "routes": 1, "encode.cluster": 1, "assigned": 1},
					Sent: sent{"CDS +1": 40, "EDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshRetry", toOne("MeshRetry", "{http: {numRetries: 2}}"), toOne("MeshRetry", "{http: {numRetries: 3}}"),
				cost{ // only requests hear of it: no cluster is made anew
					Ran:  ran{"retries": 1, "client-keys": 1, "retries-to": 1, "calls": 200, "reach": 1, "cluster": 1, "routes": 1, "encode.routes": 1, "assigned": 1},
					Sent: sent{"RDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshTCPRoute", tcpSplit(1), tcpSplit(2),
				cost{ // where a listener leads is part of it; the four classes that have it name another
					Ran: ran{"tcp-routes": 1, "client-keys": 1, "tcp-routes-to": 1, "calls": 200, "reach": 1, "cluster": 1,
						"class": 4, "proxy": 40, "outbound": 4, "encode.outbound": 4, "assigned": 1},
					Sent: sent{"LDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshLoadBalancingStrategy", toOne("MeshLoadBalancingStrategy", affinity+", loadBalancer: {type: Maglev}}"), toOne("MeshLoadBalancingStrategy", affinity+", loadBalancer: {type: Random}}"),
				cost{ // what is near is looked up anew in the places of four callers, and comes out equal
					Ran: ran{"balances": 1, "client-keys": 1, "balances-to": 1, "affinity-keys": 1, "calls": 200, "reach": 1, "cluster": 1,
						"nearby": 4, "assigned": 5, "encode.cluster": 1},
					Sent: sent{"CDS +1": 40, "EDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshProxyPatch", fmt.Sprintf(patch, "1s"), fmt.Sprintf(patch, "2s"),
				cost{
					Ran:  ran{"patches": 1, "client-keys": 1, "own-keys": 1, "patches-for": 1, "patches-structure": 1, "patches-on": 3, "cluster": 200, "inbound-cluster": 999, "encode.cluster": 1},
					Sent: sent{"CDS +1": 40, "EDS +1": 40}, Proxies: 40,
				},
			},
			{
				"MeshTLS", fromMesh("{mode: Permissive}"), fromMesh("{mode: Strict}"),
				cost{
					Ran:  ran{"tls": 1, "server-keys": 1, "tls-in": 2, "tls-to": 1, "inbound": 999, "encode.inbound": 999},
					Sent: sent{"LDS +1": 999}, Proxies: 999,
				},
			},
			// These tell proxies apart by a label, for all kinds, so they stand last.
			{
				"MeshFaultInjection", fromAll("MeshFaultInjection", "{http: [{abort: {httpStatus: 500, percentage: 1}}]}"), fromAll("MeshFaultInjection", "{http: [{abort: {httpStatus: 501, percentage: 1}}]}"),
				cost{
					Ran:  ran{"faults": 1, "server-keys": 1, "faults-in": 100, "inbound": 10, "encode.inbound": 10},
					Sent: sent{"LDS +1": 10}, Proxies: 10,
				},
			},
			{
				"MeshRateLimit", fromAll("MeshRateLimit", "{local: {http: {requestRate: {num: 1, interval: 1s}}}}"), fromAll("MeshRateLimit", "{local: {http: {requestRate: {num: 2, interval: 1s}}}}"),
				cost{
					Ran:  ran{"rate-limits": 1, "server-keys": 1, "rate-limits-in": 100, "inbound": 10, "encode.inbound": 10},
					Sent: sent{"LDS +1": 10}, Proxies: 10,
				},
			},
		} {
			p.put("global", c.first)
			m.since()
			p.put("global", c.then)
			m.expect(c.kind, c.want)
		}
	})
}

// TestCostOfExternalServices: an external service that moves is the business of
// egresses, whoever calls it; that there is one more is no business of callers.
func TestCostOfExternalServices(t *testing.T) {
	external := func(name, address string) string {
		return fmt.Sprintf("type: MeshExternalService\nmesh: default\nname: %s\nspec:\n  match: {port: 80, protocol: http}\n  endpoints: [{address: %s, port: 80}]\n", name, address)
	}
	bubble(t, func(t *testing.T) {
		r := costMesh()
		r.put("east",
			"type: Dataplane\nmesh: default\nname: egress\nlabels: {app: egress}\nnetworking:\n  address: 10.200.0.1\n  listeners: [{type: ZoneEgress, address: 10.200.0.1, port: 10002}]\n",
			"type: Dataplane\nmesh: default\nname: caller\nlabels: {app: caller}\nnetworking:\n  address: 10.200.0.2\n  outbound: [{port: 10000, backendRef: {kind: MeshExternalService, labels: {kuma.io/display-name: one}, port: 80}}]\n")
		r.put("global", external("one", "one.example.com"), external("two", "two.example.com"))
		p := newPlane(t, r)
		m := connected(p)
		for _, name := range []string{"egress", "caller"} {
			m.models = append(m.models, p.model(name).connect())
		}
		m.since()
		p.put("global", external("one", "other.example.com"))
		m.expect("an external service moves", cost{
			Ran:  ran{"resolve": 1, "direct": 1, "endpoints": 1, "externals": 1, "materials": 1, "egress-cluster": 1, "encode.egress-cluster": 1},
			Sent: sent{"CDS +1": 1}, Proxies: 1,
		})
		p.put("global", external("three", "three.example.com"))
		m.expect("one more", cost{
			Ran:  ran{"externals": 1, "materials": 1, "proxy": 1, "egress-set": 1, "egress-cluster": 1, "encode.egress-cluster": 1, "timeouts-asked": 1, "egress-listener": 1, "encode.egress-listener": 1},
			Sent: sent{"CDS +1": 1, "LDS +1": 1}, Proxies: 1,
		})
		directly := func(address string) string {
			return strings.Replace(external("one", address), "spec:", "labels: {atoll.io/exit: direct}\nspec:", 1)
		}
		p.put("global", directly("other.example.com"))
		m.since() // its callers, and all others in a mesh that had none such, are planned anew
		p.put("global", directly("one.example.com"))
		m.expect("one that is called without the egress moves", cost{
			Ran: ran{"resolve": 1, "direct": 1, "direct-callable": 1, "any-direct": 1, "externals": 1, "materials": 1,
				"direct-cluster": 1, "encode.direct-cluster": 1, "egress-cluster": 1, "encode.egress-cluster": 1},
			Sent: sent{"CDS +1": 2}, Proxies: 2,
		})
	})
}
