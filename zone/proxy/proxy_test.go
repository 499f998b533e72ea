package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/proxy"
)

// child makes this test program a proxy, for tests of what happens to Envoy when
// the program next to it is killed.
const child = "PROXY_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		c := proxy.Default()
		err := c.Environment(os.Environ())
		if err == nil {
			_, err = proxy.Run(context.Background(), c)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

const (
	token = "eyJhbGciOiJSUzI1NiJ9.eyJOYW1lIjoiYXBpIn0.c2lnbmF0dXJl"
	// patience is how long a test waits for what should take a moment.
	patience = 30 * time.Second
)

func findEnvoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ATOLL_ENVOY"); path != "" {
		return path
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	if path, err := filepath.Abs("../../.tools/envoy/envoy"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no Envoy in $ATOLL_ENVOY, on PATH or in .tools/envoy (`make envoy` fetches it)")
	return ""
}

// fakeEnvoy is a program that tells Envoy's version and then does what script says.
func fakeEnvoy(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	text := "#!/bin/sh\n[ \"$1\" = --version ] && echo 'envoy  version: abc123/1.40.0/Clean/RELEASE/BoringSSL' && exit 0\n" + script
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// controlPlane answers with status, if it is set, else with text as bootstrap, in
// which WORKDIR is the proxy's.
type controlPlane struct {
	*httptest.Server
	status int
	text   string

	mu       sync.Mutex
	requests []bootstrap.Request
}

const onSocket = `{node: {id: x, cluster: x}, admin: {address: {pipe: {path: WORKDIR/kuma-envoy-admin.sock}}}}`

func newControlPlane(t *testing.T, status int, text string) *controlPlane {
	cp := &controlPlane{status: status, text: text}
	cp.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req bootstrap.Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/bootstrap" || r.Method != "POST" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		cp.mu.Lock()
		cp.requests = append(cp.requests, req)
		cp.mu.Unlock()
		if cp.status != 0 {
			http.Error(w, cp.text, cp.status)
			return
		}
		text := strings.ReplaceAll(cp.text, "WORKDIR", req.Workdir)
		json.NewEncoder(w).Encode(bootstrap.Answer{Bootstrap: []byte(text)})
	}))
	cp.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	cp.StartTLS()
	t.Cleanup(cp.Close)
	return cp
}

func (cp *controlPlane) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cp.Certificate().Raw}))
}

func (cp *controlPlane) asked() []bootstrap.Request {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return append([]bootstrap.Request(nil), cp.requests...)
}

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// config is that of a proxy of the control plane, loud to the buffers only.
func config(t *testing.T, cp *controlPlane, binary string) (c proxy.Config, log *buffer) {
	t.Helper()
	log = new(buffer)
	c = proxy.Default()
	c.ControlPlane, c.CACert, c.Binary, c.Name = cp.URL, cp.ca(), binary, "api"
	c.ReadinessPort, c.Concurrency, c.EnvoyLogLevel = 0, 1, "warning"
	c.Stdout, c.Stderr, c.Log = log, log, slog.New(slog.NewTextHandler(log, nil))
	return c, log
}

// running is a proxy that runs.
type running struct {
	t       *testing.T
	ready   string // URL
	signals chan os.Signal
	cancel  func()
	done    chan struct{}
	exit    int
	err     error
	log     *buffer
}

func run(t *testing.T, c proxy.Config, log *buffer) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, signals: make(chan os.Signal), cancel: cancel, done: make(chan struct{}), log: log}
	listening := make(chan net.Addr, 1)
	c.Signals = r.signals
	c.Listening = func(a net.Addr) { listening <- a }
	go func() {
		defer close(r.done)
		r.exit, r.err = proxy.Run(ctx, c)
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	select {
	case a := <-listening:
		r.ready = "http://" + a.String() + "/ready"
	case <-r.done:
	case <-time.After(patience):
		t.Fatal("the readiness endpoint was not opened")
	}
	return r
}

func (r *running) signal(s os.Signal) {
	r.t.Helper()
	select {
	case r.signals <- s:
	case <-r.done:
		r.t.Fatalf("ended before the signal: %d %v\n%s", r.exit, r.err, r.log)
	case <-time.After(patience):
		r.t.Fatal("signals are not taken")
	}
}

func (r *running) wait() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatalf("does not end\n%s", r.log)
	}
}

// get asks with a client of its own: no connection stays.
func get(client *http.Client, url string) (int, string) {
	res, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(body))
}

func (r *running) awaitReady(status int, text string) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d %s", status, text), func() (string, bool) {
		gotStatus, gotText := get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, r.ready)
		return fmt.Sprintf("%d %s", gotStatus, gotText), gotStatus == status && gotText == text
	})
}

func (r *running) await(what string, is func() (string, bool)) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		got, ok := is()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-r.done:
			r.t.Fatalf("ended (%d, %v) before %s\n%s", r.exit, r.err, what, r.log)
		case <-late:
			r.t.Fatalf("expected %s, got %s\n%s", what, got, r.log)
		}
	}
}

