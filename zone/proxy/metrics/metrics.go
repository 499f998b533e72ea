// Package metrics gives out the metrics of an Envoy and of the applications beside
// it, as one.
//
// It owns what is read where, which of Envoy's metrics are passed on, the endpoint
// that Envoy's listeners for Prometheus lead to ([Gatherer] is its handler) and
// the deliveries to collectors of OpenTelemetry. Package zone/proxy gives it the
// way to Envoy and what the control plane wants ([Gatherer.Set]). It never opens a
// listener, and keeps nothing between two reads.
//
//	Envoy /stats ─▶ profile ─┐             ┌▶ labels ─▶ Prometheus text
//	applications ────────────┴▶ one list ──┴▶ labels ─▶ OTLP
//
// # Why
//
// One port per host is all that Prometheus should have to know, and it should go
// on getting the rest when an application hangs: each source has a part of the
// time that Prometheus gives, and [up] says who was away. Series of applications
// are passed on as they are; where two sources give the same series the first
// counts, and where they disagree about the type of a metric too, because
// Prometheus refuses all of an answer that contradicts itself.
package metrics

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// Options are what a [Gatherer] needs.
type Options struct {
	// Envoy opens the answer of Envoy's administration to a GET of a path.
	Envoy func(ctx context.Context, path string) (io.ReadCloser, error)
	// Address is where applications are that say no address.
	Address string
	// Redirected: the host redirects connections, which those to its own applications
	// must escape.
	Redirected bool
	// Instance tells this proxy apart from all others at a collector.
	Instance string
	Log      *slog.Logger
}

// Gatherer reads metrics and gives them out.
type Gatherer struct {
	Options
	applications *http.Client
	wanted       atomic.Pointer[wanted]
	changed      chan struct{} // wanted is another one
}

// wanted is what the control plane wants.
type wanted struct {
	bootstrap.Metrics
	profile profile
	targets []Target
}

// New returns a Gatherer that gives out nothing until [Gatherer.Set].
func New(o Options) *Gatherer {
	return &Gatherer{
		Options: o, changed: make(chan struct{}, 1),
		applications: &http.Client{
			// Reads are as far apart as Prometheus makes them: an idle connection would
			// only be one that the application has to keep.
			Transport: &http.Transport{DisableKeepAlives: true, DialContext: o.dial},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // to elsewhere: nobody asked for that
			},
		},
	}
}

// dial connects to an application. Connections from the addresses that Envoy itself
// uses are not redirected; they lead nowhere but to the own host.
func (o Options) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	if host, _, err := net.SplitHostPort(address); err == nil && o.Redirected && host == o.Address {
		from := net.IPv4(127, 0, 0, 6)
		if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
			from = net.ParseIP("::6")
		}
		dialer.LocalAddr = &net.TCPAddr{IP: from}
	}
	return dialer.DialContext(ctx, network, address)
}

// Clear says that nothing is wanted.
func (g *Gatherer) Clear() { g.want(nil) }

// Set says what is wanted from now on: what is read, and the collectors that it is
// sent to.
func (g *Gatherer) Set(m bootstrap.Metrics, targets []Target) {
	g.want(&wanted{Metrics: m, profile: newProfile(m.Sidecar), targets: targets})
}

func (g *Gatherer) want(w *wanted) {
	g.wanted.Store(w)
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// The time for one read: what Prometheus gives, less what it takes to answer.
const (
	scrapeHeader  = "X-Prometheus-Scrape-Timeout-Seconds"
	defaultScrape = 8 * time.Second
	maxScrape     = time.Minute
)

func scrapeTime(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get(scrapeHeader), 64)
	if err != nil || seconds <= 0 {
		return defaultScrape
	}
	return min(time.Duration(seconds*0.9*float64(time.Second)), maxScrape)
}

