package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// metrics: Prometheus reads what an Envoy and the application beside it count, with
// whose it is, in both zones and at the zone ingress; a profile says what of it;
// and a collector of OpenTelemetry gets it without asking.
func metrics(t *testing.T, l *lab) {
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "# TYPE orders_total counter\norders_total{of=\"books\"} 7\n")
	}))
	t.Cleanup(shop.Close)
	otel := newCollector(t)
	policy := func(sidecar, backend string) string {
		return fmt.Sprintf(`
type: MeshMetric
mesh: default
name: metrics
spec:
  default:
    sidecar: %s
    applications: [{name: shop, path: /counted, address: 127.0.0.1, port: %d}]
    backends: [%s]
`, sidecar, shop.Listener.Addr().(*net.TCPAddr).Port, backend)
	}
	// read is the series that a proxy gives out.
	read := func(side, path string) ([]string, error) {
		text, err := fetch("http://" + l.sides[side].address + ":5671" + path)
		return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, "#") }), err
	}
	// want is an error unless the series of a name that has all the labels is there, with
	// a value that is not 0.
	want := func(series []string, name string, labels ...string) error {
		for _, line := range series {
			if strings.HasPrefix(line, name+"{") && !strings.HasSuffix(line, " 0") &&
				!slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(line, label) }) {
				return nil
			}
		}
		return fmt.Errorf("no %s with %q in\n%s", name, labels, strings.Join(series, "\n"))
	}
	const prometheus = `{type: Prometheus, prometheus: {port: 5671, path: /counted}}`

	undo := l.with(t, policy("{}", prometheus))
	eventually(t, "a read of every proxy", func() error {
		for _, to := range []string{apiHTTP, remoteHTTP} {
			if a := l.call(t, to, "/"); a.Status != http.StatusOK {
				return fmt.Errorf("%d %s", a.Status, a.Text)
			}
		}
		var errs []error
		for side, role := range map[string]struct{ zone, role, workload string }{
			"api-1": {"east", "sidecar", "api"}, "remote-1": {"west", "sidecar", "remote"}, "ingress-west": {"west", "zone-ingress", ""},
		} {
			series, err := read(side, "/counted")
			whose := []string{`mesh="default"`, `zone="` + role.zone + `"`, `kuma_proxy_role="` + role.role + `"`}
			if role.workload != "" {
				whose = append(whose, `kuma_workload="`+role.workload+`"`)
				errs = append(errs,
					want(series, "orders_total", append(whose, `of="books"`, `kuma_application="shop"`)...),
					want(series, "envoy_cluster_upstream_rq_total", append(whose, `envoy_cluster_name="self_inbound`)...))
			} else if text := strings.Join(series, "\n"); strings.Contains(text, "orders_total") {
				err = errors.New("a zone proxy has the metrics of an application")
			}
			errs = append(errs, err, want(series, "atoll_metrics_source_up", append(whose, `source="envoy"`)...))
		}
		return errors.Join(errs...)
	})
	if _, err := read("api-1", "/stats"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("what is at another path: %v", err)
	}
	undo()
	eventually(t, "that nobody listens any more", func() error {
		if c, err := net.Dial("tcp", l.sides["api-1"].address+":5671"); err == nil {
			c.Close()
			return errors.New("somebody does")
		}
		return nil
	})

	undo = l.with(t, policy(`{profiles: {appendProfiles: [{name: None}], include: [{type: Exact, match: envoy_server_live}]}}`, prometheus))
	eventually(t, "a read of what is included alone", func() error {
		series, err := read("api-1", "/counted")
		for _, line := range series {
			if strings.HasPrefix(line, "envoy_") && !strings.HasPrefix(line, "envoy_server_live{") {
				return fmt.Errorf("%s", line)
			}
		}
		return errors.Join(err, want(series, "envoy_server_live"), want(series, "orders_total"))
	})
	undo()

	l.with(t, fmt.Sprintf(`
type: MeshOpenTelemetryBackend
mesh: default
name: metrics
labels: {for: metrics}
spec: {endpoint: {address: 127.0.0.1, port: %d}}
`, otel.port))
	l.with(t, policy("{}", `{type: OpenTelemetry, openTelemetry: {refreshInterval: 1s, backendRef: {kind: MeshOpenTelemetryBackend, labels: {for: metrics}}}}`))
	eventually(t, "deliveries of every proxy", func() error {
		otel.mu.Lock()
		defer otel.mu.Unlock()
		has := func(name, service, zone string) error {
			for _, m := range otel.metrics {
				if m.Name == name && m.Value != 0 && m.Resource["service.name"] == service && m.Attributes["zone"] == zone {
					return nil
				}
			}
			return fmt.Errorf("no %s of %s among %d points", name, service, len(otel.metrics))
		}
		return errors.Join(has("orders_total", "api", "east"), has("envoy_cluster_upstream_rq_total", "api", "east"),
			has("orders_total", "remote", "west"), has("envoy_server_live", "default.ingress-west", "west"))
	})
}
