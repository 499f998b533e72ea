// Package bootstrap makes the first configuration of an Envoy, and is the HTTP
// endpoint that gives it to proxies.
//
// It owns the question and the answer of POST /bootstrap ([Request], [Answer]),
// the Envoy bootstrap built from them ([Build]) and the HTTP handler ([Handler]),
// which a zone mounts beside the discovery service. The program that runs next
// to Envoy (zone/proxy) uses the same types as a client, and [Parse] to find
// faults in a definition before anything is sent. It never checks a
// token (discovery does), never writes rows, and never logs a token.
//
//	Request ─▶ Dataplane (sent along, or a row) ─▶ host and CA ─▶ Build ─▶ YAML ─▶ Answer
//
// # Why
//
// What a proxy says once, at its start, is all a control plane ever learns of
// the place the proxy runs in: ports, paths, features. It goes into the node
// metadata, so that every discovery stream repeats it and no control plane has
// to remember it. Build is a pure function of the request and the parameters;
// name resolution and certificates are the handler's.
package bootstrap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
)

// Request is the body of POST /bootstrap. The JSON names are those of the
// existing ecosystem.
type Request struct {
	// Mesh and Name make the proxy's id: <mesh>.<name>.
	Mesh string `json:"mesh"`
	Name string `json:"name"`
	// ProxyType is dataplane, ingress or egress; empty: dataplane.
	ProxyType string `json:"proxyType"`
	// DataplaneToken is the credential for discovery; DataplaneTokenPath is the
	// file on the proxy's host that holds it.
	DataplaneToken     string `json:"dataplaneToken,omitempty"`
	DataplaneTokenPath string `json:"dataplaneTokenPath,omitempty"`
	// DataplaneResource is a Dataplane (YAML or JSON) that registers itself, or a
	// ZoneIngress or ZoneEgress for a proxy of that type.
	DataplaneResource string  `json:"dataplaneResource,omitempty"`
	Version           Version `json:"version"`
	// CACert is what the proxy verifies the control plane with, PEM.
	CACert string `json:"caCert"`
	// DynamicMetadata is kept for show; keys version.dependencies.<name> become
	// versions.
	DynamicMetadata map[string]string `json:"dynamicMetadata"`
	// OTelEnv says which OpenTelemetry variables are set at the proxy.
	OTelEnv json.RawMessage `json:"otelEnv,omitempty"`
	DNSPort uint32          `json:"dnsPort,omitempty"`
	// ReadinessPort is where the program next to Envoy answers /ready.
	ReadinessPort uint32 `json:"readinessPort,omitempty"`
	// AppProbeProxyEnabled means what its Go name says; the name on the wire is
	// the opposite by an old mistake that cannot be taken back.
	AppProbeProxyEnabled bool     `json:"appProbeProxyDisabled,omitempty"`
	OperatingSystem      string   `json:"operatingSystem"`
	Features             []string `json:"features"`
	Resources            Limits   `json:"resources"`
	// Workdir is a directory on the proxy's host for sockets; absolute.
	Workdir          string       `json:"workdir"`
	SystemCAPath     string       `json:"systemCaPath"`
	MetricsResources MetricsFiles `json:"metricsResources"`
	// DataplaneConfig is the configuration of the transparent proxy; absent
	// where traffic is not redirected.
	DataplaneConfig json.RawMessage `json:"dataplaneConfig,omitempty"`
	// IPv6Enabled absent means true.
	IPv6Enabled    *bool       `json:"ipv6Enabled,omitempty"`
	SpireResources SpireSocket `json:"spireResources"`
}

// Version says which programs ask.
type Version struct {
	// Proxy is the program next to Envoy.
	Proxy ProgramVersion `json:"kumaDp"`
	Envoy EnvoyVersion   `json:"envoy"`
}

// ProgramVersion is a version with its origin.
type ProgramVersion struct {
	Version   string `json:"version"`
	GitTag    string `json:"gitTag"`
	GitCommit string `json:"gitCommit"`
	BuildDate string `json:"buildDate"`
}

// EnvoyVersion is what `envoy --version` prints: version "1.40.0" out of build
// "<commit>/1.40.0/Clean/RELEASE/BoringSSL".
type EnvoyVersion struct {
	Version    string `json:"version"`
	Build      string `json:"build"`
	Compatible bool   `json:"kumaDpCompatible"`
}

// Limits are the limits of the proxy's host.
type Limits struct {
	MaxHeapSizeBytes uint64 `json:"maxHeapSizeBytes"`
}

// MetricsFiles are the certificate with which metrics are served.
type MetricsFiles struct {
	CertPath string `json:"certPath"`
	KeyPath  string `json:"keyPath"`
}

// SpireSocket is the socket of a SPIRE agent.
type SpireSocket struct {
	SocketPath string `json:"socketPath"`
}

