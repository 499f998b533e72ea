package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/rest"
)

// Config is the part of the configuration that global and zones share. JSON
// names are the keys of the file; the environment variable of a key is ATOLL_
// and its path in upper case: api.localhostIsAdmin is ATOLL_API_LOCALHOST_IS_ADMIN.
type Config struct {
	// DataDir holds the embedded store, the server certificate and the first
	// administrator's token.
	DataDir string `json:"dataDir"`
	// Instance names this process among those of the control plane; default: the
	// host name and a random suffix.
	Instance    string            `json:"instance"`
	Store       StoreConfig       `json:"store"`
	API         APIConfig         `json:"api"`
	Diagnostics DiagnosticsConfig `json:"diagnostics"`
	TLS         TLSConfig         `json:"tls"`
	Log         LogConfig         `json:"log"`
	Defaults    DefaultsConfig    `json:"defaults"`
	Tokens      TokensConfig      `json:"tokens"`
	Access      AccessConfig      `json:"access"`
}

// StoreConfig says where rows are kept.
type StoreConfig struct {
	// Type is bolt (a file in DataDir), postgres (shared by instances) or memory
	// (lost at the end).
	Type     string         `json:"type"`
	Postgres PostgresConfig `json:"postgres"`
}

func defaultStore() StoreConfig { return StoreConfig{Type: "bolt", Postgres: defaultPostgres()} }

// APIConfig is the REST server.
type APIConfig struct {
	Address string      `json:"address"` // host:port; port 0 picks one
	HTTPS   HTTPSConfig `json:"https"`
	// LocalhostIsAdmin makes callers from loopback administrators, unless a header
	// (Forwarded, Via, X-Forwarded-*, X-Real-Ip, …) says that a proxy sent the
	// request on for somebody else. A proxy on this machine that adds none makes
	// everybody administrator: leave it off beside one.
	LocalhostIsAdmin bool `json:"localhostIsAdmin"`
	ReadOnly         bool `json:"readOnly"`
	// CORSAllowedDomains are the web pages that may call the API: hosts,
	// origins, regular expressions of origins, or * for all.
	CORSAllowedDomains []string `json:"corsAllowedDomains"`
	// BasePath is put before every path.
	BasePath string `json:"basePath"`
	// RootURL is the address of the API as clients see it, where a proxy
	// changes it.
	RootURL string `json:"rootUrl"`
}

// HTTPSConfig is the same API over TLS.
type HTTPSConfig struct {
	// Address is host:port; empty: none; auto: port 5682 beside port 5681 of
	// the API, and none beside another one.
	Address string `json:"address"`
	// CertFile and KeyFile are PEM; those of this control plane when empty.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	// ClientCAFile holds the authorities of client certificates (PEM). They are
	// a condition of the connection, not of who the caller is.
	ClientCAFile      string `json:"clientCaFile"`
	RequireClientCert bool   `json:"requireClientCert"`
}

// DiagnosticsConfig is the server of health, metrics, log levels and profiles.
// Whoever reaches its port may use it.
type DiagnosticsConfig struct {
	Address string `json:"address"`
	// TLS serves it with the certificate of this control plane.
	TLS bool `json:"tls"`
	// Profiling serves /debug/pprof/.
	Profiling bool `json:"profiling"`
}

// TokensConfig is what holds for each sort of token.
type TokensConfig struct {
	User      TokenConfig `json:"user"`
	Dataplane TokenConfig `json:"dataplane"`
	Zone      TokenConfig `json:"zone"`
	// BootstrapAdminToken issues a token of the administrator at the first start.
	BootstrapAdminToken bool `json:"bootstrapAdminToken"`
}

// TokenConfig says who issues tokens, and which are believed.
type TokenConfig struct {
	// EnableIssuer issues tokens, with a key that is made at the first start (of
	// a mesh). Without it tokens are signed elsewhere, offline.
	EnableIssuer bool            `json:"enableIssuer"`
	Validator    ValidatorConfig `json:"validator"`
}

