package envoy_test

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// FuzzPatch: a patch that is accepted changes any resource into one that is
// valid, the same each time, or is refused there with a reason.
func FuzzPatch(f *testing.F) {
	const (
		buffer  = `{"name":"b","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer","maxRequestBytes":9}}`
		manager = `{"name":"envoy.filters.network.http_connection_manager","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","httpFilters":[` + buffer + `]}}`
		host    = `{"name":"h","domains":["h"],"routes":[{"match":{"prefix":"/"},"directResponse":{"status":200}}]}`
	)
	for _, seed := range []struct{ target, operation, name, value, patch string }{
		{"cluster", "Add", "", `{"name":"a","connectTimeout":"5s"}`, ``},
		{"cluster", "Patch", "", `{"connectTimeout":"5s","metadata":{"filterMetadata":{"a":{"b":null}}}}`, ``},
		{"cluster", "Patch", "", `{"typedExtensionProtocolOptions":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}}}`, ``},
		{"cluster", "Patch", "", ``, `[{"op":"add","path":"/dnsLookupFamily","value":"V4_ONLY"},{"op":"move","from":"/name","path":"/altStatName"}]`},
		{"listener", "Add", "", `{"name":"a"}`, ``},
		{"listener", "Patch", "", `{"filterChains":[{}],"defaultFilterChain":{"filters":[` + manager + `]}}`, ``},
		{"listener", "Patch", "", ``, `[{"op":"remove","path":"/filterChains/0/filters"},{"op":"copy","from":"","path":"/a"}]`},
		{"networkFilter", "Patch", "envoy.filters.network.http_connection_manager", manager, ``},
		{"networkFilter", "AddFirst", "", `{"name":"x"}`, ``},
		{"networkFilter", "Remove", "", ``, ``},
		{"httpFilter", "AddBefore", "envoy.filters.http.router", buffer, ``},
		{"httpFilter", "AddLast", "", buffer, ``},
		{"httpFilter", "Patch", "envoy.filters.http.router", ``, `[{"op":"add","path":"/suppressEnvoyHeaders","value":true}]`},
		{"virtualHost", "Add", "", host, ``},
		{"virtualHost", "Patch", "", `{"retryPolicy":{"numRetries":1}}`, ``},
		{"virtualHost", "Patch", "", ``, `[{"op":"replace","path":"/routes/0/route/timeout","value":"1s"}]`},
	} {
		f.Add(seed.target, seed.operation, seed.name, []byte(seed.value), []byte(seed.patch))
	}
	if _, err := patchedListener(nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target, operation, name string, value, patch []byte) {
		if len(value) > 0 || operation == "Add" {
			if _, err := envoy.ParsePatch(target, value, operation != "Patch"); err != nil {
				return
			}
		}
		p := []ir.Patch{{Policy: "kri_mpp_shop___a_", Target: target, Operation: operation, Name: name, Value: value, JSONPatch: patch}}
		twice(t, p, patchedListener)
		twice(t, p, func(p []ir.Patch) (*clusterv3.Cluster, error) {
			return envoy.Cluster(ir.Cluster{Name: "c", Protocol: ir.HTTP2, Patches: p})
		})
		twice(t, p, func(p []ir.Patch) (*routev3.RouteConfiguration, error) {
			routes := someRoutes
			routes.Patches = p
			return envoy.Routes(routes)
		})
		if operation == "Add" {
			twice(t, p, envoy.Added)
		}
	})
}

var someRoutes = ir.RouteConfig{Name: "r", Hosts: []ir.VirtualHost{{
	Name: "h", Routes: []ir.Route{{Name: "all", Forward: &ir.Forward{Backends: []ir.Backend{{Cluster: "c"}}}}},
}}}

func patchedListener(p []ir.Patch) (*listenerv3.Listener, error) {
	routes := someRoutes
	return envoy.Listener(ir.Listener{
		Name: "l", Address: ir.Address{Host: "127.0.0.1", Port: 80}, Chains: []ir.Chain{{HTTP: &ir.HTTP{Routes: &routes}}}, Patches: p,
	})
}

// twice builds a resource two times: both are equal, or neither is one.
func twice[M proto.Message](t *testing.T, patches []ir.Patch, build func([]ir.Patch) (M, error)) {
	t.Helper()
	first, err := build(patches)
	second, again := build(patches)
	switch {
	case (err == nil) != (again == nil):
		t.Fatalf("%v, then %v", err, again)
	case err == nil && !proto.Equal(first, second):
		t.Fatalf("%v, then %v", first, second)
	}
}
