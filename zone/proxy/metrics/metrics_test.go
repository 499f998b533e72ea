package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/proxy/metrics"
)

const envoyText = `# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="self_inbound_dp_http"} 3
envoy_cluster_upstream_rq_total{envoy_cluster_name="system_envoy_admin"} 7
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="a",le="1"} 1
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="a",le="5"} 3
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="a",le="+Inf"} 4
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="a"} 20.5
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="a"} 4
# TYPE envoy_cluster_lb_subsets_created counter
envoy_cluster_lb_subsets_created{envoy_cluster_name="a"} 0
# TYPE envoy_server_live gauge
envoy_server_live{} 1
`

// gatherer reads envoyText, or, without usedonly, a metric more.
func gatherer(t *testing.T) *metrics.Gatherer {
	return metrics.New(metrics.Options{
		Address: "127.0.0.1", Instance: "default.web-1", Log: slog.New(slog.DiscardHandler),
		Envoy: func(_ context.Context, path string) (io.ReadCloser, error) {
			text := envoyText
			switch path {
			case "/stats?format=prometheus&text_readouts&usedonly":
			case "/stats?format=prometheus&text_readouts":
				text += "# TYPE envoy_server_state gauge\nenvoy_server_state{} 0\n"
			default:
				return nil, fmt.Errorf("path %q", path)
			}
			return io.NopCloser(strings.NewReader(text)), nil
		},
	})
}

// application answers with the text.
func application(t *testing.T, contentType, text string) bootstrap.MetricsApplication {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("content-type", contentType)
		io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return bootstrap.MetricsApplication{Path: "/metrics", Port: portOf(t, s.Listener.Addr())}
}

func portOf(t *testing.T, a net.Addr) uint32 {
	_, text, _ := net.SplitHostPort(a.String())
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// scrape is the samples that Prometheus gets, without comments, but those of up.
func scrape(t *testing.T, g *metrics.Gatherer, header ...string) (series []string, up []string) {
	t.Helper()
	q := httptest.NewRequest(http.MethodGet, "/meshmetric", nil)
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, q)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(w.Body.String())); err != nil {
		t.Fatalf("%v in\n%s", err, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "atoll_metrics_source_up") {
			up = append(up, line)
		} else if !strings.HasPrefix(line, "#") {
			series = append(series, line)
		}
	}
	return series, up
}

func names(series []string) []string {
	var out []string
	for _, line := range series {
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		out = append(out, name)
	}
	return slices.Compact(out)
}

func TestProfiles(t *testing.T) {
	of := func(names ...string) *api.MetricProfiles {
		p := &api.MetricProfiles{}
		for _, n := range names {
			p.AppendProfiles = append(p.AppendProfiles, api.MetricProfile{Name: n})
		}
		return p
	}
	with := func(p *api.MetricProfiles, exclude, include []api.MetricSelector) *api.SidecarMetrics {
		p.Exclude, p.Include = exclude, include
		return &api.SidecarMetrics{Profiles: p}
	}
	one := func(sort, match string) []api.MetricSelector { return []api.MetricSelector{{Type: sort, Match: match}} }
	const total, bucket, sum, count, subsets, live = "envoy_cluster_upstream_rq_total", "envoy_cluster_upstream_rq_time_bucket",
		"envoy_cluster_upstream_rq_time_sum", "envoy_cluster_upstream_rq_time_count", "envoy_cluster_lb_subsets_created", "envoy_server_live"
	for _, c := range []struct {
		what string
		said *api.SidecarMetrics
		want []string
	}{
		{"nothing is Basic", nil, []string{bucket, sum, count, total, live}},
		{"All", with(of("All"), nil, nil), []string{subsets, bucket, sum, count, total, live}},
		{"the broadest counts", with(of("None", "All", "Basic"), nil, nil), []string{subsets, bucket, sum, count, total, live}},
		{"None", with(of("None"), nil, nil), nil},
		{"None and a list", with(of("None"), nil, one("Regex", "rq_(total|none)$")), []string{total}},
		{"exclude by prefix", with(of("Basic"), one("Prefix", "envoy_cluster"), nil), []string{live}},
		{"exclude by a part", with(of(), one("Contains", "rq_time"), nil), []string{total, live}},
		{"include wins", with(of("All"), one("Regex", ".*"), one("Exact", live)), []string{live}},
		{"include puts in", with(of("Basic"), nil, one("Contains", "subsets")), []string{subsets, bucket, sum, count, total, live}},
		{"unused", &api.SidecarMetrics{IncludeUnused: new(true)}, []string{bucket, sum, count, total, live, "envoy_server_state"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := gatherer(t)
			g.Set(bootstrap.Metrics{Sidecar: c.said}, nil)
			series, _ := scrape(t, g)
			if diff := cmp.Diff(c.want, names(series)); diff != "" {
				t.Error(diff)
			}
			if all := c.said != nil && c.said.Profiles != nil && slices.Contains(c.said.Profiles.AppendProfiles, api.MetricProfile{Name: "All"}); strings.Contains(strings.Join(series, "\n"), "system_") && !all {
				t.Errorf("what Envoy does for the mesh itself is passed on:\n%s", strings.Join(series, "\n"))
			}
		})
	}
}

