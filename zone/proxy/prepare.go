package proxy

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

const (
	bootstrapFile = "bootstrap.yaml"
	// maxSocketPath is below what the kernels take (Linux 107, BSD 103).
	maxSocketPath = 100
	// maxFile limits what is read from files: definition, token, CA.
	maxFile = 4 << 20
)

// subject is which Dataplane this proxy is. A zone proxy of earlier releases may
// say no mesh: the control plane finds it.
type subject struct {
	mesh, name string
	definition string // text to register with; empty: it exists
	redirected bool   // the definition says that the host redirects connections
}

// directory is where files and sockets are.
type directory struct {
	path      string
	temporary bool
	own       []string // files that were written here
}

// prepare reads and judges everything that can be wrong before the network is
// needed, all faults at once.
func (r *runner) prepare() error {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	note(checkURL(r.ControlPlane))
	if r.RetryBackoff <= 0 || r.RetryMaxDuration < 0 || r.DrainTime < 0 || r.StopTime < 0 {
		note(fmt.Errorf("%w: times must not be negative, and the pause between tries not zero", ErrConfig))
	}
	if r.DNSPort > 65535 {
		note(fmt.Errorf("%w: --dns-proxy-port %d is above 65535", ErrConfig, r.DNSPort))
	}
	if r.ReadinessPort > 65535 {
		note(fmt.Errorf("%w: --readiness-port %d is above 65535", ErrConfig, r.ReadinessPort))
	}
	r.binary, err = findEnvoy(r.Binary)
	note(err)
	r.subject, err = r.readSubject()
	note(err)
	r.caPEM, err = r.readCA()
	note(err)
	r.token, err = r.readToken()
	note(err)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := r.openDirectory(); err != nil {
		return err
	}
	if r.TokenFile == "" && r.token != "" {
		return r.writeFile(r.tokenFile(), r.token)
	}
	return nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%w: --cp-address %q is no URL such as https://host:5678", ErrConfig, text)
	}
	return nil
}

// readSubject takes the definition, or the name.
func (r *runner) readSubject() (subject, error) {
	kind, ok := bootstrap.KindOf(r.ProxyType)
	if !ok {
		return subject{}, fmt.Errorf("%w: --proxy-type is %q; allowed: dataplane, ingress, egress", ErrConfig, r.ProxyType)
	}
	text := r.Dataplane
	if r.DataplaneFile != "" {
		if text != "" {
			return subject{}, fmt.Errorf("%w: --dataplane and --dataplane-file exclude each other", ErrConfig)
		}
		body, err := readFile(r.DataplaneFile)
		if err != nil {
			return subject{}, fmt.Errorf("%w: definition of the Dataplane: %w", ErrConfig, err)
		}
		text = string(body)
	}
	if text == "" {
		return r.namedSubject(kind)
	}
	if r.Name != "" || r.Mesh != "" {
		return subject{}, fmt.Errorf("%w: --name and --mesh come from the definition of the Dataplane and cannot be given beside it", ErrConfig)
	}
	text, err := substitute(text, r.Variables)
	if err != nil {
		return subject{}, err
	}
	row, err := bootstrap.Parse(text, r.ProxyType)
	if err != nil {
		return subject{}, fmt.Errorf("%w: definition of the proxy: %w", ErrConfig, err)
	}
	s := subject{mesh: row.Head().Mesh, name: row.Head().Name, definition: text}
	if dp, ok := row.Body().(*api.Dataplane); ok && dp.Networking.TransparentProxying != nil {
		s.redirected = dp.Networking.TransparentProxying.RedirectPortOutbound != 0
	}
	return r.checkSubject(kind, s)
}

func (r *runner) namedSubject(kind api.AnyKind) (subject, error) {
	s := subject{mesh: r.Mesh, name: r.Name}
	if s.mesh == "" && kind.Info().Scope == api.MeshScope {
		s.mesh = "default"
	}
	if s.name == "" && r.PodName != "" {
		s.name = r.PodName + "." + r.PodNamespace
	}
	if s.name == "" {
		return s, fmt.Errorf("%w: which Dataplane? give --dataplane-file, or the --name of one that exists", ErrConfig)
	}
	return r.checkSubject(kind, s)
}

