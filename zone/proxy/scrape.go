package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/proxy/metrics"
)

// scraped is the metrics of Envoy and of the applications, given out at a socket
// that Envoy opens for Prometheus:
//
//	Prometheus ─▶ Envoy ─▶ metrics.sock ─┐
//	collector  ◀─ its outbox, or Envoy ◀─┴─ gatherer ─▶ Envoy's administration, applications
type scraped struct {
	*metrics.Gatherer
	dir     string
	sockets []net.Listener
}

// openMetrics opens the socket, by its short name and by the one that control planes
// know which do not know [bootstrap.FeatureInWorkDir].
func (r *runner) openMetrics(address string) (*scraped, error) {
	s := &scraped{dir: r.dir.path, Gatherer: metrics.New(metrics.Options{
		Envoy: r.admin.open, Address: address, Redirected: r.redirected(),
		Instance: r.subject.mesh + "." + r.subject.name, Log: r.log,
	})}
	for _, path := range []string{r.file(bootstrap.MetricsSocketName), bootstrap.MetricsSocket(r.dir.path, r.subject.name, r.subject.mesh)} {
		l, err := listenSocket(path)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("%w: socket for metrics: %w", ErrConfig, err)
		}
		s.sockets = append(s.sockets, l)
	}
	return s, nil
}

func (s *scraped) close() {
	for _, l := range s.sockets {
		l.Close()
	}
}

// serve answers until ctx ends.
func (s *scraped) serve(ctx context.Context) {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	for _, l := range s.sockets {
		go func() { _ = server.Serve(l) }() // always an error: that it is closed
	}
	<-ctx.Done()
	_ = server.Close()
	s.close()
}

// apply takes what is told at [bootstrap.MetricsPath].
func (s *scraped) apply(body []byte) error {
	if body == nil {
		s.Clear()
		return nil
	}
	var told bootstrap.MetricsDocument
	if err := json.Unmarshal(body, &told); err != nil {
		return err
	}
	var targets []metrics.Target
	for _, b := range told.Observability.Metrics.Backends {
		if to := b.OpenTelemetry; to != nil {
			socket := to.Endpoint
			if !filepath.IsAbs(socket) {
				socket = filepath.Join(s.dir, socket)
			}
			targets = append(targets, metrics.Target{Name: b.Name, Socket: socket, Interval: to.RefreshInterval.Duration})
		}
	}
	s.Set(told.Observability.Metrics, targets)
	return nil
}

// listenSocket listens in the work directory, also where a run that was killed did.
func listenSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

var errNoAdmin = errors.New("this Envoy has no administration interface")

// open is the answer to a GET, of any size, and as long as ctx allows.
func (a *admin) open(ctx context.Context, path string) (io.ReadCloser, error) {
	if a == nil {
		return nil, errNoAdmin
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: a.http.Transport}).Do(q)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, errors.New(answer.Status)
	}
	return answer.Body, nil
}
