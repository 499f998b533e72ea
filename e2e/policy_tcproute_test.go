package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// tcpRoute: connections to one service are split between it and one of the other
// zone by weight; without weight nobody gets there; a port that speaks HTTP is
// split in the same way, and requests of a port that speaks TCP can be routed.
func tcpRoute(t *testing.T, l *lab) {
	const split = `
type: MeshTCPRoute
mesh: default
name: split
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}}
      rules:
        - default:
            backendRefs:
              - {kind: MeshService, labels: {kuma.io/display-name: api}, port: 9090, weight: %d}
              - {kind: MeshService, labels: {kuma.io/display-name: remote}, port: 9090, weight: %d}
`
	connections := func(n int) map[string]int {
		t.Helper()
		seen := map[string]int{}
		for range n {
			c, name, err := l.dial(t, apiRaw)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			seen[name]++
		}
		return seen
	}
	if seen := connections(10); seen["remote-1"] != 0 {
		t.Errorf("no policy: %v", seen)
	}
	undo := l.with(t, fmt.Sprintf(split, 3, 1))
	// Of 200, 50 are expected; 6 standard deviations are 37.
	if n := connections(200)["remote-1"]; n < 13 || n > 87 {
		t.Errorf("of 200 connections %d went to the other zone", n)
	}
	undo()
	undo = l.with(t, fmt.Sprintf(split, 0, 1))
	if seen := connections(20); seen["remote-1"] != 20 {
		t.Errorf("all to the other zone: %v", seen)
	}
	undo()
	if seen := connections(10); seen["remote-1"] != 0 {
		t.Errorf("the policy is gone: %v", seen)
	}

	t.Cleanup(httpClient.CloseIdleConnections) // they lead where the policy said
	l.with(t, `
type: MeshTCPRoute
mesh: default
name: moved
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}, sectionName: http}
      rules: [{default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: remote}, port: 8080}]}}]
`, `
type: MeshHTTPRoute
mesh: default
name: told-apart
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}, sectionName: raw}
      rules:
        - matches: [{path: {type: PathPrefix, value: /here}}]
          default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: api}, port: 8080}]}
        - matches: [{path: {type: PathPrefix, value: /there}}]
          default: {backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: remote}, port: 8080}]}
`)
	for _, one := range []struct{ to, path, name string }{
		{apiHTTP, "/", "remote-1"}, {apiRaw, "/there", "remote-1"}, {apiRaw, "/here", "api-"},
	} {
		eventually(t, one.to+one.path, func() error { // a listener of another kind lets kept connections drain
			if a := l.call(t, one.to, one.path); a.Status != http.StatusOK || !strings.HasPrefix(a.Name, one.name) {
				return fmt.Errorf("%d by %q", a.Status, a.Name)
			}
			return nil
		})
	}
}