func (r *runner) checkSubject(kind api.AnyKind, s subject) (subject, error) {
	if reason := api.CheckName(s.name); reason != "" {
		return s, fmt.Errorf("%w: name of the Dataplane %q: %s", ErrConfig, s.name, reason)
	}
	if reason := api.CheckMeshName(s.mesh); reason != "" && (s.mesh != "" || kind.Info().Scope == api.MeshScope) {
		return s, fmt.Errorf("%w: mesh of the Dataplane %q: %s", ErrConfig, s.mesh, reason)
	}
	return s, nil
}

// substitute replaces {{ name }}. Names that have no value are all named.
func substitute(text string, variables map[string]string) (string, error) {
	var missing []string
	place := regexp.MustCompile(`\{\{\s*([A-Za-z0-9_.-]+)\s*\}\}`)
	out := place.ReplaceAllStringFunc(text, func(found string) string {
		name := place.FindStringSubmatch(found)[1]
		value, ok := variables[name]
		if !ok && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("%w: definition of the Dataplane: no --dataplane-var for %s", ErrConfig, strings.Join(missing, ", "))
	}
	return out, nil
}

func (r *runner) readCA() (string, error) {
	text := r.CACert
	if r.CACertFile != "" {
		body, err := readFile(r.CACertFile)
		if err != nil {
			return "", fmt.Errorf("%w: CA of the control plane: %w", ErrConfig, err)
		}
		text = string(body)
	}
	if text != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
		return "", fmt.Errorf("%w: CA of the control plane: no PEM certificate in it", ErrConfig)
	}
	return text, nil
}

// readToken reads the credential. An expired or foreign token is the control
// plane's to refuse; here a wrong file is noticed.
func (r *runner) readToken() (string, error) {
	token, from := r.Token, "--dataplane-token"
	if r.TokenFile != "" {
		body, err := readFile(r.TokenFile)
		if err != nil {
			return "", fmt.Errorf("%w: dataplane token: %w", ErrConfig, err)
		}
		token, from = string(body), r.TokenFile
		if strings.TrimSpace(token) == "" {
			return "", fmt.Errorf("%w: dataplane token: %s is empty", ErrConfig, from)
		}
	}
	token = strings.TrimSpace(token)
	if token != "" && !plausibleJWT(token) {
		return "", fmt.Errorf("%w: dataplane token: what is in %s is no JSON web token; make one with `atoll generate dataplane-token`", ErrConfig, from)
	}
	return token, nil
}

func plausibleJWT(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	for i, part := range parts {
		body, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || i < 2 && !json.Valid(body) {
			return false
		}
	}
	return true
}

// openDirectory makes the work directory: others may enter it, because the
// workload's metrics and Envoy may belong to other users, but not list it.
func (r *runner) openDirectory() error {
	socket := len("/" + bootstrap.DynamicSocketName) // the longest
	if r.WorkDir == "" {
		base := os.TempDir()
		if len(base)+len("/atoll-dp-0123456789")+socket > maxSocketPath {
			base = "/tmp"
		}
		dir, err := os.MkdirTemp(base, "atoll-dp-")
		if err != nil {
			return fmt.Errorf("%w: work directory: %w", ErrConfig, err)
		}
		r.dir = directory{path: dir, temporary: true}
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("%w: work directory: %w", ErrConfig, err)
		}
		return nil
	}
	dir, err := filepath.Abs(r.WorkDir)
	if err != nil {
		return fmt.Errorf("%w: work directory: %w", ErrConfig, err)
	}
	if len(dir)+socket > maxSocketPath {
		return fmt.Errorf("%w: --work-dir %s is %d bytes long; at most %d, since the kernel limits the path of a socket",
			ErrConfig, dir, len(dir), maxSocketPath-socket)
	}
	_, err = os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o711); err == nil {
			err = os.Chmod(dir, 0o711) // whatever the umask
		}
	}
	if err != nil {
		return fmt.Errorf("%w: work directory: %w", ErrConfig, err)
	}
	r.dir = directory{path: dir}
	return nil
}