// ServeHTTP answers a read of Prometheus: GET /meshmetric.
func (g *Gatherer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := g.wanted.Load()
	switch {
	case r.URL.Path != bootstrap.MetricsPath && !strings.HasPrefix(r.URL.Path, bootstrap.MetricsPath+"/"):
		http.NotFound(w, r)
		return
	case want == nil:
		http.Error(w, "no MeshMetric selects this proxy, or it is not known yet", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), scrapeTime(r.Header))
	defer cancel()
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	w.Header().Set("content-type", string(format))
	out := expfmt.NewEncoder(w, format)
	extra := prometheusLabels(want.ExtraLabels)
	for _, f := range merge(g.gather(ctx, want)) {
		addLabels(f, extra)
		if err := out.Encode(f); err != nil {
			if r.Context().Err() == nil {
				g.Log.Warn("metrics were not given out whole", "metric", f.GetName(), "error", err)
			}
			return
		}
	}
}

// source is what one place gave.
type source struct {
	name     string // "envoy", or of the application
	families []*dto.MetricFamily
	err      error
}

const envoySource = "envoy"

// gather reads all sources at once. What one took too long for is an error of its own.
func (g *Gatherer) gather(ctx context.Context, want *wanted) []source {
	out := make([]source, 1+len(want.Applications))
	var reads sync.WaitGroup
	reads.Go(func() { out[0] = source{name: envoySource}; out[0].families, out[0].err = g.readEnvoy(ctx, want) })
	for i, a := range want.Applications {
		reads.Go(func() {
			at := net.JoinHostPort(cmp.Or(a.Address, g.Address), strconv.Itoa(int(a.Port)))
			url := "http://" + at + "/" + strings.TrimPrefix(a.Path, "/")
			one := source{name: cmp.Or(a.Name, at)}
			one.families, one.err = g.readApplication(ctx, url)
			if a.Name != "" {
				for _, f := range one.families {
					addLabels(f, []*dto.LabelPair{pair(applicationLabel, a.Name)})
				}
			}
			out[i+1] = one
		})
	}
	reads.Wait()
	for _, s := range out {
		if s.err != nil && !errors.Is(s.err, context.Canceled) {
			g.Log.Debug("metrics could not be read", "of", s.name, "error", s.err)
		}
	}
	return append(out, source{name: ownSource, families: []*dto.MetricFamily{up(out)}})
}

func (g *Gatherer) readEnvoy(ctx context.Context, want *wanted) ([]*dto.MetricFamily, error) {
	path := "/stats?format=prometheus&text_readouts"
	if want.Sidecar == nil || want.Sidecar.IncludeUnused == nil || !*want.Sidecar.IncludeUnused {
		path += "&usedonly"
	}
	body, err := g.Envoy(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	families, err := read(body, false)
	return want.profile.filter(families), err
}

// accept prefers what needs no translation.
const accept = "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"

func (g *Gatherer) readApplication(ctx context.Context, url string) ([]*dto.MetricFamily, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	q.Header.Set("accept", accept)
	answer, err := g.applications.Do(q)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, errors.New(answer.Status)
	}
	return read(answer.Body, strings.HasPrefix(answer.Header.Get("content-type"), "application/openmetrics-text"))
}

// What this package says itself.
const (
	ownSource        = "atoll-dp"
	upName           = "atoll_metrics_source_up"
	sourceLabel      = "source"
	applicationLabel = "kuma_application"
)

// up is 1 for each source that answered, else 0.
func up(sources []source) *dto.MetricFamily {
	f := &dto.MetricFamily{
		Name: new(upName), Type: dto.MetricType_GAUGE.Enum(),
		Help: new("1 if Envoy, or the application, gave its metrics for this answer, else 0."),
	}
	for _, s := range sources {
		m := &dto.Metric{Label: []*dto.LabelPair{pair(sourceLabel, s.name)}, Gauge: &dto.Gauge{Value: new(1.0)}}
		if s.err != nil {
			m.Gauge.Value = new(0.0)
		}
		if !slices.ContainsFunc(f.Metric, func(other *dto.Metric) bool { return sameLabels(other, m) }) {
			f.Metric = append(f.Metric, m)
		}
	}
	return f
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }
