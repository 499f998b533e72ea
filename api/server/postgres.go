package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/bolt"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/api/store/postgres"
)

// PostgresConfig says where the database is that all instances share; see
// [postgres.Options].
type PostgresConfig struct {
	// Host is a name, an address, or the directory of a unix socket. Of several,
	// separated by commas, the first that takes writes is used.
	Host string `json:"host"`
	Port int    `json:"port"`
	User string `json:"user"`
	// Password, or the file that holds it and may change.
	Password     Secret `json:"password"`
	PasswordFile string `json:"passwordFile"`
	DBName       string `json:"dbName"`
	// ConnectionTimeout bounds the making of a connection, TransactionTimeout a
	// write, with its wait for other writers.
	ConnectionTimeout  Duration `json:"connectionTimeout"`
	TransactionTimeout Duration `json:"transactionTimeout"`

	MinOpenConnections          int      `json:"minOpenConnections"`
	MaxOpenConnections          int      `json:"maxOpenConnections"` // 0: unlimited
	MaxConnectionIdleTime       Duration `json:"maxConnectionIdleTime"`
	MaxConnectionLifetime       Duration `json:"maxConnectionLifetime"`
	MaxConnectionLifetimeJitter Duration `json:"maxConnectionLifetimeJitter"`
	HealthCheckInterval         Duration `json:"healthCheckInterval"`

	// PollInterval is how often changes are looked for though none was announced.
	PollInterval Duration `json:"pollInterval"`
	// KeepChanges is how many commits the change log keeps at least.
	KeepChanges int `json:"keepChanges"`

	TLS PostgresTLSConfig `json:"tls"`
}

// PostgresTLSConfig is the TLS of connections to the database. Files are read
// for each connection.
type PostgresTLSConfig struct {
	// Mode is disable, verifyNone, verifyCa or verifyFull.
	Mode string `json:"mode"`
	// CertPath and KeyPath are the client certificate, CAPath the authorities of
	// the server; empty: those of the system.
	CertPath string `json:"certPath"`
	KeyPath  string `json:"keyPath"`
	CAPath   string `json:"caPath"`
	// DisableSSLSNI does not send the server's name in the clear.
	DisableSSLSNI bool `json:"disableSSLSNI"`
}

// Secret is a text that is not shown.
type Secret string

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s == "" {
		return json.Marshal("")
	}
	return json.Marshal("*****")
}

// String implements fmt.Stringer.
func (s Secret) String() string { return strings.Repeat("*", min(len(s), 5)) }

func defaultPostgres() PostgresConfig {
	return PostgresConfig{
		Host: "127.0.0.1", Port: 5432, User: "atoll", DBName: "atoll",
		ConnectionTimeout: Duration(5 * time.Second), TransactionTimeout: Duration(15 * time.Second),
		MaxOpenConnections: 50, MaxConnectionIdleTime: Duration(30 * time.Minute), MaxConnectionLifetime: Duration(time.Hour),
		MaxConnectionLifetimeJitter: Duration(time.Minute), HealthCheckInterval: Duration(30 * time.Second),
		PollInterval: Duration(5 * time.Second), KeepChanges: 10_000,
		TLS: PostgresTLSConfig{Mode: postgres.Disable},
	}
}

// Validate notes every fault in the report of the key store.
func (c *StoreConfig) Validate(r *api.Report) {
	switch c.Type {
	case "memory", "bolt":
	case "postgres":
		c.Postgres.validate(r.At("postgres"))
	default:
		r.At("type").Add("is %q; allowed: bolt, memory, postgres", c.Type)
	}
}

func (c *PostgresConfig) validate(r *api.Report) {
	for _, text := range []struct{ key, value, what string }{
		{"host", c.Host, "name the server, or the directory of its unix socket"},
		{"user", c.User, "name the database user"},
		{"dbName", c.DBName, "name the database"},
	} {
		if text.value == "" {
			r.At(text.key).Add("cannot be empty: %s", text.what)
		}
	}
	for _, host := range strings.Split(c.Host, ",") {
		if c.Host != "" && (host == "" || strings.TrimSpace(host) != host || strings.Contains(host, "://")) {
			r.At("host").Add("is %q; give names, addresses or directories, separated by commas alone", c.Host)
			break
		}
	}
	for _, n := range []struct {
		key             string
		value, from, to int
	}{
		{"port", c.Port, 1, math.MaxUint16},
		{"minOpenConnections", c.MinOpenConnections, 0, math.MaxInt32},
		{"maxOpenConnections", c.MaxOpenConnections, 0, math.MaxInt32},
		{"keepChanges", c.KeepChanges, 1, math.MaxInt32},
	} {
		if n.value < n.from || n.value > n.to {
			r.At(n.key).Add("is %d; allowed: %d to %d", n.value, n.from, n.to)
		}
	}
	if c.MaxOpenConnections > 0 && c.MinOpenConnections > c.MaxOpenConnections {
		r.At("minOpenConnections").Add("is %d, more than maxOpenConnections, %d: lower it", c.MinOpenConnections, c.MaxOpenConnections)
	}
	for _, d := range []struct {
		key   string
		value Duration
		zero  bool
	}{
		{"connectionTimeout", c.ConnectionTimeout, false},
		{"transactionTimeout", c.TransactionTimeout, false},
		{"maxConnectionIdleTime", c.MaxConnectionIdleTime, false},
		{"maxConnectionLifetime", c.MaxConnectionLifetime, false},
		{"maxConnectionLifetimeJitter", c.MaxConnectionLifetimeJitter, true},
		{"healthCheckInterval", c.HealthCheckInterval, false},
		{"pollInterval", c.PollInterval, false},
	} {
		if d.value < 0 || d.value == 0 && !d.zero {
			r.At(d.key).Add("is %s; give a time such as 5s", time.Duration(d.value))
		}
	}
	if c.Password != "" && c.PasswordFile != "" {
		r.At("password").Add("cannot be given together with passwordFile: remove one of them")
	}
	readable(r.At("passwordFile"), c.PasswordFile)
	c.TLS.validate(r.At("tls"))
}