// TestOneAnswer: what several applications give is one answer that Prometheus takes,
// with the labels of the mesh.
func TestOneAnswer(t *testing.T) {
	g := gatherer(t)
	const text = "text/plain; version=0.0.4"
	first := application(t, text, "# TYPE orders_total counter\norders_total{mesh=\"mine\"} 5\n# TYPE queue gauge\nqueue 1\n")
	first.Name = "shop"
	second := application(t, text, "# TYPE orders_total gauge\norders_total 6\n# TYPE queue gauge\nqueue 2\nqueue{of=\"a\"} 3 1700000000000\n")
	third := application(t, text, "# TYPE queue gauge\nqueue 9\n")
	g.Set(bootstrap.Metrics{
		Sidecar:      &api.SidecarMetrics{Profiles: &api.MetricProfiles{AppendProfiles: []api.MetricProfile{{Name: "None"}}}},
		Applications: []bootstrap.MetricsApplication{first, second, third},
		ExtraLabels:  map[string]string{"mesh": "default", "kuma.proxy_role": "sidecar"},
	}, nil)
	series, up := scrape(t, g)
	if diff := cmp.Diff([]string{
		`orders_total{mesh="mine",kuma_application="shop",kuma_proxy_role="sidecar"} 5`,
		`queue{kuma_application="shop",kuma_proxy_role="sidecar",mesh="default"} 1`,
		`queue{kuma_proxy_role="sidecar",mesh="default"} 2`, // the third one's is lost: it says nothing to tell it apart
		`queue{of="a",kuma_proxy_role="sidecar",mesh="default"} 3 1700000000000`,
	}, series); diff != "" {
		t.Error(diff)
	}
	if want := []string{"envoy", "shop", fmt.Sprintf("127.0.0.1:%d", second.Port), fmt.Sprintf("127.0.0.1:%d", third.Port)}; len(up) != len(want) {
		t.Error(up)
	} else {
		for i, source := range want {
			if !strings.Contains(up[i], `source="`+source+`"`) || !strings.HasSuffix(up[i], " 1") {
				t.Errorf("%s: %s", source, up[i])
			}
		}
	}
}

