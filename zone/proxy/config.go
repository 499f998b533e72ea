package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config says which proxy to run and how. Start from [Default], overlay the
// environment with [Config.Environment], then flags with [Config.Bind].
type Config struct {
	// ControlPlane is the URL of the zone's dp-server: https://host:port.
	ControlPlane string
	// CACertFile or CACert (PEM) verify the control plane; with neither the
	// authorities of the system do.
	CACertFile string
	CACert     string
	// SkipVerify takes any certificate for the bootstrap.
	SkipVerify bool
	// RetryBackoff and RetryMaxDuration are the pause between tries of the
	// bootstrap, and how long it is tried.
	RetryBackoff     time.Duration
	RetryMaxDuration time.Duration

	// Name and Mesh name a Dataplane that exists at the control plane; empty if
	// a definition is given. Mesh empty means "default", or for types other than
	// dataplane the one that the control plane finds.
	Name, Mesh string
	// ProxyType is dataplane, or ingress or egress for a ZoneIngress or ZoneEgress.
	ProxyType string
	// Dataplane (text) or DataplaneFile ("-": standard input) define a Dataplane,
	// YAML or JSON, that registers itself; {{ name }} in it is replaced from
	// Variables. With another ProxyType it is a ZoneIngress or ZoneEgress.
	Dataplane     string
	DataplaneFile string
	Variables     map[string]string
	// TokenFile or Token is the credential; a Token is written to a file in the
	// work directory.
	TokenFile string
	Token     string

	// Binary is Envoy: a path, or a name looked up on PATH.
	Binary string
	// Concurrency is the number of Envoy's workers; 0: one per CPU it may use.
	Concurrency int
	// WorkDir holds the bootstrap and the sockets; empty: a temporary directory
	// that is removed at the end.
	WorkDir string
	// EnvoyLogLevel is one of trace, debug, info, warning, error, critical, off;
	// EnvoyComponentLogLevel is "component:level,…".
	EnvoyLogLevel          string
	EnvoyComponentLogLevel string
	// DrainTime is how long connections may end by themselves after a signal.
	DrainTime time.Duration
	// StopTime is how long Envoy has between being told to stop and being killed.
	StopTime time.Duration

	// ReadinessPort serves GET /ready; 0 picks a port, see Listening. With
	// ReadinessAddress empty it is loopback, and all addresses in a Pod.
	ReadinessPort    uint32
	ReadinessAddress string

	// DynamicInterval is the pause between two looks at what the control plane
	// tells this program while it runs.
	DynamicInterval time.Duration

	// DNS answers lookups that the host redirects, if the definition or a Pod says
	// that it does; at DNSPort of loopback, 0 picks a port. Names of no service are
	// looked up at Nameserver, host:port; empty: the first of /etc/resolv.conf.
	DNS        bool
	DNSPort    uint32
	Nameserver string
	// OTLPPipe: Envoy sends OpenTelemetry by way of this program, which knows OTLP.
	OTLPPipe bool
	OTLP     Environment

	// MetricsCertPath and MetricsKeyPath serve metrics with TLS.
	MetricsCertPath string
	MetricsKeyPath  string
	SystemCAPath    string
	// BindOutbounds binds outbounds to their own addresses instead of relying on
	// redirection.
	BindOutbounds bool
	// StrictInboundPorts, ReusePort and IPv6 are announced to the control plane.
	StrictInboundPorts bool
	ReusePort          bool
	IPv6               bool
	SpireSupported     bool
	SpireSocketPath    string

	// PodName and PodNamespace name the proxy <pod>.<namespace> where no name is
	// given.
	PodName, PodNamespace string

	// Version is the version of this program.
	Version string
	// Stdout and Stderr take the output of Envoy: the access log and its log.
	// Nil: those of this process.
	Stdout, Stderr io.Writer
	// Log is where this package logs; nil: slog.Default().
	Log *slog.Logger
	// Signals are what this process was sent, see [Run]; nil: none arrive.
	Signals <-chan os.Signal
	// Listening, if set, is told the address of the readiness endpoint.
	Listening func(net.Addr)
}

