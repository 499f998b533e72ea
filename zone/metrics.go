package zone

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/stats"

	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/kds"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var (
	proxiesConnected = describe("atoll_proxies_connected", "Proxies that are connected to this instance.")
	proxiesBehind    = describe("atoll_proxies_behind", "Connected proxies that have not acknowledged everything that they should have.")
	proxiesRejected  = describe("atoll_proxies_rejected", "Connected proxies that refuse some resource.")
	engineRounds     = describe("atoll_engine_rounds_total", "Rounds of recomputation since the start.")
	engineQueries    = describe("atoll_engine_queries_run_total", "Queries run since the start, by query.", "query")
	engineNodes      = describe("atoll_engine_nodes", "Query results that are kept.")
	engineFailing    = describe("atoll_engine_failing", "Queries whose last run failed; their last good result is in use.")
	xdsMessages      = describe("atoll_xds_messages_sent_total", "Discovery messages sent to proxies, by type.", "type")
	xdsResources     = describe("atoll_xds_resources_sent_total", "Resources in the discovery messages sent to proxies, by type.", "type")
	xdsRemovals      = describe("atoll_xds_removals_sent_total", "Removed names in the discovery messages sent to proxies, by type.", "type")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// metrics are the numbers of a zone at /metrics. All but the traffic are read
// when they are asked for: keeping them costs nothing. The traffic is counted
// where the messages leave, as handler of the gRPC server.
type metrics struct {
	*zone
	mu   sync.Mutex
	sent map[wire.Type]traffic
}

type traffic struct{ messages, resources, removals uint64 }

func newMetrics(z *zone) *metrics { return &metrics{zone: z, sent: map[wire.Type]traffic{}} }

// HandleRPC implements [stats.Handler].
func (m *metrics) HandleRPC(_ context.Context, s stats.RPCStats) {
	out, ok := s.(*stats.OutPayload)
	if !ok {
		return
	}
	r, ok := out.Payload.(*wire.Response)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.sent[wire.Type(r.TypeURL)]
	t.messages++
	t.resources += uint64(len(r.Resources))
	t.removals += uint64(len(r.Removed))
	m.sent[wire.Type(r.TypeURL)] = t
}

// TagRPC implements [stats.Handler].
func (m *metrics) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements [stats.Handler].
func (m *metrics) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (m *metrics) HandleConn(context.Context, stats.ConnStats) {}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		proxiesConnected, proxiesBehind, proxiesRejected,
		engineRounds, engineQueries, engineNodes, engineFailing, xdsMessages, xdsResources, xdsRemovals,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c := m.xds.Convergence(0)
	gauge(proxiesConnected, c.Proxies)
	gauge(proxiesBehind, c.Behind)
	gauge(proxiesRejected, c.Rejected)
	engine := m.engine.Stats()
	count(engineRounds, engine.Rounds)
	for query, n := range engine.Ran {
		count(engineQueries, n, query)
	}
	gauge(engineNodes, engine.Nodes)
	gauge(engineFailing, engine.Failing)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range wire.Types() {
		s := m.sent[t]
		count(xdsMessages, s.messages, t.Short())
		count(xdsResources, s.resources, t.Short())
		count(xdsRemovals, s.removals, t.Short())
	}
}

// peers shows global to the metrics; nothing without one.
func peers(link *kds.Link) []server.Peer {
	if link == nil {
		return nil
	}
	s := link.Status()
	return []server.Peer{{
		Name: s.Peer, Connected: s.Connected, Applied: s.Applied, Sent: s.Sent,
		Behind: s.Behind, Rejected: len(s.Rejected) + len(s.Refused),
	}}
}