// tokenFile has an ending, so that no Dataplane's name is that of another file.
func (r *runner) tokenFile() string { return r.subject.name + ".token" }

func (r *runner) file(name string) string { return filepath.Join(r.dir.path, name) }

// writeFile makes a file that only this user can read. What was there goes first:
// it might be open to others, or a link to elsewhere.
func (r *runner) writeFile(name, text string) error {
	path := r.file(name)
	err := os.Remove(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			r.dir.own = append(r.dir.own, path)
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("%w: work directory: %w", ErrConfig, err)
	}
	return nil
}

// cleanUp removes the temporary directory, or from a given one what was put
// there. A directory that is left over (this process was killed) harms nobody:
// the next start makes its own, or replaces the files.
func (r *runner) cleanUp() error {
	if r.dir.path == "" {
		return nil
	}
	if r.dir.temporary {
		return os.RemoveAll(r.dir.path)
	}
	var errs []error
	for _, path := range append(r.dir.own, bootstrap.AdminSocket(r.dir.path)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// request is what the control plane is told.
func (r *runner) request() bootstrap.Request {
	tokenPath := ""
	switch {
	case r.TokenFile != "":
		tokenPath = r.TokenFile
		if abs, err := filepath.Abs(tokenPath); err == nil {
			tokenPath = abs
		}
	case r.token != "":
		tokenPath = r.file(r.tokenFile())
	}
	var features []string
	announce := func(on bool, name string) {
		if on {
			features = append(features, name)
		}
	}
	announce(true, "feature-tcp-accesslog-via-named-pipe")
	announce(true, bootstrap.FeatureInWorkDir)
	announce(r.OTLPPipe, "feature-otel-via-kuma-dp")
	announce(r.BindOutbounds, "feature-bind-outbounds")
	announce(r.SpireSupported, "feature-spire")
	announce(r.StrictInboundPorts, "feature-strict-inbound-ports")
	announce(r.ReusePort, "feature-reuse-port")
	return bootstrap.Request{
		Mesh: r.subject.mesh, Name: r.subject.name, ProxyType: r.ProxyType,
		DataplaneToken: r.token, DataplaneTokenPath: tokenPath, DataplaneResource: r.subject.definition,
		Version: bootstrap.Version{Proxy: bootstrap.ProgramVersion{Version: r.Version}, Envoy: r.version},
		CACert:  r.caPEM, ReadinessPort: r.port, DNSPort: r.dnsPort, OperatingSystem: runtime.GOOS, Features: features,
		DynamicMetadata: r.dynamicMetadata(), OTelEnv: r.OTLP.inventory(r.OTLPPipe),
		Workdir: r.dir.path, SystemCAPath: r.systemCA(),
		MetricsResources: bootstrap.MetricsFiles{CertPath: r.MetricsCertPath, KeyPath: r.MetricsKeyPath},
		IPv6Enabled:      &r.IPv6, SpireResources: bootstrap.SpireSocket{SocketPath: r.SpireSocketPath},
	}
}

func (r *runner) dynamicMetadata() map[string]string {
	if host := r.OTLP[hostKey]; host != "" {
		return map[string]string{hostKey: host}
	}
	return map[string]string{}
}

// systemCA is the first bundle of authorities that exists, in the places where
// distributions put it (the order is that of Go's crypto/x509).
func (r *runner) systemCA() string {
	if r.SystemCAPath != "" {
		return r.SystemCAPath
	}
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// readFile reads a file of modest size; "-" is standard input.
func readFile(path string) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	body, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxFile>>20)
	}
	return body, nil
}
