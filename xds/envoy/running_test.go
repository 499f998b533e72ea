package envoy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

const patience = 30 * time.Second // for a loaded machine; nothing here waits that long when it works

const (
	web    = "spiffe://shop/workload/web"
	bad    = "spiffe://shop/workload/bad"
	other  = "spiffe://shop/workload/other"
	hasty  = "spiffe://shop/workload/hasty"
	denier = "kri_mtp_shop_east__no-bad_"
)

// TestRunning asks a running Envoy what the configuration does: who is let in, and whether who is not learns from whom.
func TestRunning(t *testing.T) {
	binary := findEnvoy(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/forbidden":
			http.Error(w, "the application says no", http.StatusForbidden)
		case "/hang":
			<-r.Context().Done()
		default:
			fmt.Fprint(w, r.URL.Path)
		}
	}))
	defer app.Close()

	ca := newAuthority(t)
	p := start(t, binary, ca, app.Listener.Addr().String(), newGreeter(t).address, true)

	t.Run("http", func(t *testing.T) {
		for _, c := range []struct {
			name, caller, path string
			status             int
			body, policy       string
		}{
			{"allowed", web, "/hello", 200, "/hello", ""},
			{"the application's own refusal", web, "/forbidden", 403, "the application says no\n", ""},
			{"denied by a policy", bad, "/hello", 403, "RBAC: access denied by " + denier, denier},
			{"denied by default", other, "/hello", 403, "RBAC: access denied by default", "default"},
			{"prefix itself replaced", web, "/v2", 200, "/v1", ""},
			{"prefix replaced", web, "/v2/a/b", 200, "/v1/a/b", ""},
			{"longer name is another path", web, "/v2a", 200, "/v2a", ""},
			{"timeout of one caller", hasty, "/hang", 504, "upstream request timeout", ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				status, body := p.get(t, c.caller, c.path)
				if status != c.status || body != c.body {
					t.Errorf("got %d %q, want %d %q", status, body, c.status, c.body)
				}
				if c.policy == "" {
					return
				}
				// The next line is that of this request: nothing before it may have left one.
				line := p.logged(t)
				for key, want := range map[string]string{
					"event": "denied", "policy": c.policy, "peer": c.caller, "path": c.path, "listener": "http",
					"details": "rbac_access_denied_matched_policy[" + c.policy + "]",
				} {
					if line[key] != want {
						t.Errorf("log line: %s is %v, want %s", key, line[key], want)
					}
				}
			})
		}
	})

	for version, client := range map[string]func(*testing.T, string) (int, string){"HTTP 1": p.ask1, "HTTP 2": p.ask2} {
		t.Run(version, func(t *testing.T) {
			for _, c := range asked {
				t.Run(c.request, func(t *testing.T) {
					status, body := client(t, c.request)
					if c.status == 0 && status != http.StatusOK {
						return // refused in some way
					}
					if status != c.status || c.policy != "" && body != "RBAC: access denied by "+c.policy || strings.Contains(body, "..") {
						t.Errorf("got %d %q, want %d by %q", status, body, c.status, c.policy)
					}
				})
			}
			if _, got := client(t, "GET /public/a%2Fb/../c?x=%2F"); got != "/public/a/c" {
				t.Errorf("the application got %s", got)
			}
		})
	}

	t.Run("tcp", func(t *testing.T) {
		for caller, policy := range map[string]string{web: "", bad: denier, other: "default"} {
			t.Run(filepath.Base(caller), func(t *testing.T) {
				got := p.say(t, caller, "GET /raw HTTP/1.0\r\n\r\n")
				if admitted := strings.HasSuffix(got, "/raw"); admitted != (policy == "") {
					t.Errorf("got %q", got)
				}
				if policy == "" {
					return
				}
				line := p.logged(t)
				if line["details"] != "rbac_access_denied_matched_policy["+policy+"]" || line["peer"] != caller || line["listener"] != "tcp" {
					t.Errorf("log line: %v, want %s", line, policy)
				}
			})
		}
	})
}