// TestOpenMetrics: an application may speak the newer format only.
func TestOpenMetrics(t *testing.T) {
	g := gatherer(t)
	const newer = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	app := application(t, newer, `# HELP orders Orders \"taken\" \\ given.
# TYPE orders counter
# UNIT orders orders
orders_total{shop="a # b \"c\" } d"} 17.0 1700000000.5 # {trace_id="x"} 0.67 1700000000.0
orders_created{shop="a"} 1.6e9
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 1 # {trace_id="y"} 0.2
latency_seconds_bucket{le="+Inf"} 2
latency_seconds_count 2
latency_seconds_sum 3.5
latency_seconds_created 1.6e9
# TYPE build info
build_info{version="1"} 1
# TYPE mode stateset
mode{mode="on"} 1
# TYPE sizes gaugehistogram
sizes_bucket{le="+Inf"} 2
sizes_gcount 2
# TYPE other unknown
other 4
free_created 5
# EOF
`)
	cut := application(t, newer, "# TYPE orders counter\norders_total 1\n")
	cut.Name = "cut"
	g.Set(bootstrap.Metrics{
		Sidecar:      &api.SidecarMetrics{Profiles: &api.MetricProfiles{AppendProfiles: []api.MetricProfile{{Name: "None"}}}},
		Applications: []bootstrap.MetricsApplication{app, cut},
	}, nil)
	series, up := scrape(t, g)
	if diff := cmp.Diff([]string{
		`build_info{version="1"} 1`,
		`free_created 5`,
		`latency_seconds_bucket{le="0.5"} 1`, `latency_seconds_bucket{le="+Inf"} 2`, `latency_seconds_sum 3.5`, `latency_seconds_count 2`,
		`mode{mode="on"} 1`,
		`orders_total{shop="a # b \"c\" } d"} 17 1700000000500`,
		`other 4`,
		`sizes_bucket{le="+Inf"} 2`, `sizes_gcount 2`,
	}, series); diff != "" {
		t.Error(diff)
	}
	if last := up[len(up)-1]; !strings.Contains(last, `source="cut"`) || !strings.HasSuffix(last, " 0") {
		t.Error(last)
	}
}

// TestSourcesThatAreAway: who hangs, refuses or talks nonsense is said, and the rest
// is there in time.
func TestSourcesThatAreAway(t *testing.T) {
	g := gatherer(t)
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hangs.Close)
	gone := listen(t)
	gone.Close()
	nonsense := application(t, "text/html", "<html>")
	nonsense.Name = "nonsense"
	moved := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	t.Cleanup(moved.Close)
	good := application(t, "text/plain", "orders 1\n")
	good.Name = "good"
	app := func(name string, a net.Addr) bootstrap.MetricsApplication {
		return bootstrap.MetricsApplication{Name: name, Path: "/metrics", Port: portOf(t, a)}
	}
	g.Set(bootstrap.Metrics{Applications: []bootstrap.MetricsApplication{
		app("hangs", hangs.Listener.Addr()), app("gone", gone.Addr()), nonsense, app("moved", moved.Listener.Addr()), good,
	}}, nil)
	series, up := scrape(t, g, "X-Prometheus-Scrape-Timeout-Seconds", "0.5")
	all := strings.Join(series, "\n")
	if !strings.Contains(all, `orders{kuma_application="good"} 1`) || !strings.Contains(all, "envoy_server_live 1") {
		t.Error(all)
	}
	for _, line := range up {
		alive := strings.Contains(line, `"envoy"`) || strings.Contains(line, `"good"`)
		if strings.HasSuffix(line, " 1") != alive {
			t.Error(line)
		}
	}
	if len(up) != 6 {
		t.Error(up)
	}
}

func TestWithoutEnvoy(t *testing.T) {
	g := metrics.New(metrics.Options{
		Log:   slog.New(slog.DiscardHandler),
		Envoy: func(context.Context, string) (io.ReadCloser, error) { return nil, errors.New("away") },
	})
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/meshmetric", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("before anything is wanted: %d", w.Code)
	}
	w = httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/other", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
	g.Set(bootstrap.Metrics{}, nil)
	if series, up := scrape(t, g); len(series) != 0 || len(up) != 1 || !strings.HasSuffix(up[0], " 0") {
		t.Error(series, up)
	}
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
