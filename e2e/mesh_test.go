package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/zone/proxy"
)

// envoy finds the Envoy that tests run.
func envoy(t testing.TB) string {
	t.Helper()
	for _, path := range []string{os.Getenv("ATOLL_ENVOY"), filepath.Join("..", ".tools", "envoy", "envoy")} {
		if path != "" {
			if abs, err := filepath.Abs(path); err == nil {
				if _, err := os.Stat(abs); err == nil {
					return abs
				}
			}
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("no Envoy: run `make envoy`, or set ATOLL_ENVOY")
	}
	return path
}

var hosts atomic.Uint32

// freeAddress returns a loopback address of its own and a port that is free there.
func freeAddress(t testing.TB) (string, int) {
	t.Helper()
	n := hosts.Add(1)
	host := fmt.Sprintf("127.%d.%d.%d", 10+os.Getpid()%200, n/250+1, n%250+1)
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return host, l.Addr().(*net.TCPAddr).Port
}

// freePort returns a port that is free at all addresses.
func freePort(t testing.TB) int {
	t.Helper()
	l := listen(t, ":0")
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// sidecar is an Envoy with its keeper and the application beside it.
type sidecar struct {
	name      string
	address   string // of the Dataplane
	token     string
	app       *httptest.Server
	outbounds map[string]string // service/zone → URL on which the application calls it; /port is added for a further port
	redirect  redirect
	stop      func()
	log       string
}

// spec is what a Dataplane of a test says.
type spec struct {
	mesh, name, service string
	outbounds           []string // kind/display name/zone/port
	ingress, egress     bool
	port                int      // of the inbound; 0 picks one
	inbounds            []string // further ones, JSON
	handler             http.HandlerFunc
	labels              map[string]string
	bound               bool // calls services by their virtual addresses, where it has sockets
	redirected          bool // has ports for a host that redirects what its application calls, see redirect
}

func startProxy(t testing.TB, z *plane, s spec) *sidecar {
	t.Helper()
	host, port := freeAddress(t)
	side := &sidecar{name: s.name, address: host, outbounds: map[string]string{}}
	networking := map[string]any{"address": host}
	switch {
	case s.ingress:
		networking["listeners"] = []any{map[string]any{"type": "ZoneIngress", "address": host, "port": port, "name": "ingress"}}
	case s.egress:
		networking["listeners"] = []any{map[string]any{"type": "ZoneEgress", "address": host, "port": port, "name": "egress"}}
	default:
		h := s.handler
		if h == nil {
			h = func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s peer=%s", s.name, r.Header.Get("x-forwarded-client-cert"))
			}
		}
		side.app = httptest.NewServer(h)
		t.Cleanup(side.app.Close)
		appPort := side.app.Listener.Addr().(*net.TCPAddr).Port
		if s.port != 0 {
			port = s.port
		}
		inbounds := []any{map[string]any{
			"name": "http", "port": port, "servicePort": appPort, "serviceAddress": "127.0.0.1", "protocol": "http",
		}}
		for _, in := range s.inbounds {
			inbounds = append(inbounds, json.RawMessage(in))
		}
		networking["inbound"] = inbounds
	}
	var outbounds []any
	for _, o := range s.outbounds {
		part := strings.Split(o, "/")
		ohost, oport := freeAddress(t)
		labels := map[string]string{"kuma.io/display-name": part[1]}
		if part[2] != "" {
			labels["kuma.io/zone"] = part[2]
		}
		var number int
		fmt.Sscan(part[3], &number)
		outbounds = append(outbounds, map[string]any{
			"address": ohost, "port": oport,
			"backendRef": map[string]any{"kind": part[0], "labels": labels, "port": number},
		})
		name := part[1] + "/" + part[2]
		if _, taken := side.outbounds[name]; taken {
			name += "/" + part[3]
		}
		side.outbounds[name] = fmt.Sprintf("http://%s:%d", ohost, oport)
	}
	if outbounds != nil {
		networking["outbound"] = outbounds
	}
	if s.redirected {
		side.redirect = redirect{freePort(t), freePort(t)}
		networking["transparentProxying"] = map[string]any{"redirectPortInbound": freePort(t), "redirectPortOutbound": side.redirect.out, "ipFamilyMode": "IPv4"}
	}
	labels := map[string]string{}
	maps.Copy(labels, s.labels)
	if s.service != "" {
		labels["kuma.io/workload"] = s.service
	}
	body, err := json.Marshal(map[string]any{"type": "Dataplane", "mesh": s.mesh, "name": s.name, "labels": labels, "networking": networking})
	if err != nil {
		t.Fatal(err)
	}
	token, err := z.client.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: s.mesh, Name: s.name, Workload: s.service, ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	side.token = token
	c := proxy.Default()
	c.ControlPlane = "https://" + z.value(t, "dp-server")
	c.CACertFile = filepath.Join(z.dir, "server.crt")
	c.Dataplane, c.Token = string(body), token
	c.Binary, c.Concurrency, c.EnvoyLogLevel = envoy(t), 1, "warning"
	c.BindOutbounds, c.DNSPort = s.bound, uint32(side.redirect.dns)
	c.DrainTime, c.StopTime, c.ReadinessPort = 100*time.Millisecond, 5*time.Second, 0
	c.WorkDir = t.TempDir()
	side.log = filepath.Join(t.TempDir(), s.name+".log")
	log, err := os.Create(side.log)
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr, c.Log = log, log, slog.New(slog.NewTextHandler(log, nil))
	ready := make(chan net.Addr, 1)
	c.Listening = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := proxy.Run(ctx, c)
		done <- err
	}()
	side.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(side.log)
			t.Logf("log of %s:\n%s", s.name, tail(string(text), 40))
		}
	})
	t.Cleanup(side.stop)
	select {
	case a := <-ready:
		eventually(t, s.name+" ready", func() error {
			_, err := fetch("http://" + a.String() + "/ready")
			return err
		})
	case err := <-done:
		done <- err
		t.Fatalf("proxy %s: %v", s.name, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("proxy %s does not start", s.name)
	}
	return side
}

