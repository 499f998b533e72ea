package xds_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// change is one random write. Few names, so that writes meet.
type change struct {
	at   string
	docs []string
	drop func(*rows)
	feed func(*db.Tx)
}

func changes() *rapid.Generator[change] {
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	zone := rapid.SampledFrom([]string{"east", "west"})
	return rapid.Custom(func(t *rapid.T) change {
		n, z := name.Draw(t, "name"), zone.Draw(t, "zone")
		one := fmt.Sprintf("%s%d", n, rapid.IntRange(1, 2).Draw(t, "instance"))
		switch rapid.IntRange(0, 16).Draw(t, "what") {
		case 0, 1:
			var outs string
			for i, o := range rapid.SliceOfN(rapid.SampledFrom([]string{
				"kind: MeshService, name: a, port: 80", "kind: MeshService, name: b, port: 81", "kind: MeshService, name: c.d, port: 80",
				"kind: MeshService, labels: {kuma.io/display-name: a}, port: 80", "kind: MeshService, labels: {kuma.io/zone: west}, port: 81",
				"kind: MeshMultiZoneService, labels: {kuma.io/display-name: m}, port: 80",
			}), 0, 4).Draw(t, "outbounds") {
				outs += fmt.Sprintf("    - {port: %d, backendRef: {%s}}\n", 10_000+i, o)
			}
			if outs != "" {
				outs = "  outbound:\n" + outs
			}
			return change{at: "east", docs: []string{fmt.Sprintf(
				"type: Dataplane\nmesh: default\nname: %s\nlabels: {app: %s, version: %q}\nnetworking:\n  address: 10.0.0.%d\n  inbound: [{port: 8080, name: http, protocol: %s, state: %s}, {port: 9090}]\n%s", one, n,
				rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"), rapid.IntRange(1, 3).Draw(t, "address"),
				rapid.SampledFrom([]string{"http", "grpc", "tcp"}).Draw(t, "protocol"), rapid.SampledFrom([]string{"Ready", "NotReady"}).Draw(t, "state"), outs)}}
		case 2:
			return change{drop: func(r *rows) { r.drop(api.Dataplanes, "east", one) }}
		case 3:
			if rapid.Bool().Draw(t, "odd") {
				n = "c.d"
			}
			return change{at: z, docs: []string{fmt.Sprintf(
				"type: MeshService\nmesh: default\nname: %s\nspec:\n  state: %s\n  selector: {dataplaneLabels: {matchLabels: {app: %s}}}\n  ports: [{port: 80, name: http, targetPort: 8080, appProtocol: %s}, {port: 81, targetPort: 9090}]\n  identities: [{type: SpiffeID, value: spiffe://default.west.mesh.local/%s}]\n",
				n, rapid.SampledFrom([]string{"Available", "Unavailable"}).Draw(t, "state"), one[:1], rapid.SampledFrom([]string{"http", "http2", "tcp"}).Draw(t, "protocol"), one)}}
		case 4:
			return change{drop: func(r *rows) { r.drop(api.MeshServices, z, n) }}
		case 5:
			return change{at: "global", docs: []string{"type: MeshMultiZoneService\nmesh: default\nname: m\nspec:\n  selector: {meshService: {matchLabels: {kuma.io/display-name: " + n + "}}}\n  ports: [{port: 80, name: http, appProtocol: http}]\n"}}
		case 6:
			target := rapid.SampledFrom([]string{"kind: Mesh", to("a"), to("b") + ", sectionName: http", "kind: MeshHTTPRoute, labels: {kuma.io/display-name: r}"}).Draw(t, "target")
			return change{at: "global", docs: []string{timeout("t"+n, target, rapid.SampledFrom([]string{"1s", "2s"}).Draw(t, "span"))}}
		case 7:
			return change{at: "global", docs: []string{fmt.Sprintf(
				"type: MeshTimeout\nmesh: default\nname: t%s\nspec:\n  targetRef: {kind: Dataplane, labels: {%s}}\n  rules: [{default: {idleTimeout: %s}}, {matches: [{spiffeID: {type: Prefix, value: spiffe://default.east.mesh.local}}], default: {http: {requestTimeout: 3s}}}]\n",
				n, rapid.SampledFrom([]string{"app: a", "version: '1'"}).Draw(t, "label"), rapid.SampledFrom([]string{"1s", "2s"}).Draw(t, "span"))}}
		case 8:
			return change{drop: func(r *rows) { r.drop(api.MeshTimeouts, "global", "t"+n) }}
		case 9:
			return change{at: "global", docs: []string{fmt.Sprintf(
				"type: MeshHTTPRoute\nmesh: default\nname: r\nspec:\n  targetRef: {kind: Dataplane, labels: {app: %s}}\n  to:\n    - targetRef: {%s}\n      rules: [{matches: [{path: {type: PathPrefix, value: /x}}], default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: %s}, port: %d}, {kind: MeshService, labels: {kuma.io/display-name: a}, port: 80}], filters: [{type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, labels: {kuma.io/display-name: b}, port: %d}}}]}}]\n",
				n, to("a"), one[:1], rapid.SampledFrom([]int{80, 81}).Draw(t, "port"), rapid.SampledFrom([]int{80, 81}).Draw(t, "mirror"))}}
		case 10:
			return change{at: "global", docs: []string{permit("p"+n, rapid.SampledFrom([]string{"", "  targetRef: {kind: Dataplane, labels: {version: '2'}, sectionName: http}\n"}).Draw(t, "target"))}}
		case 11:
			switch rapid.IntRange(0, 3).Draw(t, "identity") {
			case 0:
				return change{drop: func(r *rows) { r.drop(api.MeshIdentities, "east", "identity") }}
			case 1:
				return change{drop: func(r *rows) { r.drop(api.MeshTrusts, "west", "identity") }}
			}
			return change{at: "east", docs: []string{trust("east"), "type: MeshIdentity\nmesh: default\nname: identity\nspec:\n  selector: {dataplane: {matchLabels: {" +
				rapid.SampledFrom([]string{"", "version: '1'"}).Draw(t, "who") + "}}}\n  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}\n"}}
		case 15:
			target := rapid.SampledFrom([]string{"kind: Mesh", to("a"), "kind: MeshMultiZoneService, labels: {kuma.io/display-name: m}"}).Draw(t, "of")
			where := "  targetRef: {kind: Dataplane, labels: {" + rapid.SampledFrom([]string{"app: a", "version: '1'"}).Draw(t, "who") + "}}\n"
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				return change{drop: func(r *rows) { r.drop(api.MeshLoadBalancingStrategies, "global", "l"+n) }}
			case 1:
				return change{at: "global", docs: []string{"type: MeshTCPRoute\nmesh: default\nname: c\nspec:\n" + where + "  to: [{targetRef: {" + to("a") + "}, rules: [{default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: " + one[:1] + "}, port: 81}]}}]}]\n"}}
			case 2:
				return change{at: "global", docs: []string{"type: MeshRetry\nmesh: default\nname: r" + n + "\nspec:\n" + where + "  to: [{targetRef: {" + target + "}, default: {http: {numRetries: 2}, tcp: {maxConnectAttempt: 3}}}]\n"}}
			}
			return change{at: "global", docs: []string{"type: MeshLoadBalancingStrategy\nmesh: default\nname: l" + n + "\nspec:\n" + where + "  to: [{targetRef: {" + target + "}, default: {hashPolicies: [{type: Connection, connection: {sourceIP: true}}], localityAwareness: " +
				rapid.SampledFrom([]string{"{disabled: true}", "{localZone: {affinityTags: [{key: version}]}}", "{localZone: {affinityTags: [{key: app}, {key: version}]}}"}).Draw(t, "awareness") + "}}]\n"}}
		case 12:
			return change{drop: func(r *rows) { r.drop(api.MeshAccessLogs, "global", "l"+n) }}
		case 13:
			return change{at: "global", docs: []string{fmt.Sprintf("type: MeshAccessLog\nmesh: default\nname: l%s\nspec: {%s}\n---\ntype: MeshOpenTelemetryBackend\nmesh: default\nname: otel\nlabels: {app: %s}\nspec: {endpoint: {port: %d}}\n",
				n, fmt.Sprintf(rapid.SampledFrom([]string{
					"to: [{targetRef: {kind: Mesh}, default: {backends: [%s]}}]",
					"to: [{targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: r}}, default: {backends: [%s]}}]",
					"targetRef: {kind: Dataplane, labels: {app: a}}, rules: [{matches: [{sni: {type: Exact, value: x}}], default: {backends: [%s]}}]",
				}).Draw(t, "logs"), rapid.SampledFrom([]string{
					"", "{type: File, file: {path: /dev/null}}", "{type: Tcp, tcp: {address: 'x:1'}}",
					"{type: OpenTelemetry, openTelemetry: {backendRef: {kind: MeshOpenTelemetryBackend, labels: {app: a}}}}",
				}).Draw(t, "backend")), one[:1], rapid.SampledFrom([]int{4317, 4318}).Draw(t, "collector"))}}
		case 14:
			return change{at: "west", docs: []string{trust("west"), fmt.Sprintf("type: MeshZoneAddress\nmesh: default\nname: %s\nspec: {address: 192.0.2.%d, port: 10001}\n", n, rapid.IntRange(1, 2).Draw(t, "address"))}}
		}
		return change{feed: func(tx *db.Tx) {
			api.Connections.Put(tx, &api.Connection{Proxy: proxyID(one), AdminPort: 9901, ReusePort: n == "a"})
			api.Leaves.Put(tx, &api.Leaf{Proxy: proxyID(one), Identity: api.LocalID(api.MeshIdentities, "default", "", "identity", east), SPIFFE: "spiffe://default.east.mesh.local/workload/" + one, Chain: "c", Key: "k"})
		}}
	})
}