// ValidatorConfig says whose signature counts.
type ValidatorConfig struct {
	// UseSecrets believes the signing keys among the Secrets.
	UseSecrets bool              `json:"useSecrets"`
	PublicKeys []PublicKeyConfig `json:"publicKeys"`
}

// PublicKeyConfig is a key of tokens that are signed elsewhere.
type PublicKeyConfig struct {
	KID string `json:"kid"`
	// Mesh limits a key of dataplane tokens to one mesh.
	Mesh string `json:"mesh,omitempty"`
	// Key is an RSA public key in PEM; KeyFile a file of it.
	Key     string `json:"key,omitempty"`
	KeyFile string `json:"keyFile,omitempty"`
}

// AccessConfig says who may do what.
type AccessConfig struct {
	// Static lists users and groups by action. AccessRole resources, once there
	// are any, decide further.
	Static auth.Access `json:"static"`
}

// TLSConfig is the certificate of this control plane's servers; without one a
// self-signed certificate is made in DataDir.
type TLSConfig struct {
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
}

// LogConfig says what is logged, and how.
type LogConfig struct {
	Level  string `json:"level"`  // debug, info, warn, error
	Format string `json:"format"` // text or json
}

// DefaultsConfig says what a new control plane begins with.
type DefaultsConfig struct {
	SkipMeshCreation       bool `json:"skipMeshCreation"`
	SkipHostnameGenerators bool `json:"skipHostnameGenerators"`
}

// Default is the configuration that a first user gets.
func Default() Config {
	dir := "atoll-data"
	if home, err := os.UserHomeDir(); err == nil {
		dir = filepath.Join(home, ".atoll")
	}
	token := TokenConfig{EnableIssuer: true, Validator: ValidatorConfig{UseSecrets: true}}
	return Config{
		DataDir: dir, Store: defaultStore(),
		API: APIConfig{Address: ":5681", HTTPS: HTTPSConfig{Address: "auto"}}, Diagnostics: DiagnosticsConfig{Address: ":5680"},
		Log:    LogConfig{Level: "info", Format: "text"},
		Tokens: TokensConfig{User: token, Dataplane: token, Zone: token, BootstrapAdminToken: true},
		Access: AccessConfig{Static: auth.DefaultAccess()},
	}
}

// Validate notes every fault; paths are those of the file.
func (c *Config) Validate(r *api.Report) {
	if c.DataDir == "" {
		r.At("dataDir").Add("cannot be empty")
	}
	c.Store.Validate(r.At("store"))
	switch c.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		r.At("log.level").Add("is %q; allowed: debug, info, warn, error", c.Log.Level)
	}
	switch c.Log.Format {
	case "text", "json":
	default:
		r.At("log.format").Add("is %q; allowed: text, json", c.Log.Format)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		r.At("tls").Add("certFile and keyFile go together")
	}
	c.API.validate(r.At("api"))
	c.Tokens.validate(r.At("tokens"))
}

func (c *APIConfig) validate(r *api.Report) {
	if (c.HTTPS.CertFile == "") != (c.HTTPS.KeyFile == "") {
		r.At("https").Add("certFile and keyFile go together")
	}
	if c.HTTPS.RequireClientCert && c.HTTPS.ClientCAFile == "" {
		r.At("https.clientCaFile").Add("cannot be empty while requireClientCert is set: it says whose certificates count")
	}
	if _, err := rest.ParseOrigins(c.CORSAllowedDomains); err != nil {
		r.At("corsAllowedDomains").Add("%v", err)
	}
	if c.BasePath != "" && c.BasePath[0] != '/' {
		r.At("basePath").Add("is %q; it begins with /", c.BasePath)
	}
}

func (c *TokensConfig) validate(r *api.Report) {
	for _, one := range c.each() {
		for i, key := range one.Validator.PublicKeys {
			at := r.At(one.name).Index("validator.publicKeys", i)
			if key.KID == "" {
				at.At("kid").Add("cannot be empty")
			}
			if (key.Key == "") == (key.KeyFile == "") {
				at.Add("either key or keyFile must be set")
			}
			if key.Mesh != "" && one.token != auth.DataplaneToken {
				at.At("mesh").Add("is for dataplane tokens only")
			}
		}
	}
}

