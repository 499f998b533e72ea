package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// timeouts: a caller gets a 504 when the time that it is given is over, here and
// across zones; a route has a time of its own; who is called gives up too, whatever
// callers would wait; a connection without traffic is closed.
func timeouts(t *testing.T, l *lab) {
	const long = 8 * time.Second // what the application takes unless somebody gives up
	ends := func(what, to, path string, after time.Duration, status int) {
		t.Helper()
		eventually(t, what, func() error { // a changed listener lets kept connections drain
			a, err := send(l.web.outbounds[to] + path + "?sleep=" + long.String())
			if err != nil {
				return err
			}
			if a.Status != status || a.Took < after || a.Took >= long {
				return fmt.Errorf("%d after %v, want %d after %v", a.Status, a.Took, status, after)
			}
			return nil
		})
	}
	undo := l.with(t, `
type: MeshHTTPRoute
mesh: default
name: slow
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}, sectionName: http}
      rules: [{matches: [{path: {type: PathPrefix, value: /slow}}], default: {}}]
`, `
type: MeshTimeout
mesh: default
name: callers
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: Mesh}
      default: {idleTimeout: 300ms, http: {requestTimeout: 200ms}}
    - targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: slow}}
      default: {http: {requestTimeout: 600ms}}
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: remote}}
      default: {http: {requestTimeout: 400ms}}
`)
	ends("the caller's time", apiHTTP, "/", 200*time.Millisecond, http.StatusGatewayTimeout)
	ends("a route's own time", apiHTTP, "/slow", 600*time.Millisecond, http.StatusGatewayTimeout)
	ends("across zones", remoteHTTP, "/", 400*time.Millisecond, http.StatusGatewayTimeout)
	for _, to := range []string{apiHTTP, remoteHTTP} {
		if a := l.call(t, to, "/quick"); a.Status != http.StatusOK {
			t.Errorf("in time: %d %s", a.Status, a.Text)
		}
	}
	for _, to := range []string{apiRaw, remoteRaw} {
		c, _, err := l.dial(t, to)
		if err != nil {
			t.Fatal(err)
		}
		quiet := time.Now()
		if n, err := c.Read(make([]byte, 1)); err != io.EOF || time.Since(quiet) < 200*time.Millisecond {
			t.Errorf("%s: a quiet connection: %d bytes, %v after %v", to, n, err, time.Since(quiet))
		}
	}
	undo()

	l.with(t, `
type: MeshTimeout
mesh: default
name: called
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: api}}
  rules:
    - default: {http: {requestTimeout: 250ms}}
`, `
type: MeshTimeout
mesh: default
name: called-remote
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: remote}}
  rules:
    - matches: [{spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/web"}}]
      default: {http: {requestTimeout: 350ms}}
`)
	ends("the time of who is called", apiHTTP, "/", 250*time.Millisecond, http.StatusGatewayTimeout)
	ends("its time for this caller, across zones", remoteHTTP, "/", 350*time.Millisecond, http.StatusGatewayTimeout)
}
