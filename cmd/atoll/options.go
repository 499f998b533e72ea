package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/atoll-mesh/atoll/api/server"
)

// option is a flag that sets one field of a configuration.
type option[C any] struct {
	name, usage string
	// field returns a *string, *bool, *int or *[]string inside the configuration.
	field func(*C) any
}

// commonOptions are those of every control plane; base finds the common part.
func commonOptions[C any](base func(*C) *server.Config) []option[C] {
	options := []option[C]{
		{"data-dir", "directory of the embedded store, the server certificate and admin.token", func(c *C) any { return &base(c).DataDir }},
		{"store", "where rows are kept: bolt (a file in the data directory), postgres (shared by instances) or memory (lost at the end)", func(c *C) any { return &base(c).Store.Type }},
		{"api-address", "host:port of the REST API; port 0 picks one", func(c *C) any { return &base(c).API.Address }},
		{"diagnostics-address", "host:port of health, readiness, metrics and profiles; port 0 picks one", func(c *C) any { return &base(c).Diagnostics.Address }},
		{"localhost-is-admin", "callers of the API from this machine are administrators, without a token", func(c *C) any { return &base(c).API.LocalhostIsAdmin }},
		{"log-level", "debug, info, warn or error", func(c *C) any { return &base(c).Log.Level }},
	}
	return append(options, postgresOptions(func(c *C) *server.StoreConfig { return &base(c).Store })...)
}

// postgresOptions are the settings of the database that users change most.
func postgresOptions[C any](base func(*C) *server.StoreConfig) []option[C] {
	return []option[C]{
		{"postgres-host", "PostgreSQL: host, directory of its unix socket, or several hosts separated by commas", func(c *C) any { return &base(c).Postgres.Host }},
		{"postgres-port", "PostgreSQL: port", func(c *C) any { return &base(c).Postgres.Port }},
		{"postgres-user", "PostgreSQL: user", func(c *C) any { return &base(c).Postgres.User }},
		{"postgres-password-file", "PostgreSQL: file with the password", func(c *C) any { return &base(c).Postgres.PasswordFile }},
		{"postgres-db-name", "PostgreSQL: database", func(c *C) any { return &base(c).Postgres.DBName }},
		{"postgres-tls-mode", "PostgreSQL: disable, verifyNone, verifyCa or verifyFull", func(c *C) any { return &base(c).Postgres.TLS.Mode }},
		{"postgres-tls-ca-file", "PostgreSQL: authorities (PEM) that verify it; empty: those of the system", func(c *C) any { return &base(c).Postgres.TLS.CAPath }},
	}
}

// configuration binds the options and --config to the flags of the command, and
// returns what loads the configuration once flags are parsed: defaults, then
// the file, then the environment, then flags.
func configuration[C any](command *cobra.Command, initial func() C, options []option[C]) (load func() (C, error)) {
	return overlaid(command, initial, options, func(path string) (C, error) {
		c := initial()
		return c, server.Load(path, os.Environ(), &c)
	})
}

// overlaid is configuration with another way to read the file and the
// environment.
func overlaid[C any](command *cobra.Command, initial func() C, options []option[C], read func(path string) (C, error)) (load func() (C, error)) {
	fs := command.Flags()
	fs.SortFlags = false
	path := fs.String("config", "", "configuration, a YAML file")
	given := initial()
	for _, o := range options {
		switch p := o.field(&given).(type) {
		case *string:
			fs.StringVar(p, o.name, *p, o.usage)
		case *bool:
			fs.BoolVar(p, o.name, *p, o.usage)
		case *int:
			fs.IntVar(p, o.name, *p, o.usage)
		case *[]string:
			fs.StringArrayVar(p, o.name, *p, o.usage)
		}
	}
	return func() (C, error) {
		c, err := read(*path)
		if err != nil {
			return c, err
		}
		byName := map[string]option[C]{}
		for _, o := range options {
			byName[o.name] = o
		}
		fs.Visit(func(f *pflag.Flag) {
			o, ok := byName[f.Name]
			if !ok {
				return
			}
			switch to := o.field(&c).(type) {
			case *string:
				*to = *o.field(&given).(*string)
			case *bool:
				*to = *o.field(&given).(*bool)
			case *int:
				*to = *o.field(&given).(*int)
			case *[]string:
				*to = *o.field(&given).(*[]string)
			}
		})
		return c, nil
	}
}
