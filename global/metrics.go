package global

import (
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/kds"
)

// peers lists the zones for the metrics.
func peers(link *kds.Server) []server.Peer {
	var out []server.Peer
	for _, s := range link.Status() {
		out = append(out, server.Peer{
			Name: s.Peer, Connected: s.Connected, Applied: s.Applied, Sent: s.Sent,
			Behind: s.Behind, Rejected: len(s.Rejected) + len(s.Refused),
		})
	}
	return out
}
