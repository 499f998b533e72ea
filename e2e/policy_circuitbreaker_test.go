package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// circuitBreaker: an endpoint that fails is ejected, so that the other one answers
// all; of a service that may have one request under way the second is refused at
// once, here and across zones.
func circuitBreaker(t *testing.T, l *lab) {
	undo := l.with(t, `
type: MeshCircuitBreaker
mesh: default
name: eject
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}}
      default:
        outlierDetection:
          interval: 1s
          baseEjectionTime: 60s
          maxEjectionPercent: 50
          detectors: {totalFailures: {consecutive: 2}}
`)
	eventually(t, "api-1 is ejected", func() error {
		for range 10 {
			if a := l.call(t, apiHTTP, "/eject?fail=1000&key=eject&on=api-1"); a.Status != http.StatusOK || a.Name != "api-2" {
				return fmt.Errorf("%d by %s", a.Status, a.Name)
			}
		}
		return nil
	})
	undo()
	eventually(t, "api-1 is back", func() error {
		if a := l.call(t, apiHTTP, "/"); a.Name != "api-1" {
			return fmt.Errorf("%s answers", a.Name)
		}
		return nil
	})

	l.with(t, `
type: MeshCircuitBreaker
mesh: default
name: one
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: remote}}
      default: {connectionLimits: {maxRequests: 1, maxPendingRequests: 1}}
`)
	slow := make(chan answer, 1) // the first request
	url := l.web.outbounds[remoteHTTP] + "/slow?sleep=3s"
	go func() {
		a, _ := send(url)
		slow <- a
	}()
	eventually(t, "the slow request is under way", func() error {
		if n := l.apps["remote-1"].requests("/slow"); n != 1 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	if a := l.call(t, remoteHTTP, "/second"); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Text, "overflow") {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := <-slow; a.Status != http.StatusOK {
		t.Errorf("the first request: %d %s", a.Status, a.Text)
	}
}