// envoySays asks the administration on the socket in a work directory.
func envoySays(workdir, path string) (int, string) {
	return get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", bootstrap.AdminSocket(workdir))
		}}}, "http://envoy"+path)
}

func TestDrainAndSecondSignal(t *testing.T) {
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, findEnvoy(t))
	c.DrainTime, c.Token, c.BindOutbounds, c.Version = time.Hour, " "+token+"\n", true, "1.2.3"
	r := run(t, c, log)
	r.awaitReady(200, "LIVE")

	req := cp.asked()[0]
	body, err := os.ReadFile(req.DataplaneTokenPath)
	if err != nil || string(body) != token || req.DataplaneToken != token {
		t.Errorf("token file %q: %v", body, err)
	}
	if info, err := os.Stat(req.Workdir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("work directory: %v %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(req.Workdir, "bootstrap.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("bootstrap: %v %v", info, err)
	}
	if !strings.HasSuffix(r.ready, fmt.Sprintf(":%d/ready", req.ReadinessPort)) || req.CACert != cp.ca() ||
		req.Mesh != "default" || req.Name != "api" || req.Version.Proxy.Version != "1.2.3" ||
		!strings.HasPrefix(req.Version.Envoy.Version, "1.") || !strings.Contains(req.Version.Envoy.Build, "/RELEASE/") ||
		strings.Join(req.Features, " ") != "feature-tcp-accesslog-via-named-pipe feature-envoy-in-workdir feature-otel-via-kuma-dp feature-bind-outbounds feature-strict-inbound-ports feature-reuse-port" {
		t.Errorf("%+v", req)
	}

	r.signal(syscall.SIGTERM)
	r.awaitReady(503, "TERMINATING")
	r.await("Envoy fails its health check", func() (string, bool) {
		status, text := envoySays(req.Workdir, "/ready")
		return text, status == 503
	})
	r.signal(syscall.SIGINT)
	r.wait()
	if r.exit != 0 || r.err != nil {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
	if _, err := os.Stat(req.Workdir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory is left: %v", err)
	}
	if strings.Contains(log.String(), token) {
		t.Error("the token is in the log")
	}
}

func TestDrainEndsByTime(t *testing.T) {
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, findEnvoy(t))
	c.DrainTime = 50 * time.Millisecond
	r := run(t, c, log)
	r.awaitReady(200, "LIVE")
	r.signal(syscall.SIGTERM)
	r.wait()
	if r.exit != 0 || r.err != nil {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
}

func TestEndOfContextStopsAtOnce(t *testing.T) {
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, findEnvoy(t))
	c.DrainTime = time.Hour
	c.WorkDir = shortDir(t) + "/made"
	r := run(t, c, log)
	r.awaitReady(200, "LIVE")
	r.cancel()
	r.wait()
	if r.exit != 0 || r.err != nil {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
	if left, err := os.ReadDir(c.WorkDir); err != nil || len(left) != 0 {
		t.Errorf("left in a given directory: %v %v", left, err)
	}
}

// TestWhatEnvoyIsTold: SIGUSR2 drains and goes on; the SIGTERM after it is a
// first one. The administration is on TCP, in both spellings.
func TestWhatEnvoyIsTold(t *testing.T) {
	for _, names := range [][2]string{{"socketAddress", "portValue"}, {"socket_address", "port_value"}} {
		t.Run(names[0], func(t *testing.T) {
			told := make(chan string, 10)
			admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "POST" {
					told <- r.URL.String()
				}
				io.WriteString(w, "LIVE\n")
			}))
			t.Cleanup(admin.Close)
			port := admin.Listener.Addr().(*net.TCPAddr).Port
			cp := newControlPlane(t, 0, fmt.Sprintf("{admin: {address: {%s: {address: 127.0.0.1, %s: %d}}}}", names[0], names[1], port))
			c, log := config(t, cp, fakeEnvoy(t, "exec sleep 1000"))
			c.DrainTime = time.Hour
			r := run(t, c, log)
			r.awaitReady(200, "LIVE")
			const drain = "/drain_listeners?inboundonly&graceful&skip_exit"
			expect := func(paths ...string) {
				t.Helper()
				for _, want := range paths {
					select {
					case got := <-told:
						if got != want {
							t.Errorf("told %s, expected %s", got, want)
						}
					case <-time.After(patience):
						t.Fatal("not told " + want)
					}
				}
			}
			r.signal(syscall.SIGUSR2)
			expect(drain)
			r.awaitReady(200, "LIVE")
			r.signal(syscall.SIGTERM)
			expect("/healthcheck/fail", drain)
			r.signal(syscall.SIGTERM)
			r.wait()
			if r.exit != 128+int(syscall.SIGTERM) || r.err != nil || len(told) != 0 {
				t.Errorf("%d %v\n%s", r.exit, r.err, log)
			}
		})
	}
}

