package zone

import (
	"net/netip"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/zone/names"
)

// Config is the configuration of a zone control plane.
type Config struct {
	server.Config
	// Name is the zone's name, a DNS label.
	Name string `json:"name"`
	// Global says where global is; without an address the zone stands alone.
	Global   GlobalConfig   `json:"global"`
	DPServer DPServerConfig `json:"dpServer"`
	// MeshService says how services are derived from Dataplanes.
	MeshService MeshServiceConfig `json:"meshService"`
	// IPAM says which virtual IPs services get.
	IPAM IPAMConfig `json:"ipam"`
	// InternalCIDRs are the callers trusted to set Envoy's internal headers.
	InternalCIDRs []string `json:"internalCIDRs"`
}

// GlobalConfig is the link to global.
type GlobalConfig struct {
	// Address is grpcs://host:port, or grpc:// without TLS; host:port means grpcs.
	Address string `json:"address"`
	// TokenFile holds the zone token that global issued.
	TokenFile string `json:"tokenFile"`
	// CAFile verifies global; the system's authorities when empty.
	CAFile string `json:"caFile"`
	// SkipVerify does not verify global at all.
	SkipVerify bool `json:"skipVerify"`
	// Heartbeat is the interval of proofs of life; MaxBackoff the longest wait
	// between attempts to connect.
	Heartbeat  server.Duration `json:"heartbeat"`
	MaxBackoff server.Duration `json:"maxBackoff"`
}

// DPServerConfig is the server of the proxies.
type DPServerConfig struct {
	Address string `json:"address"`
	// Auth is token, or none to admit every proxy.
	Auth string `json:"auth"`
	// XDSHost is the host under which proxies reach this server, when it differs
	// from the one they fetched their bootstrap from.
	XDSHost string `json:"xdsHost"`
	// DeregistrationDelay is how long a proxy that registered itself stays after
	// its stream ended.
	DeregistrationDelay server.Duration `json:"deregistrationDelay"`
	// Drain is how long removed resources stay after nothing refers to them.
	Drain server.Duration `json:"drain"`
	// StatusFlush is the longest time that counters of a proxy stay unwritten.
	StatusFlush server.Duration `json:"statusFlush"`
}

// MeshServiceConfig says how services are derived from Dataplanes.
type MeshServiceConfig struct {
	// DeletionGracePeriod is how long a service stays after its last proxy.
	DeletionGracePeriod server.Duration `json:"deletionGracePeriod"`
}

// IPAMConfig says which virtual IPs services get, by their kind. Services keep
// what they have when a range changes.
type IPAMConfig struct {
	MeshService          RangeConfig `json:"meshService"`
	MeshExternalService  RangeConfig `json:"meshExternalService"`
	MeshMultiZoneService RangeConfig `json:"meshMultiZoneService"`
	// ReuseAfter is how long the address of a service that is gone is kept for it,
	// before another service may get it.
	ReuseAfter server.Duration `json:"reuseAfter"`
}

// RangeConfig is a range of virtual IPs.
type RangeConfig struct {
	// CIDR is the range, which nothing else in the network may use. Services whose
	// kind has no address left get none, which their status says.
	CIDR string `json:"cidr"`
}

// prefixes is the ranges of a valid configuration.
func (c *IPAMConfig) prefixes() map[string]netip.Prefix {
	return map[string]netip.Prefix{
		api.MeshServices.Name:          netip.MustParsePrefix(c.MeshService.CIDR),
		api.MeshExternalServices.Name:  netip.MustParsePrefix(c.MeshExternalService.CIDR),
		api.MeshMultiZoneServices.Name: netip.MustParsePrefix(c.MeshMultiZoneService.CIDR),
	}
}

// Default is the configuration that a first user gets.
func Default() Config {
	return Config{
		Config: server.Default(), Name: "default",
		Global: GlobalConfig{Heartbeat: server.Duration(5 * time.Second), MaxBackoff: server.Duration(10 * time.Second)},
		DPServer: DPServerConfig{
			Address: ":5678", Auth: "token", DeregistrationDelay: server.Duration(10 * time.Second),
			Drain: server.Duration(5 * time.Second), StatusFlush: server.Duration(10 * time.Second),
		},
		MeshService: MeshServiceConfig{DeletionGracePeriod: server.Duration(time.Hour)},
		IPAM: IPAMConfig{
			MeshService: RangeConfig{"241.0.0.0/8"}, MeshExternalService: RangeConfig{"242.0.0.0/8"}, MeshMultiZoneService: RangeConfig{"243.0.0.0/8"},
			ReuseAfter: server.Duration(time.Hour),
		},
		InternalCIDRs: []string{
			"10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "fc00::/7", "fd00::/8", "127.0.0.1/32", "::1/128",
		},
	}
}

// Validate notes every fault; paths are those of the file.
func (c *Config) Validate(r *api.Report) {
	c.Config.Validate(r)
	if reason := api.CheckDNSLabel(c.Name); reason != "" {
		r.At("name").Add("%s", reason)
	}
	switch c.DPServer.Auth {
	case "token", "none":
	default:
		r.At("dpServer.auth").Add("is %q; allowed: token, none", c.DPServer.Auth)
	}
	if scheme, _, ok := strings.Cut(c.Global.Address, "://"); ok && scheme != "grpc" && scheme != "grpcs" {
		r.At("global.address").Add("has the scheme %q; allowed: grpcs://host:port, grpc://host:port", scheme)
	}
	for _, one := range []struct{ path, cidr string }{
		{"ipam.meshService.cidr", c.IPAM.MeshService.CIDR},
		{"ipam.meshExternalService.cidr", c.IPAM.MeshExternalService.CIDR},
		{"ipam.meshMultiZoneService.cidr", c.IPAM.MeshMultiZoneService.CIDR},
	} {
		if p, err := netip.ParsePrefix(one.cidr); err != nil || names.Room(p) == 0 {
			r.At(one.path).Add("is %q; want an address and how many of its bits are fixed, with room for two addresses at least: 241.0.0.0/8", one.cidr)
		}
	}
	if c.IPAM.ReuseAfter < 0 {
		r.At("ipam.reuseAfter").Add("must not be negative")
	}
	if c.DPServer.StatusFlush <= 0 {
		r.At("dpServer.statusFlush").Add("must be greater than 0")
	}
}

// Site is the place that the configuration describes.
func (c *Config) Site() api.Site {
	return api.Site{Zone: c.Name, Federated: c.Global.Address != "", Env: "universal"}
}