func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

var httpClient = &http.Client{Timeout: 10 * time.Second}

// fetch returns the body of a 200, else an error with status and body.
func fetch(url string) (string, error) {
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	return answerTo(q, httpClient)
}

// answerTo returns the body of a 200, else an error with status and body.
func answerTo(q *http.Request, c *http.Client) (string, error) {
	r, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%d %s", r.StatusCode, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

func apply(t testing.TB, p *plane, document string) client.Applied {
	t.Helper()
	a, err := p.client.Apply(t.Context(), []byte(document))
	if err != nil {
		t.Fatalf("%v\nin %s", err, document)
	}
	return a
}

const allowAll = `{"type":"MeshTrafficPermission","mesh":"default","name":"all","spec":{"rules":[{"default":{"allow":[{"spiffeID":{"type":"Prefix","value":"spiffe://default.%s.mesh.local"}}]}}]}}`

func TestRequestsCrossZonesOverMTLS(t *testing.T) {
	g := startGlobal(t)
	east, west := startZone(t, "east", g), startZone(t, "west", g)
	meshIn(t, east, west)
	startProxy(t, west, spec{mesh: "default", name: "ingress-west", ingress: true})
	startProxy(t, west, spec{mesh: "default", name: "cart-1", service: "cart"})
	web := startProxy(t, east, spec{mesh: "default", name: "web-1", service: "web",
		outbounds: []string{fmt.Sprintf("MeshService/cart/west/%d", servicePort(t, west, "cart"))}})
	url := web.outbounds["cart/west"]

	eventually(t, "denied by default", func() error {
		_, err := fetch(url)
		if err == nil {
			return errors.New("allowed")
		}
		if !strings.Contains(err.Error(), "403 RBAC: access denied by default") {
			return err
		}
		return nil
	})
	apply(t, g, fmt.Sprintf(allowAll, "east"))
	eventually(t, "allowed", func() error {
		body, err := fetch(url)
		if err != nil {
			return err
		}
		if !strings.Contains(body, "cart-1") || !strings.Contains(body, "spiffe://default.east.mesh.local/workload/web") {
			return fmt.Errorf("answered %q", body)
		}
		return nil
	})
}

// meshIn waits until proxies of the mesh can join the zones.
func meshIn(t testing.TB, zones ...*plane) {
	t.Helper()
	for _, z := range zones {
		eventually(t, "the mesh in the zone", func() error {
			_, err := z.client.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: "default", Name: "x", ValidFor: "1h"})
			return err
		})
	}
}

// servicePort returns the port of a service that the zone derived.
func servicePort(t testing.TB, z *plane, name string) int {
	t.Helper()
	port := 0
	eventually(t, "the service "+name, func() error {
		var svc struct {
			Spec struct{ Ports []struct{ Port int } }
		}
		if _, err := z.client.Do(t.Context(), http.MethodGet, "/meshes/default/meshservices/"+name, nil, nil, &svc); err != nil {
			return err
		}
		if len(svc.Spec.Ports) == 0 {
			return errors.New("no ports")
		}
		port = svc.Spec.Ports[0].Port
		return nil
	})
	return port
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func replace(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
