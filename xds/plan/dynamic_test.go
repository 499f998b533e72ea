package plan_test

import (
	"encoding/json"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// told is what a listener for the program next to Envoy answers, by path.
func told(t *testing.T, w *world, id api.ID) map[string]string {
	t.Helper()
	_, config := w.plan(t, id)
	out := map[string]string{}
	m, ok := config["LDS"]["system_dynamicconfig"]
	if !ok {
		return out
	}
	var http hcmv3.HttpConnectionManager
	if err := m.(*listenerv3.Listener).FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(&http); err != nil {
		t.Fatal(err)
	}
	for _, r := range http.GetRouteConfig().VirtualHosts[0].Routes {
		if r.GetDirectResponse().Status == 200 {
			out[r.Match.GetPath()] = r.GetDirectResponse().GetBody().GetInlineString()
		}
	}
	return out
}

// Proxies behind a redirecting host are told the names of the services that they
// may call: those with an address, once each, sorted.
func TestNamesTold(t *testing.T) {
	w := newWorld(t)
	w.documents(t, "east", `
type: MeshService
mesh: default
name: api
spec: {ports: [{port: 80, name: http}, {port: 81, name: raw}]}
---
type: MeshService
mesh: default
name: waiting
spec: {ports: [{port: 80}]}
---
type: MeshService
mesh: default
name: portless
spec: {}
---
type: MeshService
mesh: default
name: db
spec: {ports: [{port: 80}]}
---
type: VirtualIP
name: 241.0.0.1
spec: {address: 241.0.0.1, service: {kind: MeshService, mesh: default, zone: east, name: api}}
---
type: VirtualIP
name: 241.0.0.2
spec: {address: 241.0.0.2, service: {kind: MeshService, mesh: default, zone: east, name: db}}
---
type: VirtualIP
name: 241.0.0.3
spec: {address: 241.0.0.3, service: {kind: MeshService, mesh: default, zone: east, name: portless}}
---
type: Dataplane
mesh: default
name: web
labels: {kuma.io/workload: front}
networking: {address: 10.0.0.1}
---
type: Dataplane
mesh: default
name: few
networking:
  address: 10.0.0.2
  transparentProxying: {redirectPortOutbound: 15001, reachableBackends: {refs: [{kind: MeshService, name: db, port: 80}]}}
---
type: Dataplane
mesh: default
name: plain
networking: {address: 10.0.0.3}
`)
	w.write(func(tx *db.Tx) {
		for _, name := range []string{"api", "waiting", "portless", "db"} {
			api.Hostnames.Put(tx, &api.ServiceHostnames{
				Service:   api.LocalID(api.MeshServices, "default", "", name, east),
				Addresses: []api.ServiceAddress{{Hostname: name + ".mesh"}, {Hostname: "a." + name + ".mesh"}},
			})
		}
	})
	redirected := &api.Redirection{Inbound: 15006, Outbound: 15001, DNS: true}
	v4 := &api.Redirection{Inbound: 15006, Outbound: 15001, DNS: true, IPv4Only: true}
	noDNS := &api.Redirection{Inbound: 15006, Outbound: 15001}
	records := func(name, v4, v6 string) []bootstrap.DNSRecord {
		ips := []string{v4}
		if v6 != "" {
			ips = append(ips, v6)
		}
		return []bootstrap.DNSRecord{{Name: "a." + name + ".mesh", IPs: ips}, {Name: name + ".mesh", IPs: ips}}
	}
	apis, dbs := records("api", "241.0.0.1", "::ffff:f100:1"), records("db", "241.0.0.2", "::ffff:f100:2")
	for _, c := range []struct {
		what string
		connected
		want *bootstrap.DNSConfig
	}{
		{
			"all services, the program of this project", connected{Name: "web", InWorkDir: true, Redirection: redirected},
			&bootstrap.DNSConfig{Records: []bootstrap.DNSRecord{apis[0], dbs[0], apis[1], dbs[1]}, TTL: 30},
		},
		{
			"only IPv4, of the ecosystem", connected{Name: "web", WorkDir: workDir, Redirection: v4},
			&bootstrap.DNSConfig{Records: []bootstrap.DNSRecord{
				{Name: "a.api.mesh", IPs: []string{"241.0.0.1"}}, {Name: "a.db.mesh", IPs: []string{"241.0.0.2"}},
				{Name: "api.mesh", IPs: []string{"241.0.0.1"}}, {Name: "db.mesh", IPs: []string{"241.0.0.2"}},
			}, TTL: 30, ExtraLabels: map[string]string{"kuma_workload": "front", "k8s_kuma_io_namespace": "", "mesh": "default", "kuma_io_zone": "east"}},
		},
		{"listed services", connected{Name: "few", InWorkDir: true, Redirection: redirected}, &bootstrap.DNSConfig{Records: dbs, TTL: 30}},
		{"names are not redirected", connected{Name: "web", InWorkDir: true, Redirection: noDNS}, nil},
		{"nothing is redirected", connected{Name: "plain", InWorkDir: true}, nil},
		{"no place for the socket", connected{Name: "web", Redirection: redirected}, nil},
	} {
		w.connect(c.connected)
		var got *bootstrap.DNSConfig
		if text, ok := told(t, w, c.id())[bootstrap.DNSPath]; ok {
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}
