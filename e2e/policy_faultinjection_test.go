package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// faultInjection: the proxy of the service answers instead of it, or waits first,
// for the callers that are named and for no others.
func faultInjection(t *testing.T, l *lab) {
	l.with(t, `
type: MeshFaultInjection
mesh: default
name: api
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: api}}
  rules:
    - default: {http: [{delay: {value: 300ms, percentage: 100}}]}
    - matches: [{spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/nobody"}}]
      default: {http: [{abort: {httpStatus: 418, percentage: 100}}]}
`, `
type: MeshFaultInjection
mesh: default
name: remote
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: remote}}
  rules:
    - matches: [{spiffeID: {type: Prefix, value: "spiffe://default.east.mesh.local/workload"}}]
      default: {http: [{abort: {httpStatus: 418, percentage: 100}}]}
`)
	eventually(t, "requests wait", func() error {
		if a := l.call(t, apiHTTP, "/delayed"); a.Status != http.StatusOK || a.Took < 300*time.Millisecond {
			return fmt.Errorf("%d in %v", a.Status, a.Took)
		}
		return nil
	})
	eventually(t, "requests are aborted", func() error {
		if a := l.call(t, remoteHTTP, "/aborted"); a.Status != http.StatusTeapot {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	before := l.apps["remote-1"].requests("/aborted")
	if a := l.call(t, remoteHTTP, "/aborted"); a.Status != http.StatusTeapot || l.apps["remote-1"].requests("/aborted") != before {
		t.Errorf("%d, and the application heard of it", a.Status)
	}
}
