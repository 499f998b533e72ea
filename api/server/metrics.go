package server

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-mesh/atoll/api"
)

// Peer is another control plane, as the metrics show it.
type Peer struct {
	// Name is the zone's name at global, [api.Global] in a zone.
	Name      string
	Connected bool
	// Applied is the newest revision of the peer up to which everything is here;
	// Sent the own revision up to which the peer has answered everything.
	Applied, Sent uint64
	// Behind counts what the peer has not answered; Rejected what it, or this
	// control plane of what it sent, refused.
	Behind, Rejected int
}

var (
	ownRevision   = describe("atoll_revision", "Newest revision of this control plane's own store that the database holds.")
	rows          = describe("atoll_rows", "Rows in the database by kind and source: own, global, or the zone they came from.", "kind", "source")
	peerConnected = describe("atoll_peer_connected", "1 while the control plane of this name is in touch over KDS, else 0.", "peer")
	peerApplied   = describe("atoll_peer_applied_revision", "Newest revision of the peer up to which everything is here.", "peer")
	peerSent      = describe("atoll_peer_sent_revision", "Own revision up to which the peer has answered everything.", "peer")
	peerBehind    = describe("atoll_peer_behind", "Rows that the peer should have and has not answered.", "peer")
	peerRejected  = describe("atoll_peer_rejected", "Rows that the peer refused, or that were refused of what it sent.", "peer")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// collector reads the metrics when they are asked for: keeping them costs nothing.
type collector struct {
	s     *Server
	peers func() []Peer
}

// Collect adds the common metrics to /metrics; peers lists the other control
// planes, and may be nil.
func (s *Server) Collect(peers func() []Peer) error {
	return s.Metrics.Register(&collector{s, peers})
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ownRevision, rows, peerConnected, peerApplied, peerSent, peerBehind, peerRejected} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	snap := c.s.DB.Snapshot()
	if r, ok := api.Revisions.Get(snap, ""); ok {
		gauge(ownRevision, float64(r.Counter))
	}
	for _, k := range api.Kinds {
		n := map[string]int{}
		for row := range k.AllRows(snap) {
			n[cmp.Or(row.Head().Source, "own")]++
		}
		for source, count := range n {
			gauge(rows, float64(count), k.Info().Name, source)
		}
	}
	if c.peers == nil {
		return
	}
	for _, p := range c.peers() {
		connected := 0.0
		if p.Connected {
			connected = 1
		}
		gauge(peerConnected, connected, p.Name)
		gauge(peerApplied, float64(p.Applied), p.Name)
		gauge(peerSent, float64(p.Sent), p.Name)
		gauge(peerBehind, float64(p.Behind), p.Name)
		gauge(peerRejected, float64(p.Rejected), p.Name)
	}
}
