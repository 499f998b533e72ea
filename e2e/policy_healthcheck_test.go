package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// healthCheck: an endpoint that does not answer its probe is not used; where none
// does, in the other zone, calls are refused.
func healthCheck(t *testing.T, l *lab) {
	probe := func(name, service, path string) string {
		return fmt.Sprintf(`
type: MeshHealthCheck
mesh: default
name: %s
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: %s}}
      default: {interval: 100ms, noTrafficInterval: 100ms, unhealthyThreshold: 1, failTrafficOnPanic: true, http: {path: '%s'}}
`, name, service, path)
	}
	only := func(name string) func() error {
		return func() error {
			for range 10 {
				if a := l.call(t, apiHTTP, "/"); a.Status != http.StatusOK || a.Name != name {
					return fmt.Errorf("%d by %s", a.Status, a.Name)
				}
			}
			return nil
		}
	}
	undo := l.with(t, probe("api", "api", "/healthz?fail=1000000&key=health&on=api-1"))
	eventually(t, "api-1 is left out", only("api-2"))
	undo()
	eventually(t, "api-1 is back", func() error {
		if a := l.call(t, apiHTTP, "/"); a.Name != "api-1" {
			return fmt.Errorf("%s answers", a.Name)
		}
		return nil
	})

	undo = l.with(t, probe("remote", "remote", "/healthz?status=503"))
	eventually(t, "nobody is left in the other zone", func() error {
		if a := l.call(t, remoteHTTP, "/"); a.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	undo()
	eventually(t, "the other zone is back", func() error {
		if a := l.call(t, remoteHTTP, "/"); a.Status != http.StatusOK {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
}
