package xds_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds/wire"
)

const patience = 30 * time.Second // for a loaded machine; nothing here waits that long when it works

// TestEnvoy leads a real Envoy through changes. After each of them it has taken
// everything: nothing is warming, nothing was refused, nothing names what is not there.
func TestEnvoy(t *testing.T) {
	r := newRows()
	web := func(outbounds ...string) string {
		text := dataplane("web", "web", "127.77.0.2", true)
		for i, o := range outbounds {
			if i == 0 {
				text += "  outbound:\n"
			}
			text += "    - " + o + "\n"
		}
		return text
	}
	out := func(port int, to string) string {
		return fmt.Sprintf("{address: 127.77.0.1, port: %d, backendRef: {kind: MeshService, name: %s, port: 80}}", port, to)
	}
	r.put("east", service("a"), service("b"), dataplane("a1", "a", "127.77.0.3", true), dataplane("b1", "b", "127.77.0.4", true),
		web(out(10001, "a"), out(10002, "b")))
	e := startEnvoy(t, r)
	e.settled("first configuration", "a", "b")

	r.put("east", service("c"), dataplane("c1", "c", "127.77.0.5", true), web(out(10001, "a"), out(10002, "b"), out(10003, "c")))
	e.settled("a service more", "a", "b", "c")
	r.put("global", timeout("quick", to("a"), "2s"))
	e.settled("a timeout", "a", "b", "c")
	r.put("east", dataplane("b1", "b", "127.77.0.4", false))
	e.settled("nobody left", "a", "b", "c")
	r.put("east", dataplane("b2", "b", "127.77.0.6", true))
	e.settled("somebody new", "a", "b", "c")
	r.put("east", strings.Replace(service("b"), "appProtocol: http", "appProtocol: tcp", 1))
	e.settled("another protocol", "a", "b", "c")

	r.put("east", trust("east"), "type: MeshIdentity\nmesh: default\nname: identity\nspec:\n  selector: {dataplane: {matchLabels: {}}}\n  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}\n")
	certificate, key := read(t, "plan/testdata/leaf.pem"), read(t, "plan/testdata/leaf.key")
	r.write(func(tx *db.Tx) { // later, as it is issued later
		api.Leaves.Put(tx, &api.Leaf{
			Proxy: proxyID("web"), Identity: api.LocalID(api.MeshIdentities, "default", "", "identity", east),
			SPIFFE: "spiffe://default.east.mesh.local/workload/web", Chain: certificate, Key: key,
		})
	})
	e.settled("TLS", "a", "b", "c")
	r.put("east", strings.Replace(dataplane("a2", "a", "127.77.0.7", true), "kuma.io/workload: a", "kuma.io/workload: a-canary", 1))
	e.settled("another identity behind a service", "a", "b", "c")
	r.put("global", permit("all", ""))
	e.settled("a permission", "a", "b", "c")
	r.drop(api.MeshIdentities, "east", "identity")
	e.settled("no TLS", "a", "b", "c")

	r.put("east", web(out(10001, "a"), out(10003, "c")))
	e.settled("a service less", "a", "c")
	e.refused(0)

	// Envoy refuses a listener whose address another one has. That one goes after
	// the drain time, and what was refused is sent again.
	r.put("east", web(out(10001, "a"), out(10003, "b")))
	e.settled("an address changes hands", "a", "b")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// running is a real Envoy, which is the proxy web.
type running struct {
	t     *testing.T
	p     *plane
	admin string
	ended chan struct{}
}

func startEnvoy(t *testing.T, r *rows) *running {
	t.Helper()
	binary := findEnvoy(t)
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &running{t: t, p: serve(t, r, at, 300*time.Millisecond), ended: make(chan struct{})}
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
node: {id: default.web, cluster: web}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: system_ads}}]}
static_resources:
  clusters:
    - name: system_ads
      type: STATIC
      connect_timeout: 5s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment:
        cluster_name: system_ads
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`, at.Addr().(*net.TCPAddr).Port), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	command := exec.Command(binary, "-c", config, "-l", "warning", "--concurrency", "1", "--disable-hot-restart", "--admin-address-path", admin)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what is found on PATH may be a script around Envoy
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(e.ended)
		_ = command.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		<-e.ended
		if t.Failed() {
			t.Logf("Envoy said:\n%s", said.Bytes())
		}
	})
	e.eventually("administration", func() string {
		address, err := os.ReadFile(admin)
		if err != nil || len(address) == 0 {
			return "no address yet"
		}
		e.admin = string(address)
		return ""
	})
	return e
}

func findEnvoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ATOLL_ENVOY"); path != "" {
		return path
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	if path, err := filepath.Abs("../.tools/envoy/envoy"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no Envoy in $ATOLL_ENVOY, on PATH or in .tools/envoy (`make envoy` fetches it): the test with a real one left out")
	return ""
}

// eventually waits until there is nothing wrong.
func (e *running) eventually(what string, wrong func() string) {
	e.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		fault := wrong()
		if fault == "" {
			return
		}
		select {
		case <-again.C:
		case <-e.ended:
			e.t.Fatalf("%s: Envoy ended; %s", what, fault)
		case <-limit.C:
			e.t.Fatalf("%s: %s", what, fault)
		}
	}
}

func (e *running) get(path string) []byte {
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.admin+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil
	}
	defer a.Body.Close()
	body, _ := io.ReadAll(a.Body)
	return body
}

// settled waits until Envoy has acknowledged the newest rows and nothing else
// than the services is there.
func (e *running) settled(what string, services ...string) {
	e.t.Helper()
	began := time.Now()
	revision := uint64(e.p.Snapshot().Revision())
	e.eventually(what, func() string {
		if c := e.p.server.Convergence(9); c.Revision < revision || c.Proxies != 1 || c.Behind+c.Rejected > 0 {
			return fmt.Sprintf("not converged at %d: %+v", revision, c)
		}
		return e.wrong(services)
	})
	e.t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
}

// wrong says what is not as it should be.
func (e *running) wrong(services []string) string {
	var dump adminv3.ConfigDump
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(e.get("/config_dump?include_eds"), &dump); err != nil {
		return err.Error()
	}
	has := map[wire.Type]map[string]bool{wire.Cluster: {}, wire.Route: {}, wire.Endpoints: {}, wire.Listener: {}, wire.Secret: {}}
	var names []ref
	routes := map[string][]ref{} // of listeners that are going, too
	for _, part := range dump.GetConfigs() {
		switch part := decoded(part).(type) {
		case *adminv3.ClustersConfigDump:
			for _, c := range part.GetDynamicWarmingClusters() {
				return fmt.Sprintf("warming: %v", c)
			}
			for _, c := range part.GetDynamicActiveClusters() {
				m := decoded(c.GetCluster())
				names = append(names, namedBy(m)...)
				has[wire.Cluster][nameOf(m)] = true
			}
		case *adminv3.ListenersConfigDump:
			for _, l := range part.GetDynamicListeners() {
				if l.GetActiveState() == nil && l.GetWarmingState() == nil && l.GetDrainingState() != nil {
					continue // gone, but for connections that are open
				}
				if l.GetActiveState() == nil || l.GetWarmingState() != nil {
					return "not active: " + l.GetName()
				}
				names = append(names, namedBy(decoded(l.GetActiveState().GetListener()))...)
				has[wire.Listener][l.GetName()] = true
			}
		case *adminv3.RoutesConfigDump:
			for _, x := range part.GetDynamicRouteConfigs() {
				m := decoded(x.GetRouteConfig())
				routes[nameOf(m)] = namedBy(m)
				has[wire.Route][nameOf(m)] = true
			}
		case *adminv3.EndpointsConfigDump:
			for _, x := range part.GetDynamicEndpointConfigs() {
				has[wire.Endpoints][clusterOf(decoded(x.GetEndpointConfig()))] = true
			}
		case *adminv3.SecretsConfigDump:
			for _, x := range part.GetDynamicWarmingSecrets() {
				return "warming: " + x.GetName()
			}
			for _, x := range part.GetDynamicActiveSecrets() {
				has[wire.Secret][x.GetName()] = true
			}
		}
	}
	for _, n := range slices.Clone(names) {
		if n.typ == wire.Route {
			names = append(names, routes[n.name]...)
		}
	}
	for _, n := range names {
		if !has[n.typ][n.name] {
			return fmt.Sprintf("%s %s is named and not there", n.typ.Short(), n.name)
		}
	}
	for _, t := range []wire.Type{wire.Cluster, wire.Listener, wire.Endpoints} {
		count := 0
		for name := range has[t] {
			if strings.HasPrefix(name, "kri_") {
				count++
			}
		}
		if count != len(services) {
			return fmt.Sprintf("%s: there are %v, not %v", t.Short(), has[t], services)
		}
		for _, s := range services {
			if !has[t][cluster(s)] {
				return fmt.Sprintf("%s of %s is not there", t.Short(), s)
			}
		}
	}
	return ""
}

// refused compares what Envoy counts.
func (e *running) refused(want int) {
	e.t.Helper()
	total := 0
	for line := range strings.Lines(string(e.get("/stats?filter=update_rejected"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var n int
		if _, err := fmt.Sscan(value, &n); err == nil && n > 0 {
			e.t.Logf("%s: %d", name, n)
			total += n
		}
	}
	if total != want {
		e.t.Errorf("Envoy refused %d updates, want %d", total, want)
	}
}
