package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// rateLimit: what is beyond the limit is answered by the proxy of the service, by
// the rule that fits the caller best, here and across zones; connections beyond it
// are closed.
func rateLimit(t *testing.T, l *lab) {
	l.with(t, `
type: MeshRateLimit
mesh: default
name: api
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: api}}
  rules:
    - default: {local: {http: {requestRate: {num: 1, interval: 1h}, onRateLimit: {headers: {set: [{name: x-limit, value: all}]}}}}}
    - matches: [{spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/nobody"}}]
      default: {local: {http: {onRateLimit: {headers: {set: [{name: x-limit, value: nobody}]}}}}}
`, `
type: MeshRateLimit
mesh: default
name: remote
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: remote}}
  rules:
    - default: {local: {http: {requestRate: {num: 1000, interval: 1s}}}}
    - matches: [{spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/web"}}]
      default: {local: {http: {requestRate: {num: 2, interval: 1h}, onRateLimit: {status: 503, headers: {add: [{name: x-limit, value: web}]}}}}}
`, `
type: MeshRateLimit
mesh: default
name: raw
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: remote}, sectionName: raw}
  rules:
    - default: {local: {tcp: {connectionRate: {num: 1, interval: 1h}}}}
`)
	limited := func(to string, status int, by string) {
		t.Helper()
		path := "/limited/" + by
		passed := 0
		eventually(t, "a limit of "+to, func() error {
			a := l.call(t, to, path)
			if a.Status == http.StatusOK {
				passed++
			}
			if a.Status != status || a.Header.Get("x-limit") != by {
				return fmt.Errorf("%d %v %s", a.Status, a.Header, a.Text)
			}
			return nil
		})
		if passed == 0 {
			t.Errorf("%s: nothing passed", to)
		}
	}
	limited(apiHTTP, http.StatusTooManyRequests, "all")
	limited(remoteHTTP, http.StatusServiceUnavailable, "web")

	if _, name, err := l.dial(t, remoteRaw); err != nil || name != "remote-1" {
		t.Errorf("the first connection: %q %v", name, err)
	}
	eventually(t, "a connection beyond the limit", func() error {
		if _, name, err := l.dial(t, remoteRaw); err == nil {
			return fmt.Errorf("%s answers", name)
		}
		return nil
	})
}
