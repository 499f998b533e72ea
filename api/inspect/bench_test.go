package inspect_test

import (
	"fmt"
	"strings"
	"testing"
)

// A proxy that calls 1,000 services, in a mesh with a policy for each of them.
func BenchmarkInspect(b *testing.B) {
	const services = 1000
	w := newWorld(b, "east")
	var web strings.Builder
	web.WriteString("type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: 10.0.0.1\n  outbound:\n")
	for i := range services {
		fmt.Fprintf(&web, "    - {port: %d, backendRef: {kind: MeshService, name: s%d, port: 80}}\n", 10000+i, i)
		w.documents("east", fmt.Sprintf("type: MeshService\nmesh: default\nname: s%d\nspec: {ports: [{port: 80, appProtocol: http}]}", i))
		w.documents("east", fmt.Sprintf("type: MeshTimeout\nmesh: default\nname: t%d\nspec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: s%d}}, default: {idleTimeout: 1s}}]}", i, i))
	}
	w.documents("east", web.String())
	w.documents("east", "type: DataplaneInsight\nmesh: default\nname: web")
	for _, call := range []string{"_rules", "_layout", "_outbounds/kri_msvc_default_east__s7_80/_policies", "_config", "_config?shadow=true&include=diff"} {
		b.Run(strings.ReplaceAll(call, "/", " "), func(b *testing.B) {
			for b.Loop() {
				if status, body := w.get(proxyPath + call); status != 200 {
					b.Fatal(status, body)
				}
			}
		})
	}
}
