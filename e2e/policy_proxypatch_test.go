package e2e

import (
	"fmt"
	"testing"
)

// proxyPatch: what Envoy is told in its own words it does, at the caller and at
// the called one, here and across zones.
func proxyPatch(t *testing.T, l *lab) {
	undo := l.with(t, `
type: MeshProxyPatch
mesh: default
name: patch
spec:
  default:
    appendModifications:
      - virtualHost:
          operation: Patch
          match: {origin: outbound}
          value: |
            responseHeadersToAdd: [{header: {key: x-by-caller, value: "1"}}]
      - virtualHost:
          operation: Patch
          match: {origin: inbound, name: self_inbound_dp_http}
          jsonPatches: [{op: add, path: /requestHeadersToAdd, value: [{header: {key: x-by-called, value: "2"}}]}]
      - httpFilter:
          operation: AddBefore
          match: {name: envoy.filters.http.router, listenerTags: {kuma.io/workload: remote}}
          value: |
            name: envoy.filters.http.header_mutation
            typedConfig:
              '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations: {requestMutations: [{append: {header: {key: x-filter, value: "3"}}}]}
`)
	for _, to := range []string{apiHTTP, remoteHTTP} {
		eventually(t, "patched calls to "+to, func() error { // connections of before are drained first
			a := l.call(t, to, "/")
			if a.Header.Get("x-by-caller") != "1" || a.Request.Get("x-by-called") != "2" || (a.Request.Get("x-filter") == "3") != (to == remoteHTTP) {
				return fmt.Errorf("%d, got %v, sent %v", a.Status, a.Header, a.Request)
			}
			return nil
		})
	}
	undo()
	eventually(t, "unpatched calls", func() error {
		if a := l.call(t, apiHTTP, "/"); a.Header.Get("x-by-caller") != "" || a.Request.Get("x-by-called") != "" {
			return fmt.Errorf("got %v, sent %v", a.Header, a.Request)
		}
		return nil
	})
}
