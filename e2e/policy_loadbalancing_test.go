package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// loadBalancing: requests with one value of a header stay at one endpoint; an
// endpoint in the caller's rack is preferred; when a zone has no endpoint left its
// callers go to another zone, unless a policy keeps them.
func loadBalancing(t *testing.T, l *lab) {
	undo := l.with(t, `
type: MeshLoadBalancingStrategy
mesh: default
name: users
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}}
      default:
        loadBalancer: {type: RingHash}
        hashPolicies: [{type: Header, header: {name: x-user}}]
`)
	serves := map[string]int{} // users, by application
	for user := range 20 {
		first := l.call(t, apiHTTP, "/", "x-user", fmt.Sprint(user)).Name
		for range 3 {
			if again := l.call(t, apiHTTP, "/", "x-user", fmt.Sprint(user)).Name; again != first {
				t.Fatalf("user %d: %s after %s", user, again, first)
			}
		}
		serves[first]++
	}
	if serves["api-1"] == 0 || serves["api-2"] == 0 {
		t.Errorf("users by application: %v", serves)
	}
	undo()

	rack := func(name string) map[string]string { return map[string]string{"rack": name} }
	local := []*sidecar{
		l.start(t, l.east, spec{name: "spread-1", service: "spread", labels: rack("r1")}),
		l.start(t, l.east, spec{name: "spread-2", service: "spread", labels: rack("r2")}),
	}
	l.start(t, l.west, spec{name: "spread-3", service: "spread", labels: rack("r1")})
	near := l.start(t, l.east, spec{name: "near-1", service: "near", labels: rack("r1"), outbounds: []string{"MeshMultiZoneService/spread//8080"}})
	l.with(t, `
type: MeshMultiZoneService
mesh: default
name: spread
spec:
  selector: {meshService: {matchLabels: {kuma.io/display-name: spread}}}
  ports: [{name: http, port: 8080, appProtocol: http}]
`)
	only := func(status int, names ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("calls are answered ", status, " by ", names), func() error {
			seen := map[string]bool{}
			for range 20 {
				a, err := send(near.outbounds["spread/"])
				if err != nil {
					return err
				}
				if a.Status != status {
					return fmt.Errorf("%d %s", a.Status, a.Text)
				}
				seen[a.Name] = true
			}
			for _, name := range names {
				delete(seen, name)
			}
			if len(seen) > 0 {
				return fmt.Errorf("%v", seen)
			}
			return nil
		})
	}
	only(http.StatusOK, "spread-1", "spread-2")
	strategy := func(awareness string) (undo func()) {
		return l.with(t, fmt.Sprintf(`
type: MeshLoadBalancingStrategy
mesh: default
name: spread
spec:
  to:
    - targetRef: {kind: MeshMultiZoneService, labels: {kuma.io/display-name: spread}}
      default: {localityAwareness: %s}
`, awareness))
	}
	undo = strategy(`{disabled: true}`)
	eventually(t, "the other zone is like the own", func() error {
		if a, err := send(near.outbounds["spread/"]); err != nil || a.Name != "spread-3" {
			return fmt.Errorf("%s %v", a.Name, err)
		}
		return nil
	})
	undo()
	undo = strategy(`{localZone: {affinityTags: [{key: rack, weight: 1000000}]}}`)
	only(http.StatusOK, "spread-1")
	for _, one := range local {
		one.stop()
	}
	only(http.StatusServiceUnavailable, "")
	undo()
	strategy(`{localZone: {affinityTags: [{key: rack}]}, crossZone: {failover: [{from: {zones: [west]}, to: {type: None}}, {to: {type: Only, zones: [west]}}]}}`)
	only(http.StatusOK, "spread-3")
}
