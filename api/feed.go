package api

import (
	"time"

	"github.com/atoll-mesh/atoll/api/db"
)

// Feeds are tables of what is not written by anyone and still decides what a
// proxy gets: clocks, keys, connections, names. A feeder enters a row when it
// is due; plans only read, and so stay pure functions of the database.

// Settings is the one row of what a control plane's configuration says to plans.
type Settings struct {
	Site Site
	// InternalCIDRs are the callers trusted to set Envoy's internal headers.
	InternalCIDRs []string
}

// SettingsTable holds one row.
var SettingsTable = db.NewTable(Schema, "settings", func(*Settings) string { return "" })

// Connection is what a connected proxy said of itself when it connected.
type Connection struct {
	// Proxy is the ID of its Dataplane; Instance the control plane instance
	// that holds the stream, Stream its number there.
	Proxy    ID
	Instance string
	Stream   uint64
	Since    time.Time
	// AdminAddress and AdminPort or AdminSocket say where Envoy's own
	// administration listens; ReadinessPort where its keeper answers /ready.
	AdminAddress, AdminSocket string
	AdminPort, ReadinessPort  uint32
	// Features as announced in the node metadata, sorted.
	ReusePort, IPv6 bool
}

// Connections holds the proxies that are connected to any instance.
var Connections = db.NewTable(Schema, "connections", func(c *Connection) string { return c.Proxy.Key() })

// Leaf is the certificate issued to a proxy. Its key lives only here: in the
// memory of the instance that issued it.
type Leaf struct {
	Proxy ID
	// Identity is the MeshIdentity it was issued under.
	Identity ID
	// SPIFFE is the ID in it.
	SPIFFE string
	// Chain and Key are PEM.
	Chain, Key          string
	NotBefore, NotAfter time.Time
}

// Leaves holds one certificate per proxy that this instance serves.
var Leaves = db.NewTable(Schema, "leaves", func(l *Leaf) string { return l.Proxy.Key() })

// Resolution is the addresses of a host name that some row uses as an address.
type Resolution struct {
	Host string
	// Addresses are IP addresses, sorted; empty while the name does not resolve.
	Addresses []string
}

// Resolutions holds the resolved host names.
var Resolutions = db.NewTable(Schema, "resolutions", func(r *Resolution) string { return r.Host })

// Peer is what this control plane knows of another one: a zone at global,
// global at a zone.
type Peer struct {
	// Name is the zone's name, or [Global].
	Name      string
	Connected bool
	// LastData is when the peer last said anything on a data stream.
	LastData time.Time
	// Epoch and Counter are the newest revision of the peer that is applied here.
	Epoch   string
	Counter uint64
}

// Peers holds the control planes this one is or was connected to.
var Peers = db.NewTable(Schema, "peers", func(p *Peer) string { return p.Name })
