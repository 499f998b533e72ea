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
	// ReusePort: its listeners have a socket per worker.
	ReusePort bool
	// WorkDir is where the program next to Envoy has its sockets; InWorkDir: Envoy
	// runs there, so that paths may be relative.
	WorkDir   string
	InWorkDir bool
	// LogPipe: that program reads lines from a pipe and sends them over TCP.
	LogPipe bool
	// OTLP: that program takes OpenTelemetry from Envoy and passes it on.
	OTLP bool
	// HostIP is the address of the node, SystemCA the file of the authorities that
	// are trusted there; empty: unknown.
	HostIP, SystemCA string
	// MetricsCert and MetricsKey are the files with which it serves metrics.
	MetricsCert, MetricsKey string
	// Redirection is what it says of its host; nil: its Dataplane says it.
	Redirection *Redirection
	// BindOutbounds: its listeners have sockets at the virtual addresses of services.
	BindOutbounds bool
	// StrictInbounds: it means to let nobody in but at its inbounds.
	StrictInbounds bool
	// NoIPv6: its host has no such addresses.
	NoIPv6 bool
	// DNSPort is where the program next to Envoy answers; 0: it does not.
	DNSPort uint32
}

// Redirection is which connections of a host go to the proxy on it.
type Redirection struct {
	// Inbound and Outbound are ports of the proxy; 0: these connections are left
	// alone.
	Inbound, Outbound uint32
	// IPv4Only: those over IPv6 are left alone.
	IPv4Only bool
	// DNS: names are looked up at the program next to Envoy.
	DNS bool
}

// Connections holds the proxies that are connected to any instance.
var Connections = db.NewTable(Schema, "connections", func(c *Connection) string { return c.Proxy.Key() })

// Joining is a proxy that has just registered and does not listen yet: nobody
// is sent to it until it has taken its listeners.
type Joining struct {
	Proxy ID
	// Stream is the number of its stream at the instance that admitted it.
	Stream uint64
}

// Joinings holds the proxies that are joining.
var Joinings = db.NewTable(Schema, "joinings", func(j *Joining) string { return j.Proxy.Key() })

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

// AdminLeaf is a certificate for the administration of Envoy: of a proxy that
// offers it, or, without a proxy, of this control plane that asks for it. Like
// that of a [Leaf] its key lives only here.
type AdminLeaf struct {
	Proxy ID
	// Name is what it certifies: the proxy's address, or [AdminClient].
	Name string
	// Chain and Key are PEM, CA the authority that both ends believe.
	Chain, Key, CA string
}

// AdminClient is the name by which proxies know their control plane.
const AdminClient = "kuma-cp"

// AdminLeaves holds one certificate per proxy that this instance serves, and its own.
var AdminLeaves = db.NewTable(Schema, "admin-leaves", func(l *AdminLeaf) string { return l.Proxy.Key() })

// Resolution is the addresses of a host name that some row uses as an address.
type Resolution struct {
	Host string
	// Addresses are IP addresses, sorted; empty while the name does not resolve.
	Addresses []string
}

// Resolutions holds the resolved host names.
var Resolutions = db.NewTable(Schema, "resolutions", func(r *Resolution) string { return r.Host })

// Revision is how far the database is in the history of one source.
type Revision struct {
	// Source is empty for the control plane's own store, else [Global] or the
	// name of a zone.
	Source string
	Mark
}

// Revisions holds one row per source, written in the same transaction as the
// rows that it speaks of or after them: "converged at r" is r of one source.
var Revisions = db.NewTable(Schema, "revisions", func(r *Revision) string { return r.Source })

// ServiceState is what a zone found out about one of its MeshServices; it is
// joined on read and when the service is sent to others.
type ServiceState struct {
	Service ID
	// Available: at least one proxy is healthy.
	Available bool
	// Identities are the SPIFFE IDs of its proxies, sorted.
	Identities []string
	// Connected and Healthy of Total proxies.
	Connected, Healthy, Total int
}

// ServiceStates holds the states of the local services.
var ServiceStates = db.NewTable(Schema, "service-states", func(s *ServiceState) string { return s.Service.Key() })
