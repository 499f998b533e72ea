package zone_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/xds/wire"
	"github.com/atoll-mesh/atoll/zone"
)

// insight reads the insight of a proxy of the mesh default.
func (p *plane) insight(t testing.TB, name string) (in api.DataplaneInsight, err error) {
	t.Helper()
	raw, err := p.client.Get(t.Context(), api.DataplaneInsights, "default", name)
	if err == nil {
		err = json.Unmarshal(raw, &in)
	}
	return in, err
}

func TestProxyThatLeaves(t *testing.T) {
	p := start(t, func(c *zone.Config) { c.DPServer.DeregistrationDelay = server.Duration(600 * time.Millisecond) })
	token := p.token(t, "cart-1", "cart")
	n := node("default.cart-1", cart("cart-1", bound))
	x := p.connect(t, n, nil, token).served(t)
	eventually(t, "its service", func() error {
		_, err := p.client.Get(t.Context(), api.MeshServices, "default", "cart")
		return err
	})
	revision := p.metrics(t)["atoll_revision"]

	// A newer stream takes over: the older ends, the newer is the proxy.
	y := p.connect(t, n, nil, token).served(t)
	if err := <-x.ended; !strings.Contains(err.Error(), "connected again") {
		t.Errorf("the older stream ended with %v", err)
	}
	eventually(t, "the insight has both streams", func() error {
		in, err := p.insight(t, "cart-1")
		if err == nil && (len(in.Subscriptions) != 2 || in.Subscriptions[0].DisconnectTime == nil || in.Subscriptions[1].DisconnectTime != nil) {
			err = fmt.Errorf("%+v", in.Subscriptions)
		}
		return err
	})
	// It goes and comes back within the delay, three times.
	for range 3 {
		y.cancel()
		<-y.ended
		y = p.connect(t, n, nil, token).served(t)
	}
	if now := p.metrics(t)["atoll_revision"]; now != revision {
		t.Errorf("reconnects wrote %v revisions", now-revision)
	}
	left := time.Now()
	y.cancel()
	eventually(t, "it is deregistered", func() error {
		if !p.gone(t, api.Dataplanes, "cart-1") {
			return errors.New("it is there")
		}
		return nil
	})
	if after := time.Since(left); after < 600*time.Millisecond {
		t.Errorf("deregistered after %v, before the delay was over", after)
	}
	eventually(t, "its insight goes with it", func() error {
		if in, err := p.insight(t, "cart-1"); err == nil {
			return fmt.Errorf("%+v", in)
		}
		return nil
	})
	p.connect(t, n, nil, token).served(t) // and it can come again
}

// Nobody is sent to a proxy that has registered and does not listen yet.
func TestProxyThatJoins(t *testing.T) {
	p := start(t)
	web := p.connect(t, node("default.web-1", cart("web-1", "kuma.io/workload: web")), nil, p.token(t, "web-1", "web")).served(t)
	defer web.cancel()
	healthy := func() (n int) {
		t.Helper()
		raw, err := p.client.Get(t.Context(), api.MeshServices, "default", "cart")
		if err != nil {
			return -1
		}
		var doc struct {
			Status struct {
				DataplaneProxies struct{ Connected, Healthy, Total int }
			}
		}
		if err := json.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Status.DataplaneProxies.Healthy
	}
	n, token := node("default.cart-1", cart("cart-1", bound)), p.token(t, "cart-1", "cart")
	deaf := func(x *proxy) { x.deaf = true }
	p.connect(t, n, deaf, token).served(t)
	eventually(t, "its service", func() error {
		if healthy() < 0 {
			return errors.New("not there")
		}
		return nil
	})
	if n := healthy(); n != 0 {
		t.Errorf("%d are healthy before any listens", n)
	}
	// A stream that takes over before the proxy listens is still joining.
	p.connect(t, n, deaf, token).served(t)
	eventually(t, "the takeover is known", func() error {
		in, err := p.insight(t, "cart-1")
		if err == nil && (len(in.Subscriptions) != 2 || in.Subscriptions[0].DisconnectTime == nil) {
			err = fmt.Errorf("%+v", in.Subscriptions)
		}
		return err
	})
	if n := healthy(); n != 0 {
		t.Errorf("%d are healthy before any listens, after a takeover", n)
	}
	p.connect(t, n, nil, token).served(t)
	eventually(t, "it is used once it listens", func() error {
		if n := healthy(); n != 1 {
			return fmt.Errorf("%d are healthy", n)
		}
		return nil
	})
}

func TestRefusalIsShown(t *testing.T) {
	p := start(t)
	good := p.connect(t, node("default.cart-1", cart("cart-1", bound)), nil, p.token(t, "cart-1", "cart")).served(t)
	p.connect(t, node("default.cart-2", cart("cart-2", bound)), func(x *proxy) { x.refuses = "no such filter" }, p.token(t, "cart-2", "cart")).served(t)
	eventually(t, "the refusal is a condition", func() error {
		in, err := p.insight(t, "cart-2")
		if err == nil && (len(in.Conditions) == 0 || !strings.Contains(in.Conditions[0].Message, "no such filter")) {
			err = fmt.Errorf("%+v", in.Conditions)
		}
		return err
	})
	eventually(t, "the metrics tell of it", func() error {
		m := p.metrics(t)
		if m["atoll_proxies_connected"] != 2 || m["atoll_proxies_rejected"] != 1 {
			return fmt.Errorf("%v connected, %v rejected", m["atoll_proxies_connected"], m["atoll_proxies_rejected"])
		}
		return nil
	})
	good.mu.Lock()
	defer good.mu.Unlock()
	if good.taken[wire.Listener] == 0 {
		t.Error("the other proxy has no listeners")
	}
}

func TestMetrics(t *testing.T) {
	p := start(t)
	p.connect(t, node("default.cart-1", cart("cart-1", bound)), nil, p.token(t, "cart-1", "cart")).served(t)
	eventually(t, "all metrics", func() error {
		m := p.metrics(t)
		for _, name := range []string{
			"atoll_proxies_connected", "atoll_engine_rounds_total", `atoll_engine_queries_run_total{query="identity-of"}`, "atoll_engine_nodes",
			`atoll_xds_messages_sent_total{type="CDS"}`, `atoll_xds_resources_sent_total{type="LDS"}`, "atoll_revision", `atoll_rows{kind="Mesh",source="own"}`,
		} {
			if m[name] == 0 {
				return fmt.Errorf("%s is %v", name, m[name])
			}
		}
		if _, ok := m["atoll_proxies_behind"]; !ok {
			return errors.New("atoll_proxies_behind is missing")
		}
		return nil
	})
	r, err := http.Get("http://" + p.value(t, "diagnostics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(line, "# TYPE atoll_"); ok {
			name, _, _ = strings.Cut(name, " ")
			if !strings.Contains(string(body), "# HELP atoll_"+name+" ") {
				t.Errorf("atoll_%s has no help", name)
			}
		}
	}
}