func (c *PostgresTLSConfig) validate(r *api.Report) {
	if !slices.Contains(postgres.Modes(), c.Mode) {
		r.At("mode").Add("is %q; allowed: %s", c.Mode, strings.Join(postgres.Modes(), ", "))
		return
	}
	if (c.CertPath == "") != (c.KeyPath == "") {
		r.Add("certPath and keyPath go together")
	}
	files := []struct{ key, path string }{{"certPath", c.CertPath}, {"keyPath", c.KeyPath}, {"caPath", c.CAPath}}
	for _, f := range files {
		if f.path != "" && c.Mode == postgres.Disable {
			r.At(f.key).Add("does nothing while tls.mode is disable: choose another mode, or remove it")
			continue
		}
		readable(r.At(f.key), f.path)
	}
	if c.CAPath != "" && c.Mode == postgres.VerifyNone {
		r.At("caPath").Add("does nothing with verifyNone: choose verifyCa or verifyFull, or remove it")
	}
	if c.DisableSSLSNI && c.Mode == postgres.VerifyFull {
		r.At("disableSSLSNI").Add("does nothing with verifyFull, which sends the name that it verifies: choose verifyCa, or remove it")
	}
}

// readable notes a file that is named and cannot be read.
func readable(r *api.Report, path string) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		r.Add("cannot be read: %v", err)
		return
	}
	_ = f.Close() // nothing was written
}

// Options are what the store is opened with.
func (c *PostgresConfig) Options(log *slog.Logger) postgres.Options {
	return postgres.Options{
		Host: c.Host, Port: uint16(c.Port), User: c.User, Password: string(c.Password), PasswordFile: c.PasswordFile, Database: c.DBName,
		TLS:            postgres.TLS{Mode: c.TLS.Mode, CertFile: c.TLS.CertPath, KeyFile: c.TLS.KeyPath, CAFile: c.TLS.CAPath, DisableSNI: c.TLS.DisableSSLSNI},
		ConnectTimeout: time.Duration(c.ConnectionTimeout), TransactionTimeout: time.Duration(c.TransactionTimeout),
		Pool: postgres.Pool{
			MinConns: c.MinOpenConnections, MaxConns: c.MaxOpenConnections,
			MaxIdle: time.Duration(c.MaxConnectionIdleTime), MaxLifetime: time.Duration(c.MaxConnectionLifetime),
			MaxLifeSkew: time.Duration(c.MaxConnectionLifetimeJitter), HealthCheck: time.Duration(c.HealthCheckInterval),
		},
		Poll: time.Duration(c.PollInterval), Keep: c.KeepChanges, Log: log,
	}
}

// LoadStore reads what the configuration of a global or of a zone says about the
// store, and nothing else of it; see [Load].
func LoadStore(path string, env []string) (StoreConfig, error) {
	whole := struct {
		Store StoreConfig `json:"store"`
	}{defaultStore()}
	if path != "" {
		body, err := os.ReadFile(path)
		if err != nil {
			return whole.Store, fmt.Errorf("configuration: %w", err)
		}
		var parts map[string]any
		if err := yaml.Unmarshal(body, &parts); err != nil {
			return whole.Store, fmt.Errorf("configuration %s: %w", path, err)
		}
		part, err := yaml.Marshal(map[string]any{"store": parts["store"]})
		if err != nil {
			return whole.Store, fmt.Errorf("configuration %s: %w", path, err)
		}
		if err := read(path, part, &whole); err != nil {
			return whole.Store, err
		}
	}
	return whole.Store, Load("", env, &whole)
}

// openStore opens the store of a control plane.
func openStore(c Config, log *slog.Logger) (store.Store, error) {
	switch c.Store.Type {
	case "memory":
		return memory.New().Open(), nil
	case "postgres":
		// Another instance may be migrating: that takes a moment, not minutes.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return postgres.Open(ctx, c.Store.Postgres.Options(log))
	default:
		return bolt.Open(filepath.Join(c.DataDir, "atoll.db"))
	}
}
