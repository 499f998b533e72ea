package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
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
	// Access says who may do what, as `access.static` of the ecosystem.
	Access auth.Access `json:"access"`
}

// StoreConfig says where rows are kept.
type StoreConfig struct {
	// Type is bolt (a file in DataDir) or memory (lost at the end).
	Type string `json:"type"`
}

// APIConfig is the REST server.
type APIConfig struct {
	Address string `json:"address"` // host:port; port 0 picks one
	// LocalhostIsAdmin makes callers from loopback administrators.
	LocalhostIsAdmin bool `json:"localhostIsAdmin"`
	ReadOnly         bool `json:"readOnly"`
}

// DiagnosticsConfig is the server of health, metrics and profiles.
type DiagnosticsConfig struct {
	Address string `json:"address"`
	// Profiling serves /debug/pprof/.
	Profiling bool `json:"profiling"`
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
	return Config{
		DataDir: dir, Store: StoreConfig{Type: "bolt"},
		API: APIConfig{Address: ":5681"}, Diagnostics: DiagnosticsConfig{Address: ":5680"},
		Log: LogConfig{Level: "info", Format: "text"}, Access: auth.DefaultAccess(),
	}
}

// Validate notes every fault; paths are those of the file.
func (c *Config) Validate(r *api.Report) {
	if c.DataDir == "" {
		r.At("dataDir").Add("cannot be empty")
	}
	switch c.Store.Type {
	case "memory", "bolt":
	default:
		r.At("store.type").Add("is %q; allowed: bolt, memory", c.Store.Type)
	}
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
}

// Load overlays the configuration in into: first the YAML file, if path is not
// empty, then the environment (a list of KEY=value). Unknown keys are errors.
func Load(path string, env []string, into any) error {
	if path != "" {
		body, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		if err := yaml.UnmarshalStrict(body, into); err != nil {
			return fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	known := map[string]reflect.Value{}
	fields(reflect.ValueOf(into).Elem(), "ATOLL", known)
	var errs []error
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		f, ok := known[strings.ToUpper(name)]
		if !ok {
			continue
		}
		if err := set(f, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Variables lists the environment variables of a configuration.
func Variables(config any) []string {
	known := map[string]reflect.Value{}
	fields(reflect.ValueOf(config).Elem(), "ATOLL", known)
	out := make([]string, 0, len(known))
	for name := range known {
		out = append(out, name)
	}
	return out
}

func fields(v reflect.Value, prefix string, into map[string]reflect.Value) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		f := v.Field(i)
		switch {
		case sf.Anonymous:
			fields(f, prefix, into)
		case f.Kind() == reflect.Struct:
			fields(f, prefix+"_"+upperSnake(name), into)
		default:
			into[prefix+"_"+upperSnake(name)] = f
		}
	}
}

// upperSnake turns localhostIsAdmin into LOCALHOST_IS_ADMIN.
func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

func set(f reflect.Value, value string) error {
	switch f.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(value)
		f.SetInt(int64(d))
		return err
	case Duration:
		d, err := time.ParseDuration(value)
		f.SetInt(int64(d))
		return err
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(value)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		f.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is no integer", value)
		}
		f.SetInt(n)
	case reflect.Slice:
		var list []string
		if value != "" {
			list = strings.Split(value, ",")
		}
		f.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("can be set in the file only")
	}
	return nil
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
