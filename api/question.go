package api

import "errors"

// Question is what can be asked of a running proxy: of its Envoy.
type Question struct {
	About About
	// EDS: with the endpoints; of a configuration.
	EDS bool
	// JSON instead of text; of statistics and clusters.
	JSON bool
	// Used: only what has ever counted; of statistics.
	Used bool
}

// About is the part of an Envoy that a question is about.
type About string

// The parts, under the names that existing tools show.
const (
	AboutConfig   About = "XDSConfig" // what it was sent, JSON
	AboutStats    About = "Stats"     // what it counts
	AboutClusters About = "Clusters"  // whom it reaches, and how well
)

// ErrNotConnected: the proxy, or the zone it lives in, is not connected to this
// control plane, so nobody can be asked.
var ErrNotConnected = errors.New("not connected")
