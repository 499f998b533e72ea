package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// The mesh of the benchmarks: proxies of so many classes, each of which calls
// all services, at addresses of its own.
const (
	benchClasses  = 50
	benchProxies  = 10 // of a class
	benchServices = 100
)

// BenchmarkChange is one round of an engine that holds what a server of
// discovery holds: the plans of all proxies and every resource they name.
func BenchmarkChange(b *testing.B) {
	timeouts := func(target, conf string) func(int) string {
		return func(n int) string {
			return `{"type":"MeshTimeout","mesh":"default","name":"t","spec":{"to":[{"targetRef":{` + target + `},"default":{` + fmt.Sprintf(conf, n+1) + `}}]}}`
		}
	}
	one := `"kind":"MeshService","labels":{"kuma.io/display-name":"s007"}`
	for _, c := range []struct {
		name, at string
		doc      func(n int) string
	}{
		{"mesh-wide routes", "global", timeouts(`"kind":"Mesh"`, `"http":{"requestTimeout":"%ds"}`)},
		{"mesh-wide clusters", "global", timeouts(`"kind":"Mesh"`, `"connectionTimeout":"%ds"`)},
		{"routes of one service", "global", timeouts(one, `"http":{"requestTimeout":"%ds"}`)},
		{"endpoint", "east", func(n int) string { return benchProxy(3, 1, []string{"NotReady", "Ready"}[n%2]) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := benchWorld(b)
			e := incr.New(w.db.Snapshot(), incr.WithWorkers(1))
			var touched []db.Touch
			defer w.db.OnCommit(func(c db.Commit) { touched = append(touched, c.Touched...) })()
			holdAll(e)
			e.Settle()
			next := func(n int) int {
				b.StopTimer()
				touched = touched[:0]
				w.put(b, c.at, []byte(c.doc(n)))
				b.StartTimer()
				return e.Advance(w.db.Snapshot(), touched).Ran
			}
			next(0)
			b.ReportAllocs()
			ran, n := 0, 1
			for ; b.Loop(); n++ {
				ran += next(n)
			}
			b.ReportMetric(float64(ran)/float64(n-1), "queries/op")
		})
	}
}

// BenchmarkConnect is the first round of all proxies.
func BenchmarkConnect(b *testing.B) {
	w := benchWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		e := incr.New(w.db.Snapshot(), incr.WithWorkers(1))
		holdAll(e)
		e.Settle()
	}
}

func benchProxy(class, i int, state string) string {
	var outs []string
	for j := range benchServices {
		outs = append(outs, fmt.Sprintf(`{"port":%d,"backendRef":{"kind":"MeshService","name":"s%03d","port":80}}`, 10_000+j, (class+j)%benchServices))
	}
	return fmt.Sprintf(`{"type":"Dataplane","mesh":"default","name":"p%03d-%d","labels":{"app":"s%03d"},"networking":{"address":"10.0.%d.%d",
		"inbound":[{"port":8080,"protocol":"http","state":%q}],"outbound":[%s]}}`, class, i, class, class, i+1, state, strings.Join(outs, ","))
}

func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.put(b, "east", []byte(`{"type":"MeshIdentity","mesh":"default","name":"identity","spec":{"selector":{"dataplane":{"matchLabels":{}}},"provider":{"type":"Bundled","bundled":{"autogenerate":{"enabled":true}}}}}`))
	for s := range benchServices {
		w.put(b, "east", fmt.Appendf(nil, `{"type":"MeshService","mesh":"default","name":"s%03d","spec":{"selector":{"dataplaneLabels":{"matchLabels":{"app":"s%03d"}}},"ports":[{"port":80,"targetPort":8080,"appProtocol":"http"}]}}`, s, s))
	}
	for c := range benchClasses {
		for i := range benchProxies {
			w.put(b, "east", []byte(benchProxy(c, i, "Ready")))
		}
	}
	return w
}

// holdAll holds the plan of every proxy and the resources that it names.
func holdAll(e *incr.Engine) {
	users := map[*plan.Set]int{}
	type held struct {
		sets    int
		release func()
	}
	resources := map[plan.Ref]*held{}
	enter := func(s *plan.Set) {
		if users[s]++; users[s] > 1 {
			return
		}
		for _, t := range wire.Types() {
			for _, ref := range s.Of(t) {
				if resources[ref] == nil {
					resources[ref] = &held{release: incr.Hold(e, ref, func(*wire.Resource, error) {})}
				}
				resources[ref].sets++
			}
		}
	}
	leave := func(s *plan.Set) {
		if users[s]--; users[s] > 0 {
			return
		}
		delete(users, s)
		for _, t := range wire.Types() {
			for _, ref := range s.Of(t) {
				if resources[ref].sets--; resources[ref].sets == 0 {
					resources[ref].release()
					delete(resources, ref)
				}
			}
		}
	}
	for c := range benchClasses {
		for i := range benchProxies {
			var old *plan.Plan
			id := api.LocalID(api.Dataplanes, "default", "", fmt.Sprintf("p%03d-%d", c, i), east)
			incr.Hold(e, plan.Proxy.Ref(id), func(p *plan.Plan, _ error) {
				enter(p.Own)
				enter(p.Class)
				if old != nil {
					leave(old.Own)
					leave(old.Class)
				}
				old = p
			})
		}
	}
}