// Answer is what POST /bootstrap answers to clients that accept exactly
// application/json; others get the YAML alone.
type Answer struct {
	// Bootstrap is YAML; base64 on the wire, as JSON does with bytes.
	Bootstrap []byte  `json:"bootstrap"`
	Sidecar   Sidecar `json:"kumaSidecarConfiguration"`
}

// Sidecar is what the program next to Envoy has to know.
type Sidecar struct {
	Networking SidecarNetworking `json:"networking"`
	Metrics    SidecarMetrics    `json:"metrics"`
}

// SidecarNetworking holds the address of the Dataplane.
type SidecarNetworking struct {
	Address string `json:"address"`
}

// SidecarMetrics exists for the shape only: metrics travel with MeshMetric.
type SidecarMetrics struct {
	Aggregate []json.RawMessage `json:"aggregate"`
}

var (
	// ErrDefinition: the definition of a proxy is no YAML or JSON, or not of the
	// kind that its type has.
	ErrDefinition = errors.New("unusable")
	// ErrCACert: the CA is no PEM certificate, or not that of an authority.
	ErrCACert = errors.New("not a CA certificate")
)

// KindOf is the kind of what proxies of a type bring: the zone proxies of
// earlier releases are other kinds than Dataplane, and other types of proxy.
// Empty means dataplane; ok is false for what is no type of proxy.
func KindOf(proxyType string) (k api.AnyKind, ok bool) {
	switch proxyType {
	case "", "dataplane":
		return api.Dataplanes, true
	case "ingress":
		return api.ZoneIngresses, true
	case "egress":
		return api.ZoneEgresses, true
	}
	return nil, false
}

// Read reads the document of a proxy of the type as people write it, YAML or
// JSON. The spec is not judged yet; faults of the rest go to the report. The
// error is [ErrDefinition].
func Read(text, proxyType string, r *api.Report) (api.Document, api.AnyKind, error) {
	want, ok := KindOf(proxyType)
	if !ok {
		return api.Document{}, nil, fmt.Errorf("%w: type of proxy %q is not known; allowed: dataplane, ingress, egress", ErrDefinition, proxyType)
	}
	name := want.Info().Name
	body := []byte(text)
	if !json.Valid(body) { // JSON is YAML too, but many times slower to read as such
		var err error
		if body, err = yaml.YAMLToJSONStrict(body); err != nil {
			return api.Document{}, want, fmt.Errorf("%w: not a %s: %v", ErrDefinition, name, err)
		}
	}
	doc, kind := api.ParseDocument(body, r)
	if kind == want {
		return doc, want, nil
	}
	hint := ""
	for _, other := range []string{"dataplane", "ingress", "egress"} {
		if k, _ := KindOf(other); k == kind {
			hint = "; that is for proxies of type " + other
		}
	}
	return doc, want, errors.Join(fmt.Errorf("%w: not a %s: type is %q%s", ErrDefinition, name, doc.Type, hint), r.Err())
}

// Parse reads the definition of a proxy of the type: a row of the kind that
// [KindOf] says. Errors are [ErrDefinition], or *api.Invalid with every fault:
// unknown fields are faults.
func Parse(text, proxyType string) (api.Row, error) {
	var r api.Report
	doc, kind, err := Read(text, proxyType, &r)
	if err != nil {
		return nil, err
	}
	id := api.ID{Kind: doc.Type, Mesh: doc.Mesh, Name: doc.Name}
	row := kind.Decode(api.Meta{ID: id, Core: doc.Name, Labels: doc.Labels}, doc.Spec, true, &r)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return row, nil
}

// AdminSocketName is the name of Envoy's administration socket in the work
// directory.
const AdminSocketName = "kuma-envoy-admin.sock"

// AdminSocket is Envoy's administration socket under a work directory.
func AdminSocket(workdir string) string { return path.Join(workdir, AdminSocketName) }

// FeatureInWorkDir is announced by a program that starts Envoy in the work
// directory, where the pipe for access logs has the name [AccessLogPipe] as well:
// then paths that Envoy is given can be the same for all proxies.
const FeatureInWorkDir = "feature-envoy-in-workdir"

// AccessLogPipe is [AccessLogSocket] for an Envoy that runs in the work directory.
const AccessLogPipe = "access-logs"

// AccessLogSocket is the pipe from which a proxy takes access logs that it shall
// send over TCP.
func AccessLogSocket(workdir, name, mesh string) string {
	return socket(workdir, "kuma-al-"+name+"-"+mesh)
}

// CollectorSocket is where the program next to Envoy takes OTLP for the collector
// of the name. For an Envoy that runs in the work directory, "", it is no longer than
// [DynamicSocketName], so that where that has room this has.
func CollectorSocket(workdir, name string) string {
	const before = "kuma-otel-"
	if workdir == "" && len(before+name+".sock") > len(DynamicSocketName) {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:6])
	}
	return socket(workdir, before+name)
}

// socket is a path that is cut, since the kernel takes 107 bytes.
func socket(workdir, stem string) string {
	p := path.Join(workdir, stem)
	return p[:min(len(p), 98)] + ".sock"
}
