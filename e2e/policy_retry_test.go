package e2e

import (
	"net/http"
	"testing"
)

// retries: the server sees a request that failed again, as often as the policy
// says, here and across zones; requests that a route takes have retries of their
// own, and other methods have none.
func retries(t *testing.T, l *lab) {
	tries := func(what, to, path, query string, times, status int) {
		t.Helper()
		if a := l.call(t, to, path+query); a.Status != status {
			t.Errorf("%s: %d %s", what, a.Status, a.Text)
		}
		seen := 0
		for _, app := range l.apps {
			seen += app.requests(path)
		}
		if seen != times {
			t.Errorf("%s: the server saw it %d times, want %d", what, seen, times)
		}
	}
	tries("no policy", apiHTTP, "/plain", "?fail=1&key=plain", 1, http.StatusServiceUnavailable)
	l.with(t, `
type: MeshHTTPRoute
mesh: default
name: once
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}}
      rules: [{matches: [{path: {type: PathPrefix, value: /once}}], default: {}}]
`, `
type: MeshRetry
mesh: default
name: thrice
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: Mesh}
      default: {http: {numRetries: 3, retryOn: ["503"], backOff: {baseInterval: 1ms}}}
    - targetRef: {kind: MeshHTTPRoute, labels: {kuma.io/display-name: once}}
      default: {http: {numRetries: 1}}
`)
	tries("none is good", apiHTTP, "/none", "?fail=9&key=none", 4, http.StatusServiceUnavailable)
	tries("another status", apiHTTP, "/other", "?status=500", 1, http.StatusInternalServerError)
	tries("a route of its own", apiHTTP, "/once", "?fail=9&key=once", 2, http.StatusServiceUnavailable)
	tries("the third try is good, across zones", remoteHTTP, "/third", "?fail=2&key=third", 3, http.StatusOK)

	l.with(t, `
type: MeshRetry
mesh: default
name: posts
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: remote}}
      default: {http: {retryOn: [HttpMethodPost]}}
`)
	tries("another method", remoteHTTP, "/get", "?fail=9&key=get", 1, http.StatusServiceUnavailable)
}