// TestCrash: all other signals go to Envoy, so this one kills it.
func TestCrash(t *testing.T) {
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, findEnvoy(t))
	r := run(t, c, log)
	r.awaitReady(200, "LIVE")
	r.signal(syscall.SIGABRT)
	r.wait()
	if r.exit != 128+int(syscall.SIGABRT) || !errors.Is(r.err, proxy.ErrEnvoy) || !strings.Contains(r.err.Error(), "signal 6") {
		t.Errorf("%d %v", r.exit, r.err)
	}
	if _, err := os.Stat(cp.asked()[0].Workdir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory is left: %v", err)
	}
}

func TestBootstrapThatEnvoyRefuses(t *testing.T) {
	cp := newControlPlane(t, 0, `{nonsense: true}`)
	c, log := config(t, cp, findEnvoy(t))
	r := run(t, c, log)
	r.wait()
	if r.exit != 1 || !errors.Is(r.err, proxy.ErrEnvoy) || !strings.Contains(log.String(), "nonsense") {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
}

func TestStatusOfEnvoyAndItsOutput(t *testing.T) {
	cp := newControlPlane(t, 0, `{admin: {}}`)
	c, log := config(t, cp, fakeEnvoy(t, `echo "$@"; echo "to stderr" >&2; exit 7`))
	var out, errs buffer
	c.Stdout, c.Stderr, c.DrainTime, c.EnvoyComponentLogLevel = &out, &errs, 1500*time.Millisecond, "upstream:debug"
	r := run(t, c, log)
	r.wait()
	if r.exit != 7 || !errors.Is(r.err, proxy.ErrEnvoy) || !strings.Contains(r.err.Error(), "status 7") {
		t.Errorf("%d %v", r.exit, r.err)
	}
	want := "--config-path " + cp.asked()[0].Workdir + "/bootstrap.yaml --drain-time-s 2 --drain-strategy immediate --disable-hot-restart --file-flush-interval-msec 1000" +
		" --log-level warning --component-log-level upstream:debug --concurrency 1\n"
	if out.String() != want || errs.String() != "to stderr\n" {
		t.Errorf("stdout %q, expected %q\nstderr %q", out.String(), want, errs.String())
	}
}

// TestEnvoyThatDoesNotStop has no administration either, so READY is all that can
// be said of it.
func TestEnvoyThatDoesNotStop(t *testing.T) {
	cp := newControlPlane(t, 0, `{}`)
	c, log := config(t, cp, fakeEnvoy(t, "trap '' TERM; echo trapped; exec sleep 1000"))
	c.DrainTime, c.StopTime = 0, 50*time.Millisecond
	r := run(t, c, log)
	r.awaitReady(200, "READY")
	r.await("the trap is set", func() (string, bool) { return log.String(), strings.Contains(log.String(), "trapped") })
	r.signal(syscall.SIGTERM)
	r.wait()
	if r.exit != 128+int(syscall.SIGKILL) || r.err != nil || !strings.Contains(log.String(), "killed") {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
}

// TestKilledParent: when the program next to it is killed, Envoy ends too. The
// pipe is at its end when nobody holds it any more.
func TestKilledParent(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("Linux only")
	}
	cp := newControlPlane(t, 0, `{}`)
	self := exec.CommandContext(t.Context(), os.Args[0])
	self.Env = append(os.Environ(), child+"=1",
		"KUMA_CONTROL_PLANE_URL=https://wrong.invalid", "ATOLL_CONTROL_PLANE_URL="+cp.URL, "KUMA_CONTROL_PLANE_CA_CERT="+cp.ca(),
		"KUMA_DATAPLANE_NAME=api", "KUMA_READINESS_PORT=0", "ATOLL_DATAPLANE_RUNTIME_WORK_DIR="+shortDir(t),
		"KUMA_DATAPLANE_RUNTIME_BINARY_PATH="+fakeEnvoy(t, "echo started; exec sleep 1000"))
	pipe, err := self.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(pipe, make([]byte, len("started\n")))
		read <- err
		_, err = io.Copy(io.Discard, pipe)
		read <- err
	}()
	for i, what := range []string{"does not start", "goes on alone"} {
		if i == 1 {
			if err := self.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-read:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("Envoy " + what)
		}
	}
	_ = self.Wait() // killed
}

func TestSignalBeforeEnvoy(t *testing.T) {
	cp := newControlPlane(t, 503, "not yet")
	c, log := config(t, cp, fakeEnvoy(t, "exit 9"))
	r := run(t, c, log)
	r.awaitReady(503, "NOT_READY")
	r.signal(syscall.SIGTERM)
	r.wait()
	if r.exit != 0 || r.err != nil {
		t.Errorf("%d %v\n%s", r.exit, r.err, log)
	}
}

func TestRefusedForGood(t *testing.T) {
	cp := newControlPlane(t, 422, "mesh: mesh \"default\" does not exist")
	c, log := config(t, cp, fakeEnvoy(t, "exit 9"))
	r := run(t, c, log)
	r.wait()
	if r.exit != 1 || !errors.Is(r.err, proxy.ErrRefused) || !strings.Contains(r.err.Error(), "does not exist") || len(cp.asked()) != 1 {
		t.Errorf("%d %v, asked %d times", r.exit, r.err, len(cp.asked()))
	}
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
