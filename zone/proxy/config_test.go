package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/proxy"
)

func TestEnvironmentAndFlags(t *testing.T) {
	c := proxy.Default()
	err := c.Environment([]string{
		"KUMA_CONTROL_PLANE_URL=https://kuma:1", "ATOLL_CONTROL_PLANE_URL=https://atoll:1",
		"KUMA_DATAPLANE_MESH=shop", "ATOLL_DATAPLANE_DRAIN_TIME=5s", "KUMA_DATAPLANE_RUNTIME_BIND_OUTBOUNDS=true",
		"KUMA_DATAPLANE_RUNTIME_CONCURRENCY=2", "KUMA_READINESS_PORT=", "POD_NAME=api-1", "POD_NAMESPACE=shop", "PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("dp", pflag.ContinueOnError)
	c.Bind(fs)
	if err := fs.Parse([]string{"--mesh", "bank", "-d", "dp.yaml", "-v", "a=1,b=2"}); err != nil {
		t.Fatal(err)
	}
	if c.ControlPlane != "https://atoll:1" || c.Mesh != "bank" || c.DrainTime != 5*time.Second || !c.BindOutbounds || c.Concurrency != 2 ||
		c.ReadinessPort != 9902 || c.PodName != "api-1" || c.DataplaneFile != "dp.yaml" || c.Variables["b"] != "2" {
		t.Errorf("%+v", c)
	}
	err = c.Environment([]string{"KUMA_READINESS_PORT=x", "ATOLL_DATAPLANE_DRAIN_TIME=soon"})
	if err == nil || !strings.Contains(err.Error(), "KUMA_READINESS_PORT") || !strings.Contains(err.Error(), "ATOLL_DATAPLANE_DRAIN_TIME") {
		t.Errorf("expected both faults, not %v", err)
	}
}

const definition = "type: Dataplane\nmesh: shop\nname: {{ name }}\nnetworking: {address: {{address}}}\n"

// TestFaultsBeforeTheNetwork: nothing is asked when something here is wrong.
func TestFaultsBeforeTheNetwork(t *testing.T) {
	dir := shortDir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name   string
		change func(*proxy.Config)
		want   string
	}{
		{"no Envoy", func(c *proxy.Config) { c.Binary = "no-such-envoy" }, "no-such-envoy"},
		{"no URL", func(c *proxy.Config) { c.ControlPlane = "localhost:5678" }, "--cp-address"},
		{"no name", func(c *proxy.Config) { c.Name = "" }, "which Dataplane"},
		{"bad name", func(c *proxy.Config) { c.Name = "../api" }, "name of the Dataplane"},
		{"bad mesh", func(c *proxy.Config) { c.Mesh = "A B" }, "mesh of the Dataplane"},
		{"another type", func(c *proxy.Config) { c.ProxyType = "gateway" }, "--proxy-type"},
		{"definition of another type", func(c *proxy.Config) {
			c.Name, c.ProxyType, c.Dataplane = "", "ingress", "type: Dataplane\nmesh: shop\nname: api\nnetworking: {address: 10.0.0.1}"
		}, "not a ZoneIngress"},
		{"no token file", func(c *proxy.Config) { c.TokenFile = dir + "/missing" }, "missing"},
		{"empty token file", func(c *proxy.Config) { c.TokenFile = file("empty", "\n") }, "is empty"},
		{"no token in the file", func(c *proxy.Config) { c.TokenFile = file("password", "hunter2") }, "no JSON web token"},
		{"no token", func(c *proxy.Config) { c.Token = "a.b.c" }, "no JSON web token"},
		{"no CA file", func(c *proxy.Config) { c.CACertFile = dir + "/missing.pem" }, "missing.pem"},
		{"no CA in it", func(c *proxy.Config) { c.CACertFile = file("ca.pem", "x") }, "no PEM certificate"},
		{"name beside a definition", func(c *proxy.Config) { c.Dataplane = definition }, "--name"},
		{"two definitions", func(c *proxy.Config) { c.Dataplane, c.DataplaneFile = definition, file("dp.yaml", definition) }, "exclude"},
		{"variables", func(c *proxy.Config) { c.Name, c.Dataplane = "", definition }, "name, address"},
		{"fault in the definition", func(c *proxy.Config) {
			c.Name, c.Dataplane = "", "type: Dataplane\nmesh: shop\nname: api\nnetworking: {addres: 10.0.0.1}"
		}, "addres"},
		{"path too long for a socket", func(c *proxy.Config) { c.WorkDir = dir + "/" + strings.Repeat("d", 90) }, "--work-dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cp := newControlPlane(t, 0, "{}")
			conf, log := config(t, cp, fakeEnvoy(t, "exit 9"))
			c.change(&conf)
			exit, err := proxy.Run(t.Context(), conf)
			if exit != 1 || !errors.Is(err, proxy.ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d %v", exit, err)
			}
			if strings.Contains(err.Error()+log.String(), "hunter2") {
				t.Error("what is in the token file was shown")
			}
			if len(cp.asked()) != 0 {
				t.Error("the control plane was asked")
			}
		})
	}
}