// Default is the configuration that a first user gets.
func Default() Config {
	return Config{
		ControlPlane: "https://localhost:5678", RetryBackoff: 3 * time.Second, RetryMaxDuration: 5 * time.Minute,
		ProxyType: "dataplane", Binary: "envoy", EnvoyLogLevel: "info",
		DrainTime: 30 * time.Second, StopTime: 10 * time.Second, ReadinessPort: 9902, DynamicInterval: time.Second, OTLPPipe: true, DNS: true, DNSPort: 15053,
		StrictInboundPorts: true, ReusePort: true, IPv6: true,
	}
}

// environment is the annotation of a flag that names its variables.
const environment = "environment"

// Bind adds the flags of the configuration to fs. Values that fs is not given
// stay. What can be set by the environment can be set by a flag.
func (c *Config) Bind(fs *pflag.FlagSet) {
	env := func(flag string, suffixes ...string) {
		if err := fs.SetAnnotation(flag, environment, suffixes); err != nil {
			panic(err) // the flag was added on the line before
		}
	}
	text := func(p *string, flag, short, suffix, usage string) {
		fs.StringVarP(p, flag, short, *p, usage)
		env(flag, suffix)
	}
	truth := func(p *bool, flag, suffix, usage string) {
		fs.BoolVar(p, flag, *p, usage)
		env(flag, suffix)
	}
	span := func(p *time.Duration, flag, suffix, usage string) {
		fs.DurationVar(p, flag, *p, usage)
		env(flag, suffix)
	}
	text(&c.ControlPlane, "cp-address", "", "CONTROL_PLANE_URL", "URL of the zone control plane's dp-server")
	text(&c.CACertFile, "ca-cert-file", "", "CONTROL_PLANE_CA_CERT_FILE", "file with the authority (PEM) that verifies the control plane")
	text(&c.CACert, "ca-cert", "", "CONTROL_PLANE_CA_CERT", "the authority itself (PEM)")
	truth(&c.SkipVerify, "skip-verify", "CONTROL_PLANE_TLS_SKIP_VERIFY", "ask for the bootstrap without verifying the control plane")
	span(&c.RetryBackoff, "retry-backoff", "CONTROL_PLANE_RETRY_BACKOFF", "pause between tries of the bootstrap")
	span(&c.RetryMaxDuration, "retry-max-duration", "CONTROL_PLANE_RETRY_MAX_DURATION", "how long the bootstrap is tried")
	text(&c.Name, "name", "", "DATAPLANE_NAME", "name of a Dataplane that exists")
	text(&c.Mesh, "mesh", "", "DATAPLANE_MESH", "mesh of the Dataplane (default \"default\")")
	text(&c.ProxyType, "proxy-type", "", "DATAPLANE_PROXY_TYPE", "type of proxy: dataplane, or ingress or egress for a ZoneIngress or ZoneEgress")
	span(&c.DrainTime, "drain-time", "DATAPLANE_DRAIN_TIME", "how long connections may end by themselves after SIGTERM")
	text(&c.TokenFile, "dataplane-token-file", "", "DATAPLANE_RUNTIME_TOKEN_PATH", "file with the dataplane token")
	text(&c.Token, "dataplane-token", "", "DATAPLANE_RUNTIME_TOKEN", "dataplane token; a file is safer, arguments can be seen by others")
	text(&c.Dataplane, "dataplane", "", "DATAPLANE_RUNTIME_RESOURCE", "definition of the Dataplane (YAML or JSON)")
	text(&c.DataplaneFile, "dataplane-file", "d", "DATAPLANE_RUNTIME_RESOURCE_PATH", "file with the definition of the Dataplane; - is standard input")
	fs.StringToStringVarP(&c.Variables, "dataplane-var", "v", c.Variables, "name=value for {{ name }} in the definition")
	text(&c.Binary, "binary-path", "", "DATAPLANE_RUNTIME_BINARY_PATH", "Envoy: a path, or a name on PATH")
	fs.IntVar(&c.Concurrency, "concurrency", c.Concurrency, "Envoy's workers; 0: one per CPU")
	env("concurrency", "DATAPLANE_RUNTIME_CONCURRENCY")
	text(&c.WorkDir, "work-dir", "", "DATAPLANE_RUNTIME_WORK_DIR", "directory for the bootstrap and sockets (default a temporary one)")
	text(&c.EnvoyLogLevel, "envoy-log-level", "", "DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL", "trace, debug, info, warning, error, critical, off")
	text(&c.EnvoyComponentLogLevel, "envoy-component-log-level", "", "DATAPLANE_RUNTIME_ENVOY_COMPONENT_LOG_LEVEL", "component:level,…")
	fs.Uint32Var(&c.ReadinessPort, "readiness-port", c.ReadinessPort, "port of GET /ready; 0 picks one")
	env("readiness-port", "READINESS_PORT")
	span(&c.DynamicInterval, "dynamic-interval", "DATAPLANE_RUNTIME_DYNAMIC_CONFIGURATION_REFRESH_INTERVAL", "pause between two looks at what the control plane tells this program")
	truth(&c.DNS, "dns-enabled", "DNS_ENABLED", "answer lookups that the host redirects")
	fs.Uint32Var(&c.DNSPort, "dns-proxy-port", c.DNSPort, "port for them; 0 picks one")
	env("dns-proxy-port", "DNS_PROXY_PORT")
	truth(&c.OTLPPipe, "otel-pipe", "DATAPLANE_RUNTIME_OTEL_PIPE_ENABLED", "Envoy sends OpenTelemetry by way of this program")
	text(&c.MetricsCertPath, "metrics-cert-path", "", "DATAPLANE_RUNTIME_METRICS_CERT_PATH", "certificate with which metrics are served")
	text(&c.MetricsKeyPath, "metrics-key-path", "", "DATAPLANE_RUNTIME_METRICS_KEY_PATH", "key of that certificate")
	text(&c.SystemCAPath, "system-ca-path", "", "DATAPLANE_RUNTIME_DYNAMIC_SYSTEM_CA_PATH", "authorities of the system (default: found)")
	truth(&c.BindOutbounds, "bind-outbounds", "DATAPLANE_RUNTIME_BIND_OUTBOUNDS", "bind outbounds to loopback addresses of their own")
	truth(&c.StrictInboundPorts, "strict-inbound-ports", "DATAPLANE_RUNTIME_STRICT_INBOUND_PORTS_ENABLED", "pass inbound traffic to declared ports only")
	truth(&c.ReusePort, "reuse-port", "DATAPLANE_RUNTIME_REUSE_PORT_ENABLED", "a socket per worker and listener")
	truth(&c.IPv6, "ipv6", "DATAPLANE_RUNTIME_IPV6_ENABLED", "listen on IPv6 where the host has it")
	truth(&c.SpireSupported, "spire", "DATAPLANE_RUNTIME_SPIRE_SUPPORTED", "identities may come from a SPIRE agent")
	text(&c.SpireSocketPath, "spire-socket-path", "", "DATAPLANE_RUNTIME_SPIRE_SOCKET_PATH", "socket of the SPIRE agent")
}

// prefixes of the variables, the strongest first: our own, then those that
// existing deployments set.
func prefixes() [2]string { return [2]string{"ATOLL_", "KUMA_"} }

// Environment overlays the variables (a list of KEY=value): ATOLL_ and KUMA_
// before the names of the ecosystem, POD_NAME, POD_NAMESPACE, HOST_IP and those of
// OpenTelemetry's exporters. Empty values count as unset. The error names every variable that cannot be read.
func (c *Config) Environment(env []string) error {
	values := map[string]string{}
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); value != "" {
			values[name] = value
		}
	}
	fs := pflag.NewFlagSet("environment", pflag.ContinueOnError)
	c.Bind(fs)
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		for _, suffix := range f.Annotations[environment] {
			for _, prefix := range prefixes() {
				value, ok := values[prefix+suffix]
				if !ok {
					continue
				}
				if err := f.Value.Set(value); err != nil {
					errs = append(errs, fmt.Errorf("environment variable %s: %w", prefix+suffix, err))
				}
				return
			}
		}
	})
	c.PodName, c.PodNamespace = values["POD_NAME"], values["POD_NAMESPACE"]
	c.OTLP = environmentOf(values)
	return errors.Join(errs...)
}