// crowded enters a mesh in which most writes mean something.
func crowded(r *rows) {
	port := "  ports: [{port: 80, name: http, targetPort: 8080, appProtocol: http}, {port: 81, targetPort: 9090}]\n"
	for _, z := range []string{"east", "west"} {
		r.put(z, trust(z))
		for _, n := range []string{"a", "b", "c.d"} {
			r.put(z, "type: MeshService\nmesh: default\nname: "+n+"\nspec:\n  state: Available\n  selector: {dataplaneLabels: {matchLabels: {app: "+n[:1]+"}}}\n"+port)
		}
	}
	r.put("west", "type: MeshZoneAddress\nmesh: default\nname: one\nspec: {address: 192.0.2.1, port: 10001}\n")
	r.put("global", "type: MeshMultiZoneService\nmesh: default\nname: m\nspec:\n  selector: {meshService: {matchLabels: {kuma.io/display-name: a}}}\n  ports: [{port: 80, name: http, appProtocol: http}]\n")
	for i, n := range []string{"a1", "a2", "b1", "c1"} {
		r.put("east", fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nlabels: {app: %s, version: '%d'}\nnetworking:\n  address: 10.0.0.%d\n  inbound: [{port: 8080, name: http, protocol: http}, {port: 9090}]\n  outbound:\n    - {port: 10000, backendRef: {kind: MeshService, name: a, port: 80}}\n    - {port: 10001, backendRef: {kind: MeshService, name: c.d, port: 80}}\n    - {port: 10002, backendRef: {kind: MeshMultiZoneService, labels: {kuma.io/display-name: m}, port: 80}}\n    - {port: 10003, backendRef: {kind: MeshService, labels: {kuma.io/zone: west}, port: 81}}\n", n, n[:1], i%2+1, i+1))
	}
	r.put("east", "type: Dataplane\nmesh: default\nname: ingress\nnetworking:\n  address: 10.0.0.9\n  listeners: [{type: ZoneIngress, address: 10.0.0.9, port: 10001}]\n")
}

// TestIncrementalEqualsScratch: after any writes the plan of every proxy is, in
// names, keys and bytes, what a new engine makes of the same rows; and it is whole.
func TestIncrementalEqualsScratch(t *testing.T) {
	var ids []api.ID
	for _, name := range []string{"a1", "a2", "b1", "b2", "c1", "c2", "ingress"} {
		ids = append(ids, proxyID(name))
	}
	rapid.Check(t, func(t *rapid.T) {
		r := newRows()
		crowded(r)
		e := incr.New(r.Snapshot(), incr.WithGrace(1), incr.WithWorkers(2))
		var touched []db.Touch
		defer r.OnCommit(func(c db.Commit) { touched = append(touched, c.Touched...) })()
		plans := map[api.ID]*plan.Plan{}
		contents := map[plan.Ref]*wire.Resource{}
		hold := func(id api.ID) func() {
			held := map[plan.Ref]func(){}
			release := incr.Hold(e, plan.Proxy.Ref(id), func(p *plan.Plan, _ error) {
				plans[id] = p
				for _, typ := range wire.Types() {
					p.All(typ, func(_ string, ref plan.Ref) bool {
						if held[ref] == nil { // what is no longer named stays held: it must stay right as well
							held[ref] = incr.Hold(e, ref, func(res *wire.Resource, _ error) { contents[ref] = res })
						}
						return true
					})
				}
			})
			return func() {
				release()
				for _, release := range held {
					release()
				}
			}
		}
		connected := map[api.ID]func(){}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for _, c := range rapid.SliceOfN(changes(), 0, 6).Draw(t, "changes") {
				switch {
				case c.drop != nil:
					c.drop(r)
				case c.feed != nil:
					r.write(c.feed)
				default:
					r.put(c.at, c.docs...)
				}
			}
			for _, id := range rapid.SliceOfN(rapid.SampledFrom(ids), 0, 3).Draw(t, "proxies") {
				if release := connected[id]; release != nil && rapid.Bool().Draw(t, "leave") {
					release()
					delete(connected, id)
					delete(plans, id)
				} else if release == nil {
					connected[id] = hold(id)
				}
			}
			now := touched
			touched = nil
			e.Advance(r.Snapshot(), now)
			fresh := incr.New(r.Snapshot(), incr.WithWorkers(1))
			for _, id := range ids {
				if connected[id] == nil {
					continue
				}
				want, err := incr.Peek(fresh, plan.Proxy.Ref(id))
				if err != nil {
					t.Fatal(err)
				}
				compare(t, id, plans[id], want, contents, fresh)
				whole(t, r.Snapshot(), want, fresh)
			}
			if failing := fresh.Failing(); len(failing) > 0 {
				t.Fatal(failing)
			}
		}
		for _, release := range connected {
			release()
		}
		e.Settle()
		e.Settle()
		e.Settle()
		if s := e.Stats(); s.Nodes != 0 {
			t.Fatalf("%d queries are left for nobody: %v", s.Nodes, s)
		}
	})
}

func compare(t *rapid.T, id api.ID, got, want *plan.Plan, contents map[plan.Ref]*wire.Resource, fresh *incr.Engine) {
	t.Helper()
	for _, typ := range wire.Types() {
		names := map[string]plan.Ref{}
		got.All(typ, func(name string, ref plan.Ref) bool { names[name] = ref; return true })
		want.All(typ, func(name string, ref plan.Ref) bool {
			if names[name] != ref {
				t.Fatalf("%s: %s %s is %v, from scratch %v", id.Name, typ.Short(), name, names[name], ref)
			}
			delete(names, name)
			is := contents[ref]
			should, err := incr.Peek(fresh, ref)
			if err != nil {
				t.Fatal(err)
			}
			if (is == nil) != (should == nil) || is != nil && (is.Version != should.Version || !bytes.Equal(is.Body(), should.Body())) {
				t.Fatalf("%s: %s %s differs from scratch", id.Name, typ.Short(), name)
			}
			return true
		})
		if len(names) > 0 {
			t.Fatalf("%s: %s %v are not there from scratch", id.Name, typ.Short(), slices.Sorted(maps.Keys(names)))
		}
	}
}

// whole checks that everything that a plan names is in it. Two things may be
// missing: a cluster of a service whose name makes no server name (its calls
// fail, rather than go in plaintext), and secrets that are not issued yet (Envoy
// waits for them; the names are there). An ingress with nothing to expose has no listener.
func whole(t *rapid.T, s *db.Snapshot, p *plan.Plan, e *incr.Engine) {
	t.Helper()
	for _, typ := range wire.Types() {
		p.All(typ, func(name string, r plan.Ref) bool {
			res, _ := incr.Peek(e, r)
			if res == nil {
				if typ != wire.Secret && !strings.HasPrefix(name, "self_zoneingress_dp_") {
					t.Fatalf("%s %s has no content", typ.Short(), name)
				}
				return true
			}
			for _, needs := range namedBy(decoded(&anypb.Any{TypeUrl: string(res.Type), Value: res.Body()})) {
				if _, ok := p.Get(needs.typ, needs.name); ok {
					continue
				}
				id, section, err := api.ParseKRI(needs.name)
				kind, _ := api.ByName(id.Kind)
				if needs.typ == wire.Cluster && err == nil {
					if _, callable := api.SNI(kind, id, section); !callable {
						continue
					}
				}
				t.Fatalf("%s %s names %s %s, which is not in the plan", typ.Short(), name, needs.typ.Short(), needs.name)
			}
			return true
		})
	}
}