func TestBinaryThatIsNotEnvoy(t *testing.T) {
	cp := newControlPlane(t, 0, "{}")
	c, _ := config(t, cp, "true")
	if exit, err := proxy.Run(t.Context(), c); exit != 1 || !errors.Is(err, proxy.ErrEnvoy) || len(cp.asked()) != 0 {
		t.Errorf("%d %v", exit, err)
	}
}

func TestPortTaken(t *testing.T) {
	cp := newControlPlane(t, 503, "")
	first, log := config(t, cp, fakeEnvoy(t, "exit 9"))
	r := run(t, first, log)
	second := first
	address, err := url.Parse(r.ready)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(address.Port(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	second.ReadinessPort = uint32(port)
	if exit, err := proxy.Run(t.Context(), second); exit != 1 || !strings.Contains(err.Error(), "--readiness-port") {
		t.Errorf("%d %v", exit, err)
	}
}

func TestDefinitionIsSent(t *testing.T) {
	cp := newControlPlane(t, 0, "{}")
	c, log := config(t, cp, fakeEnvoy(t, "exit 0"))
	c.Name, c.Dataplane, c.Variables = "", definition, map[string]string{"name": "api-1", "address": "10.0.0.1"}
	r := run(t, c, log)
	r.wait()
	if r.exit != 0 || r.err != nil {
		t.Errorf("%d %v", r.exit, r.err)
	}
	req := cp.asked()[0]
	if req.Mesh != "shop" || req.Name != "api-1" || req.DataplaneResource != "type: Dataplane\nmesh: shop\nname: api-1\nnetworking: {address: 10.0.0.1}\n" {
		t.Errorf("%+v", req)
	}
}

func TestSkipVerify(t *testing.T) {
	cp := newControlPlane(t, 0, "{}")
	c, log := config(t, cp, fakeEnvoy(t, "exit 0"))
	c.CACert, c.RetryMaxDuration = "", 0
	if exit, err := proxy.Run(t.Context(), c); exit != 1 || !errors.Is(err, proxy.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("verified by the system's authorities: %d %v", exit, err)
	}
	c.SkipVerify = true
	if exit, err := proxy.Run(t.Context(), c); exit != 0 || err != nil {
		t.Errorf("%d %v\n%s", exit, err, log)
	}
}

// answers is a control plane without a network, so that time can be fake.
type answers func(try int) (status int, body string)

func (f answers) fetch(ctx context.Context) (got bootstrap.Answer, tries int, err error) {
	s := proxy.Source{
		URL: "https://zone:5678", Backoff: 3 * time.Second, MaxDuration: 5 * time.Minute, Log: slog.New(slog.DiscardHandler),
		HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			tries++
			status, body := f(tries)
			if status == 0 {
				<-r.Context().Done() // never answers
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})},
	}
	got, err = s.Fetch(ctx, bootstrap.Request{Mesh: "shop", Name: "api"})
	return got, tries, err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestFetch(t *testing.T) {
	ok, err := json.Marshal(bootstrap.Answer{Bootstrap: []byte("node: {}")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		cp    answers
		tries int
		took  time.Duration
		err   error
	}{
		{"at once", func(int) (int, string) { return 200, string(ok) }, 1, 0, nil},
		{"not created yet", func(try int) (int, string) {
			if try < 4 {
				return 404, ""
			}
			return 200, string(ok)
		}, 4, 9 * time.Second, nil},
		{"404 with a text is final", func(int) (int, string) { return 404, "404 page not found" }, 1, 0, proxy.ErrRefused},
		{"422 is final", func(int) (int, string) { return 422, "no" }, 1, 0, proxy.ErrRefused},
		{"400 is final", func(int) (int, string) { return 400, "" }, 1, 0, proxy.ErrRefused},
		{"no bootstrap in the answer", func(try int) (int, string) { return 200, []string{"{}", "<html>", string(ok)}[try-1] }, 3, 6 * time.Second, nil},
		{"a try that hangs", func(try int) (int, string) { return []int{0, 200}[try-1], string(ok) }, 2, 13 * time.Second, nil},
		{"never", func(int) (int, string) { return 500, "" }, 101, 5 * time.Minute, proxy.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				got, tries, err := c.cp.fetch(t.Context())
				if took := time.Since(begin); tries != c.tries || took != c.took {
					t.Errorf("%d tries in %s, expected %d in %s", tries, took, c.tries, c.took)
				}
				if !errors.Is(err, c.err) || c.err == nil && string(got.Bootstrap) != "node: {}" {
					t.Errorf("%q %v", got.Bootstrap, err)
				}
			})
		})
	}
	t.Run("the end of the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, _, err := answers(func(int) (int, string) { return 500, "" }).fetch(ctx)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
}