// validator is the judge of all tokens.
func (c *TokensConfig) validator() (*auth.Validator, error) {
	var o auth.Options
	for _, one := range c.each() {
		if !one.Validator.UseSecrets {
			o.NoSecrets = append(o.NoSecrets, one.token)
		}
		for i, k := range one.Validator.PublicKeys {
			body := []byte(k.Key)
			if k.KeyFile != "" {
				var err error
				if body, err = os.ReadFile(k.KeyFile); err != nil {
					return nil, fmt.Errorf("public key of %s tokens: %w", one.name, err)
				}
			}
			key, err := auth.ParsePublicKey(body)
			if err != nil {
				return nil, fmt.Errorf("configuration: tokens.%s.validator.publicKeys[%d]: %w", one.name, i, err)
			}
			o.PublicKeys = append(o.PublicKeys, auth.PublicKey{Token: one.token, Mesh: k.Mesh, KID: k.KID, Key: key})
		}
	}
	return auth.NewValidator(o), nil
}

// notIssued lists the tokens that are signed elsewhere.
func (c *TokensConfig) notIssued() []auth.Token {
	var out []auth.Token
	for _, one := range c.each() {
		if !one.EnableIssuer {
			out = append(out, one.token)
		}
	}
	return out
}

type namedToken struct {
	name  string
	token auth.Token
	TokenConfig
}

func (c *TokensConfig) each() []namedToken {
	return []namedToken{
		{"user", auth.UserToken, c.User}, {"dataplane", auth.DataplaneToken, c.Dataplane}, {"zone", auth.ZoneToken, c.Zone},
	}
}

// Load overlays the configuration in into: first the YAML file, if path is not
// empty, then the environment (a list of KEY=value). Unknown keys are errors.
func Load(path string, env []string, into any) error {
	var errs []error
	if path != "" {
		body, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		errs = append(errs, read(path, body, into))
	}
	known := map[string]Setting{}
	for _, setting := range Settings(into) {
		known[setting.Variable] = setting
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		setting, ok := known[strings.ToUpper(name)]
		if !ok {
			continue
		}
		if err := set(setting.value, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// read overlays a file. A file that does not fit is looked at once more, for all
// that is wrong with it: the decoder stops at the first fault.
func read(path string, body []byte, into any) error {
	err := yaml.UnmarshalStrict(body, into)
	if err == nil {
		return nil
	}
	var tree map[string]any
	var report api.Report
	if yaml.Unmarshal(body, &tree) == nil {
		misfits(tree, Settings(into), "", &report)
	}
	if all := report.Err(); all != nil {
		err = all
	}
	return fmt.Errorf("configuration %s: %w", path, err)
}

// misfits notes the keys of a section that are no settings, and values of
// another type than their setting. The section is "" or a path that ends in a dot.
func misfits(tree map[string]any, settings []Setting, section string, r *api.Report) {
	known := map[string][]Setting{} // by what follows the section
	for _, s := range settings {
		if below, ok := strings.CutPrefix(s.Path, section); ok {
			name, _, _ := strings.Cut(below, ".")
			known[name] = append(known[name], s)
		}
	}
	names := slices.Sorted(maps.Keys(known))
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		at, value := r.At(key), tree[key]
		i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, key) }) // as the decoder compares
		if i < 0 {
			at.Misnamed(key, names, "unknown field %q", key)
			continue
		}
		path := section + names[i]
		if one := known[names[i]][0]; one.Path == path {
			if err := one.fits(value); err != nil {
				at.Add("%v", err)
			}
		} else if part, ok := value.(map[string]any); ok {
			misfits(part, settings, path+".", at)
		} else if value != nil {
			at.Add("is a section, with keys below it")
		}
	}
}

// Duration is a time.Duration that reads and writes as Go does: "10s".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("a duration is a text such as \"10s\": %w", err)
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }
