package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"sigs.k8s.io/yaml"
)

// scenarios are what policies do to real traffic, one function per policy in a
// file of its own. They share one mesh and run one after another; each leaves it
// as it was.
var scenarios = []struct {
	name string
	run  func(*testing.T, *lab)
}{
	{"MeshCircuitBreaker", circuitBreaker},
	{"MeshHealthCheck", healthCheck},
	{"MeshRetry", retries},
	{"MeshProxyPatch", proxyPatch},
	{"MeshFaultInjection", faultInjection},
	{"MeshRateLimit", rateLimit},
	{"MeshTLS", meshTLS},
	{"MeshTCPRoute", tcpRoute},
	{"MeshTrafficPermission", trafficPermission},
	{"MeshTimeout", timeouts},
	{"MeshHTTPRoute", httpRoute},
	{"MeshLoadBalancingStrategy", loadBalancing},
	{"MeshAccessLog", accessLog},
	{"MeshTrace", trace},
	{"MeshMetric", metrics},
	{"MeshExternalService", externalServices},
	{"VirtualAddresses", virtualAddresses},
	{"MeshPassthrough", passthrough},
}

func TestPolicies(t *testing.T) {
	l := newLab(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) { s.run(t, l) })
	}
}

// lab is a mesh over two zones with mTLS, in which everybody may call everybody:
//
//	east                                     west
//	web ──▶ api (api-1, api-2)      ┌─▶ ingress ──▶ remote (remote-1)
//	 └──────────────────────────────┘
//
// Each service has the inbounds http (8080, an [application]) and raw (9090, TCP:
// it says its name and returns what it gets).
type lab struct {
	global, east, west *plane
	web                *sidecar
	apps               map[string]*application
	sides              map[string]*sidecar
	proxies            int
}

// Where web finds the services.
const (
	apiHTTP, apiRaw       = "api/east", "api/east/9090"
	remoteHTTP, remoteRaw = "remote/west", "remote/west/9090"
)

func newLab(t *testing.T) *lab {
	l := &lab{global: startGlobal(t), apps: map[string]*application{}, sides: map[string]*sidecar{}}
	l.east, l.west = startZone(t, "east", l.global, loopback), startZone(t, "west", l.global)
	meshIn(t, l.east, l.west)
	// What a new mesh has of it would hide what others do.
	if _, err := l.global.client.Delete(t.Context(), api.MeshRetries, "default", "mesh-retry-all-default"); err != nil {
		t.Fatal(err)
	}
	for _, z := range []string{"east", "west"} {
		apply(t, l.global, strings.ReplaceAll(fmt.Sprintf(allowAll, z), `"name":"all"`, `"name":"all-`+z+`"`))
	}
	l.start(t, l.west, spec{name: "ingress-west", ingress: true})
	l.start(t, l.west, spec{name: "remote-1", service: "remote"})
	l.start(t, l.east, spec{name: "api-1", service: "api"})
	l.start(t, l.east, spec{name: "api-2", service: "api"})
	servicePort(t, l.west, "remote")
	l.web = l.start(t, l.east, spec{name: "web-1", service: "web", outbounds: []string{
		"MeshService/api/east/8080", "MeshService/api/east/9090", "MeshService/remote/west/8080", "MeshService/remote/west/9090",
	}})
	for _, to := range []string{apiHTTP, remoteHTTP} {
		eventually(t, "calls to "+to, func() error {
			if a := l.call(t, to, "/"); a.Status != http.StatusOK {
				return fmt.Errorf("%d %s", a.Status, a.Text)
			}
			return nil
		})
	}
	return l
}

// start runs a proxy of mesh default with its applications.
func (l *lab) start(t *testing.T, z *plane, s spec) *sidecar {
	t.Helper()
	s.mesh = "default"
	if !s.ingress && !s.egress {
		app := newApplication(t, s.name)
		l.apps[s.name] = app
		s.port, s.handler = 8080, app.ServeHTTP
		s.inbounds = append(s.inbounds, fmt.Sprintf(`{"name":"raw","port":9090,"servicePort":%d,"serviceAddress":"127.0.0.1","protocol":"tcp"}`, app.raw))
	}
	side := startProxy(t, z, s)
	l.proxies++
	end := side.stop
	side.stop = sync.OnceFunc(func() {
		end()
		l.proxies--
	})
	t.Cleanup(side.stop)
	l.sides[s.name] = side
	return side
}

// with applies documents (YAML) at global and waits until all proxies have them.
// They go at the end of the test, or by the returned function.
func (l *lab) with(t *testing.T, documents ...string) (undo func()) {
	t.Helper()
	var last uint64
	type key struct {
		kind api.AnyKind
		name string
	}
	var keys []key
	for _, d := range documents {
		a := l.apply(t, d)
		k, _ := api.ByName(a.Kind)
		keys, last = append(keys, key{k, a.Name}), a.Revision
	}
	reached(t, l.global, last, l.proxies)
	undo = sync.OnceFunc(func() {
		var last uint64
		for _, k := range slices.Backward(keys) {
			revision, err := l.global.client.Delete(context.WithoutCancel(t.Context()), k.kind, "default", k.name)
			if err != nil {
				t.Errorf("%s %s: %v", k.kind.Info().Name, k.name, err)
				return
			}
			last = revision
		}
		reached(t, l.global, last, l.proxies)
	})
	t.Cleanup(undo)
	return undo
}

// change applies a document (YAML) at global in place of one that goes with others.
func (l *lab) change(t *testing.T, document string) {
	t.Helper()
	reached(t, l.global, l.apply(t, document).Revision, l.proxies)
}

func (l *lab) apply(t *testing.T, document string) client.Applied {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return apply(t, l.global, string(body))
}

// answer is what web got, and what the application says that it got.
type answer struct {
	Status int
	Header http.Header
	Text   string
	Took   time.Duration

	Name    string // of the application; empty when it was not reached
	Path    string
	Request http.Header
}

// call sends a GET from web to a service. Headers are pairs of name and value.
func (l *lab) call(t testing.TB, to, path string, headers ...string) answer {
	t.Helper()
	a, err := send(l.web.outbounds[to]+path, headers...)
	if err != nil {
		t.Fatalf("%s%s: %v", to, path, err)
	}
	return a
}

func send(url string, headers ...string) (answer, error) { return sendBy(httpClient, url, headers...) }

func sendBy(client *http.Client, url string, headers ...string) (answer, error) {
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		if strings.EqualFold(headers[i], "host") {
			q.Host = headers[i+1]
		}
		q.Header.Add(headers[i], headers[i+1])
	}
	began := time.Now()
	r, err := client.Do(q)
	if err != nil {
		return answer{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	a := answer{Status: r.StatusCode, Header: r.Header, Text: string(body), Took: time.Since(began)}
	if r.Header.Get("echo") != "" && err == nil {
		err = json.Unmarshal(body, &a)
	}
	return a, err
}

// application is the HTTP and the TCP server beside a proxy. Callers choose its
// answers:
//
//	?status=503              answers so
//	?fail=2&key=x            answers 503 to the first two requests of the key
//	?fail=2&key=x&on=api-1   only this application does
//	?sleep=50ms              waits first, or until the caller leaves
//
// Any other answer is a 200 that tells what was asked.
type application struct {
	name string
	raw  int // port

	mu     sync.Mutex
	failed map[string]int
	seen   map[string]int // requests by path
}

func newApplication(t testing.TB, name string) *application {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	a := &application{name: name, raw: l.Addr().(*net.TCPAddr).Port, failed: map[string]int{}, seen: map[string]int{}}
	go sayName(l, name)
	return a
}

// sayName says a name to who connects, and then returns what it gets.
func sayName(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, name)
			io.Copy(c, c)
		}()
	}
}

// requests is how often the path was asked for.
func (a *application) requests(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[path]
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	a.seen[r.URL.Path]++
	fails, _ := strconv.Atoi(q.Get("fail"))
	failing := a.failed[q.Get("key")] < fails && (q.Get("on") == "" || q.Get("on") == a.name)
	if failing {
		a.failed[q.Get("key")]++
	}
	a.mu.Unlock()
	if d, err := time.ParseDuration(q.Get("sleep")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	status, err := strconv.Atoi(q.Get("status"))
	switch {
	case failing:
		status = http.StatusServiceUnavailable
	case err != nil:
		status = http.StatusOK
	}
	headers := maps.Clone(r.Header)
	headers["Host"] = []string{r.Host}
	body, _ := json.Marshal(map[string]any{"name": a.name, "path": r.URL.RequestURI(), "request": headers})
	w.Header().Set("echo", "1")
	w.WriteHeader(status)
	w.Write(body)
}

// dial opens a TCP connection from web to a service; it has already said the name
// of the application behind it.
func (l *lab) dial(t testing.TB, to string) (c net.Conn, name string, err error) {
	t.Helper()
	return dialAt(t, l.web.outbounds[to])
}

// dialAt does so at the URL of an outbound.
func dialAt(t testing.TB, url string) (c net.Conn, name string, err error) {
	t.Helper()
	c, err = net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), 5*time.Second)
	if err != nil {
		return nil, "", err
	}
	opened := c
	t.Cleanup(func() { opened.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, "", err
	}
	for {
		var one [1]byte
		if _, err := io.ReadFull(c, one[:]); err != nil {
			return nil, "", errors.Join(errors.New("closed before it said a name"), err)
		}
		if one[0] == '\n' {
			return c, name, nil
		}
		name += string(one[:])
	}
}