// asked are requests of the listener "judged" by web: method and path, then headers. No spelling brings a request past a
// denial, or under what is allowed. The status 0 is any refusal, be it that Envoy does not understand it.
var asked = []struct {
	request string
	status  int
	policy  string
}{
	{"GET /public", 200, ""},
	{"GET /public?x=/admin", 200, ""},
	{"GET /public/a", 200, ""},
	{"GET /public/a;x=1", 200, ""},
	{"GET /%70ublic/a", 200, ""},
	{"GET //public//a", 200, ""},
	{"GET /v1", 200, ""},
	{"GET /sum=1", 200, ""},
	{"GET /sum%3d1", 200, ""},
	{"GET /x x-pass:yes", 200, ""},
	{"GET /x x-pass:yes x-mode:staging", 200, ""},
	{"PATCH /x x-pass:yes", 200, ""},

	// Nothing allows it.
	{"POST /public", 403, "default"},
	{"HEAD /public", 403, ""}, // without a text
	{"GET /publicity", 403, "default"},
	{"GET /Public", 403, "default"},
	{"GET /public;x/a", 403, "default"},
	{"GET /", 403, "default"},
	{"GET /x?/public", 403, "default"},
	{"GET /x?y=/v1", 403, "default"},
	{"GET /v1/", 403, "default"},
	{"GET /admin x-envoy-original-path:/public", 403, "default"},
	{"GET /public/../admin", 403, "default"},
	{"GET /public/%2e%2e/admin", 403, "default"},
	{"GET /public%2F..%2Fadmin", 403, "default"},
	{"GET /public%2f%2e%2e%2fadmin", 403, "default"},
	{"GET /public%5C..%5Cadmin", 403, "default"},
	{"GET /public\\..\\admin", 403, "default"},
	{"GET /public//../../admin", 403, "default"},
	{"GET /public/..;/admin", 403, "default"},
	{"GET /public/..%3bx/admin", 403, "default"},
	{"GET /public/%2e.;/admin", 403, "default"},
	{"GET /public/.;/../../admin", 403, "default"},
	{"GET /public/%00/admin", 0, ""},
	{"GET /public/..%00/admin", 0, ""},
	{"GET /admin#/public", 0, ""},
	{"CONNECT /public", 0, ""},
	{"OPTIONS *", 0, ""},
	{"GET /x x-pass:no", 403, "default"},
	{"GET /x x-pass:no x-pass:yes", 403, "default"},
	{"GET /x x-pass:yes x-none:", 403, "default"},

	// A policy denies what passes otherwise.
	{"GET /public/secret:1", 403, "secret"},
	{"GET /public/secret:1?x", 403, "secret"},
	{"GET /public/secret%3A1", 403, "secret"},
	{"GET /public/secret%3a1", 403, "secret"},
	{"GET /public/%73ecret:1", 403, "secret"},
	{"GET /public/SECRET:1", 403, "secret"},
	{"GET /public/secret:1/", 403, "secret"},
	{"GET /public/secret:1//", 403, "secret"},
	{"GET /public/secret:1;x", 403, "secret"},
	{"GET /public;x/secret:1", 403, "secret"},
	{"GET /public/secret:1/;x", 403, "secret"},
	{"GET /public/secret:1%3bx", 403, "secret"},
	{"GET /public/;x/secret:1", 403, "default"},
	{"GET /public/a/../secret:1", 403, "secret"},
	{"GET /public/secret:1/a", 200, ""},
	{"GET /public/below", 403, "below"},
	{"GET /public/below/a", 403, "below"},
	{"GET /public/Below;x/a", 403, "below"},
	{"GET /public/below/\xff", 0, ""},
	{"GET /public/belows", 200, ""},
	{"GET /x x-pass:yes x-stop:", 403, "stop"},
	{"GET /x x-pass:yes x-stop:\xff", 0, ""},
	{"GET /public x-not:", 403, "not"},
	{"GET /public/ x-not:a", 403, "not"},
	{"GET /x x-pass:yes x-mode:debug", 403, "mode"},
	{"GET /x x-pass:yes x-mode:DEBUG", 403, "mode"},
	{"GET /x x-pass:yes x-mode:a x-mode:debug", 403, "mode"},
	{"GET /x x-pass:yes x-mode:debug x-mode:a", 403, "mode"},
	{"GET /x x-pass:yes x-mode:\xff,debug", 0, ""},
	{"GET /x x-pass:yes x-role:Admins", 403, "role"},
	{"GET /x x-pass:yes x-role:a x-role:admin\xff", 0, ""},
	{"PUT /x x-pass:yes", 403, "put"},
	{"put /x x-pass:yes", 0, ""},
	{"OPTIONS /x x-pass:yes", 403, "options"},
	{"GET /got x-pass:yes", 403, "got"},
	{"HEAD /got x-pass:yes", 403, ""}, // without a text
}

// proxy is a running Envoy with two listeners in front of one application, and a third in front of a greeter.
type proxy struct {
	ca        authority
	addresses map[string]string // listener → host:port
	lines     chan string       // what it writes to standard output
}

// start also takes whether the bootstrap asks for [envoy.DelayRouteSelection].
func start(t *testing.T, binary string, ca authority, app, greeter string, delay bool) *proxy {
	t.Helper()
	cluster := func(name, address string) *clusterv3.Cluster {
		host, portText, _ := net.SplitHostPort(address)
		port, _ := strconv.ParseUint(portText, 10, 32)
		return must(envoy.Cluster(ir.Cluster{
			Name:           name,
			ConnectTimeout: ir.Span(5 * time.Second),
			Static:         []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Host: host, Port: uint32(port)}}}}},
		}))
	}
	to := []ir.Backend{{Cluster: "app"}}
	chain := ir.Chain{
		TLS: &ir.ServerTLS{Identity: "identity", Bundle: "system_trust_bundle", TrustDomains: []string{"shop"}},
		Permissions: &ir.Permissions{
			Deny:  []ir.Permission{{Policy: denier, Peer: ir.PeerMatch{SpiffeID: bad}}},
			Allow: []ir.Permission{{Policy: "kri_mtp_shop_east__web_", Peer: ir.PeerMatch{SpiffeID: web}}, {Policy: "kri_mtp_shop_east__hasty_", Peer: ir.PeerMatch{SpiffeID: hasty}}},
		},
		Logs: []ir.AccessLog{{Path: "/dev/stdout", Denied: true}},
	}
	raw, requests, judged := chain, chain, chain
	path := func(match ir.Match, value string) ir.RouteMatch {
		return ir.RouteMatch{Method: "GET", Path: ir.PathMatch{Match: match, Value: value}}
	}
	judged.Logs = nil
	judged.Permissions = &ir.Permissions{
		Deny: []ir.Permission{
			{Policy: "secret", Request: ir.RouteMatch{Path: ir.PathMatch{Match: ir.Exact, Value: "/public/secret:1"}}},
			{Policy: "stop", Request: ir.RouteMatch{Headers: []ir.HeaderMatch{{Name: "x-stop", Match: ir.Present}}}},
			{Policy: "not", Request: ir.RouteMatch{Path: ir.PathMatch{Match: ir.Exact, Value: "/public"}, Headers: []ir.HeaderMatch{{Name: "x-not", Match: ir.Prefix}}}},
			{Policy: "put", Peer: ir.PeerMatch{SpiffeIDPrefix: web}, Request: ir.RouteMatch{Method: "PUT"}},
			{Policy: "options", Request: ir.RouteMatch{Method: "OPTIONS", Path: ir.PathMatch{Match: ir.Prefix, Value: "/"}}},
			{Policy: "below", Request: ir.RouteMatch{Path: ir.PathMatch{Match: ir.Prefix, Value: "/public/below"}}},
			{Policy: "got", Request: path(ir.Exact, "/got")},
			{Policy: "mode", Request: ir.RouteMatch{Headers: []ir.HeaderMatch{{Name: "x-mode", Match: ir.Exact, Value: "debug"}}}},
			{Policy: "role", Request: ir.RouteMatch{Headers: []ir.HeaderMatch{{Name: "x-role", Match: ir.Prefix, Value: "admin"}}}},
		},
		Allow: []ir.Permission{
			{Policy: "public", Peer: ir.PeerMatch{SpiffeID: web}, Request: path(ir.Prefix, "/public")},
			{Policy: "sum", Request: path(ir.Exact, "/sum=1")},
			{Policy: "regex", Peer: ir.PeerMatch{SpiffeID: web}, Request: path(ir.Regex, "/.*v[0-9]")},
			{Policy: "pass", Request: ir.RouteMatch{Headers: []ir.HeaderMatch{{Name: "x-pass", Match: ir.Exact, Value: "yes"}, {Name: "x-none", Match: ir.Absent}}}},
		},
	}
	judged.HTTP = &ir.HTTP{Routes: &ir.RouteConfig{Name: "judged", Hosts: []ir.VirtualHost{{Name: "judged", Routes: []ir.Route{{Forward: &ir.Forward{Backends: to}}}}}}}
	raw.TCP = &ir.TCP{Backends: to}
	greeting := chain
	greeting.Permissions, greeting.TCP = &greeterPermissions, &ir.TCP{Backends: []ir.Backend{{Cluster: "greeter's " + awkward}}}
	requests.HTTP = &ir.HTTP{ForwardPeer: true, Routes: &ir.RouteConfig{Name: "http", Hosts: []ir.VirtualHost{{Name: "http", Routes: []ir.Route{
		{
			Match:   ir.RouteMatch{Path: ir.PathMatch{Match: ir.Prefix, Value: "/v2"}},
			Forward: &ir.Forward{Backends: to, Rewrite: ir.Rewrite{Path: ir.PathRewrite{Kind: ir.ReplacePrefix, Value: "/v1"}}},
		},
		{Forward: &ir.Forward{Backends: to, Peers: []ir.PeerTimeout{{Peer: ir.PeerMatch{SpiffeID: hasty}, Timeout: ir.Span(50 * time.Millisecond)}}}},
	}}}}}
	anywhere := ir.Address{Host: "127.0.0.1"}
	certificate, key := ca.issue(t, "spiffe://shop/workload/app")
	b := bootstrap(t, &bootstrapv3.Bootstrap_StaticResources{
		Listeners: []*listenerv3.Listener{
			must(envoy.Listener(ir.Listener{Name: "http", Address: anywhere, Direction: ir.Inbound, Chains: []ir.Chain{requests}})),
			must(envoy.Listener(ir.Listener{Name: "tcp", Address: anywhere, Direction: ir.Inbound, Chains: []ir.Chain{raw}})),
			must(envoy.Listener(ir.Listener{Name: "judged", Address: anywhere, Direction: ir.Inbound, Chains: []ir.Chain{judged}})),
			must(envoy.Listener(ir.Listener{Name: "greeter", Address: anywhere, Direction: ir.Inbound, Chains: []ir.Chain{greeting}})),
		},
		Clusters: []*clusterv3.Cluster{cluster("app", app), cluster("greeter's "+awkward, greeter)},
		Secrets: []*tlsv3.Secret{
			must(envoy.Secret(ir.Secret{Name: "identity", Chain: certificate, Key: key})),
			must(envoy.TrustBundle(ir.TrustBundle{Name: "system_trust_bundle", Domains: []ir.TrustDomain{{Name: "shop", PEM: ca.pem}}})),
		},
	})
	if !delay {
		b.LayeredRuntime = nil
	}
	b.Admin = &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0},
	}}}}

	config := writeBootstrap(t, b)
	keepSecretsHere(t, config)
	adminFile := filepath.Join(filepath.Dir(config), "admin")
	command := exec.Command(binary, "-c", config, "-l", "warning", "--concurrency", "1", "--disable-hot-restart",
		"--admin-address-path", adminFile, "--file-flush-interval-msec", "10")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what is found on PATH may be a script around Envoy
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problems bytes.Buffer
	command.Stderr = &problems
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proxy{ca: ca, addresses: make(map[string]string), lines: make(chan string, 100)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		<-ended
		command.Wait()
		if t.Failed() {
			t.Logf("Envoy said:\n%s", problems.Bytes())
		}
	})
	p.awaitReady(t, adminFile, ended)
	return p
}

// keepSecretsHere makes every secret one of the static ones: there is no control plane to ask.
func keepSecretsHere(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "sdsConfig")
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(config)
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitReady asks Envoy's own readiness, then which ports it took.
func (p *proxy) awaitReady(t *testing.T, adminFile string, ended <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fetch := func(path string) (int, []byte) {
		address, err := os.ReadFile(adminFile)
		if err != nil {
			return 0, nil
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(address)+path, nil)
		if err != nil {
			return 0, nil
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, nil
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, body
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if status, _ := fetch("/ready"); status == http.StatusOK {
			break
		}
		select {
		case <-again.C:
		case <-ended:
			t.Fatal("Envoy ended")
		case <-ctx.Done():
			t.Fatal("Envoy did not become ready")
		}
	}
	var listening struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	_, body := fetch("/listeners?format=json")
	if err := json.Unmarshal(body, &listening); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, l := range listening.Statuses {
		p.addresses[l.Name] = net.JoinHostPort(l.Address.Socket.Address, strconv.Itoa(l.Address.Socket.Port))
	}
}

// logged is the next line of the access log.
func (p *proxy) logged(t *testing.T) map[string]any {
	t.Helper()
	select {
	case text := <-p.lines:
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		return line
	case <-time.After(patience):
		t.Fatal("nothing logged")
		return nil
	}
}

// get asks for path as caller.
func (p *proxy) get(t *testing.T, caller, path string) (int, string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: p.ca.client(t, caller)}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + p.addresses["http"] + path)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, response)
}

func answered(t *testing.T, response *http.Response) (int, string) {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// ask1 sends a request to the listener "judged" as it is written, as web. The status is 0 if there is no answer.
func (p *proxy) ask1(t *testing.T, request string) (int, string) {
	t.Helper()
	words := strings.Fields(request)
	connection := p.dial(t, "judged", web, "")
	fmt.Fprintf(connection, "%s %s HTTP/1.1\r\nhost: app\r\nconnection: close\r\n%s\r\n", words[0], words[1],
		strings.Join(append(words[2:], ""), "\r\n"))
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: words[0]})
	if err != nil {
		return 0, err.Error()
	}
	return answered(t, response)
}

// ask2 is ask1 with HTTP/2.
func (p *proxy) ask2(t *testing.T, request string) (int, string) {
	t.Helper()
	words := strings.Fields(request)
	connection := p.dial(t, "judged", web, "")
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return connection, nil },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	q := &http.Request{Method: words[0], URL: &url.URL{Scheme: "http", Host: "app", Opaque: "//app" + words[1]}, Header: http.Header{}}
	for _, h := range words[2:] {
		name, value, _ := strings.Cut(h, ":")
		q.Header.Add(name, value)
	}
	response, err := transport.RoundTrip(q.WithContext(t.Context()))
	if err != nil {
		return 0, err.Error()
	}
	return answered(t, response)
}

// dial connects to a listener as caller, asking for sni; the connection ends with the test.
func (p *proxy) dial(t *testing.T, listener, caller, sni string) net.Conn {
	t.Helper()
	config := p.ca.client(t, caller)
	config.ServerName = sni
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", p.addresses[listener], config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	connection.SetDeadline(time.Now().Add(patience))
	return connection
}

// say sends text as caller and returns all that comes back; nothing if the connection is closed, be it while sending.
func (p *proxy) say(t *testing.T, caller, text string) string {
	t.Helper()
	connection := p.dial(t, "tcp", caller, "")
	io.WriteString(connection, text)
	answer, err := io.ReadAll(connection)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(answer)
}

// authority signs certificates that carry a SPIFFE ID.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		URIs:                  []*url.URL{must(url.Parse("spiffe://shop"))},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return authority{must(x509.ParseCertificate(der)), key, block("CERTIFICATE", der)}
}

func (a authority) issue(t *testing.T, id string) (certificate, key string) {
	t.Helper()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		URIs:         []*url.URL{must(url.Parse(id))},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key))
	return block("CERTIFICATE", der), block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private)))
}

// client proves to be id. It does not check whom it talks to, which is not what is tested here.
func (a authority) client(t *testing.T, id string) *tls.Config {
	t.Helper()
	certificate, key := a.issue(t, id)
	return &tls.Config{
		Certificates:       []tls.Certificate{must(tls.X509KeyPair([]byte(certificate), []byte(key)))},
		InsecureSkipVerify: true,
	}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
