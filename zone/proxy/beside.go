package proxy

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// counters say what became of what Envoy gave this program to pass on, by what it
// is and where it was to go.
type counters struct{ delivered, lost *prometheus.CounterVec }

func newCounters(registry prometheus.Registerer) counters {
	by := []string{"what", "to"}
	c := counters{
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "atoll_dp_delivered_total", Help: "What Envoy gave to be passed on and was: lines of access logs, messages of OpenTelemetry."}, by),
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "atoll_dp_lost_total", Help: "What Envoy gave to be passed on and was not, because its receiver was away or refused it."}, by),
	}
	registry.MustRegister(c.delivered, c.lost)
	return c
}

// beside starts what serves Envoy while it runs. The returned function ends it: what
// Envoy has left behind is still passed on, as far as that goes fast.
func (r *runner) beside(names *names, answer bootstrap.Sidecar) (end func(), err error) {
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	scraped, err := r.openMetrics(answer.Networking.Address)
	if err != nil {
		stop()
		return nil, err
	}
	pipe, err := r.openLogPipe()
	if err != nil {
		stop()
		scraped.close()
		return nil, err
	}
	runs.Go(func() { pipe.run(ctx) })
	told := NewDynamic(r.dir.path, r.DynamicInterval, r.log)
	runs.Go(func() { scraped.serve(ctx) })
	runs.Go(func() { scraped.Run(ctx) })
	runs.Go(func() { told.Follow(ctx, bootstrap.MetricsPath, scraped.apply) })
	if names != nil {
		runs.Go(func() { told.Follow(ctx, bootstrap.DNSPath, names.apply) })
	}
	if r.OTLPPipe {
		collectors := &collectors{dir: r.dir.path, env: r.OTLP, log: r.log, counted: r.counters, open: map[string]*collectorServer{}}
		runs.Go(func() {
			told.Follow(ctx, bootstrap.CollectorPath, collectors.apply)
			collectors.close()
		})
	}
	return func() { stop(); runs.Wait() }, nil
}
