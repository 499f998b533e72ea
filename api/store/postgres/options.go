package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/atoll-mesh/atoll/api/store"
)

// Options say where the database is and how it is used. Zero fields mean the
// default that is named.
type Options struct {
	// Host is a name, an address or the directory of a unix socket; or several of
	// them, separated by commas: the first that takes writes is used.
	Host string
	Port uint16 // 5432
	User string
	// Password, or the file that holds it. The file is read for each connection,
	// so that a password may change.
	Password, PasswordFile string
	Database               string
	TLS                    TLS

	// ConnectTimeout bounds the making of a connection: 5s.
	ConnectTimeout time.Duration
	// TransactionTimeout is how long a transaction may take, with the wait for
	// other writers, and how long a follower that reads hears nothing, before the
	// database counts as away: 15s.
	TransactionTimeout time.Duration
	// Pool bounds the connections of writers. A follower has one of its own.
	Pool Pool

	// Poll is how often followers look though nobody told them to: 5s.
	Poll time.Duration
	// Keep is how many commits the change log keeps at least: 10000. A follower
	// that is further behind begins anew with all rows.
	Keep int
	Log  *slog.Logger
}

// TLS says how the server is verified and how this program identifies itself.
type TLS struct {
	// Mode is one of the constants below; "" is Disable.
	Mode string
	// CertFile and KeyFile are the client certificate (PEM), CAFile the
	// authorities of the server ("": those of the system). All are read for each
	// connection.
	CertFile, KeyFile, CAFile string
	// DisableSNI does not tell the server's name in the clear.
	DisableSNI bool
}

// Modes of TLS.
const (
	// Disable: no TLS.
	Disable = "disable"
	// VerifyNone: TLS with whoever answers.
	VerifyNone = "verifyNone"
	// VerifyCA: the certificate is of an authority that is trusted.
	VerifyCA = "verifyCa"
	// VerifyFull: and it is for the host.
	VerifyFull = "verifyFull"
)

// Modes lists the modes of TLS.
func Modes() []string { return []string{Disable, VerifyNone, VerifyCA, VerifyFull} }

// sslMode is the word of libpq for a mode of ours.
func sslMode(mode string) string {
	switch mode {
	case VerifyNone:
		return "require"
	case VerifyCA:
		return "verify-ca"
	case VerifyFull:
		return "verify-full"
	}
	return "disable"
}

// Pool bounds a set of connections.
type Pool struct {
	MinConns, MaxConns                int // 0 and unlimited
	MaxIdle, MaxLifetime, MaxLifeSkew time.Duration
	HealthCheck                       time.Duration
}

func (o Options) withDefaults() Options {
	o.Port = cmp.Or(o.Port, 5432)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.TransactionTimeout = cmp.Or(o.TransactionTimeout, 15*time.Second)
	o.Poll = cmp.Or(o.Poll, 5*time.Second)
	o.Keep = cmp.Or(o.Keep, 10_000)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o
}

// String names the database, without secrets.
func (o *Options) String() string {
	return fmt.Sprintf("postgres://%s@%s:%d/%s", o.User, o.Host, o.Port, o.Database)
}

// settings reads the password and says where to go and whom to trust, as libpq
// reads it. All keys of that are set, so that the environment of psql and others
// (PGHOST, …) does not count.
func (o *Options) settings() (string, error) {
	password := o.Password
	if o.PasswordFile != "" {
		content, err := os.ReadFile(o.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("password of the database: %w", err)
		}
		password = strings.TrimRight(string(content), "\r\n")
	}
	settings := map[string]string{
		"host": o.Host, "port": strconv.Itoa(int(o.Port)), "user": o.User, "password": password, "database": o.Database,
		"sslmode": sslMode(o.TLS.Mode), "sslcert": o.TLS.CertFile, "sslkey": o.TLS.KeyFile, "sslrootcert": o.TLS.CAFile,
		"sslsni": "1", "sslnegotiation": "postgres", "sslpassword": "", "sslcertmode": "allow", "passfile": os.DevNull,
		"channel_binding": "prefer", "require_auth": "", "target_session_attrs": "read-write",
	}
	if o.TLS.DisableSNI {
		settings["sslsni"] = "0"
	}
	if o.TLS.Mode == VerifyNone {
		settings["sslrootcert"] = "" // else libpq's rules make it verify
	}
	var text strings.Builder
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s='%s' ", k, quote.Replace(settings[k]))
	}
	return text.String(), nil
}

// config is what a connection needs.
func (o *Options) config() (*pgx.ConnConfig, error) {
	text, err := o.settings()
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, withoutText(err)
	}
	o.complete(c)
	return c, nil
}

// complete sets what a text cannot, and drops what the environment says of
// sessions (PGOPTIONS, PGTZ).
func (o *Options) complete(c *pgx.ConnConfig) {
	c.ConnectTimeout = o.ConnectTimeout
	c.RuntimeParams = map[string]string{"application_name": "atoll"}
}

// withoutText is what is wrong with the settings, without the password in them.
func withoutText(err error) error {
	err = fmt.Errorf("settings of the database: %w", cmp.Or(errors.Unwrap(err), err))
	service := os.Getenv("PGSERVICE")
	if service == "" || !strings.Contains(err.Error(), "service") {
		return err
	}
	// Nothing that a service says counts here, but it must be there (pgx).
	file := os.Getenv("PGSERVICEFILE")
	if file == "" {
		home, _ := os.UserHomeDir() // without: a file beside the program
		file = filepath.Join(home, ".pg_service.conf")
	}
	return fmt.Errorf("%w: PGSERVICE is set, so the file %s must have a service %q; unset PGSERVICE, which is not needed here", err, file, service)
}

// pool returns a pool that has no connection yet.
func (o *Options) pool() (*pgxpool.Pool, error) {
	text, err := o.settings()
	if err != nil {
		return nil, err
	}
	c, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, withoutText(err)
	}
	o.complete(c.ConnConfig)
	c.BeforeConnect = func(_ context.Context, now *pgx.ConnConfig) error {
		fresh, err := o.config()
		if err == nil {
			*now = *fresh
		}
		return err
	}
	c.MinConns, c.MaxConns = int32(o.Pool.MinConns), int32(cmp.Or(o.Pool.MaxConns, math.MaxInt32))
	c.MaxConnIdleTime = cmp.Or(o.Pool.MaxIdle, c.MaxConnIdleTime)
	c.MaxConnLifetime = cmp.Or(o.Pool.MaxLifetime, c.MaxConnLifetime)
	c.MaxConnLifetimeJitter = cmp.Or(o.Pool.MaxLifeSkew, c.MaxConnLifetimeJitter)
	c.HealthCheckPeriod = cmp.Or(o.Pool.HealthCheck, c.HealthCheckPeriod)
	return pgxpool.NewWithConfig(context.Background(), c)
}

// connect makes one connection outside the pool.
func (o *Options) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := o.config()
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, c)
}

// explain says what kind of failure it is and, where that is known, what to do.
func (o *Options) explain(err error) error {
	var answer *pgconn.PgError
	switch {
	case errors.Is(err, ErrNewer), errors.Is(err, errEmpty), errors.As(err, new(*store.Corrupt)):
		return err
	case away(err):
		err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	if !errors.As(err, &answer) {
		return err
	}
	fix := ""
	switch answer.Code {
	case "28P01", "28000": // invalid_password, invalid_authorization_specification
		fix = "check user, password or client certificate, and pg_hba.conf of the server"
	case "3D000": // invalid_catalog_name
		fix = fmt.Sprintf("create it: CREATE DATABASE %s OWNER %s", o.Database, o.User)
	case "42501", "3F000": // insufficient_privilege, invalid_schema_name
		fix = fmt.Sprintf("let %s create tables there, or run `atoll migrate up` as a user who may and grant it the tables atoll_*", o.User)
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, fix)
}

// away reports whether the database cannot be reached or takes no writes now,
// so that the same may succeed later or elsewhere: nobody answered, or the
// answer says so. Codes: PostgreSQL's appendix "Error Codes".
func away(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return true
	}
	switch answer.Code {
	case "53100": // disk_full: an operator must do something
		return false
	case "57014", "55P03", "25P03", "25006", "3D000":
		// query_canceled, lock_not_available: another writer holds the lock;
		// idle_in_transaction_session_timeout; read_only_sql_transaction: a standby;
		// invalid_catalog_name: the database is being restored.
		return true
	}
	// Connection exceptions, authorization, insufficient resources, operator
	// intervention.
	return slices.Contains([]string{"08", "28", "53", "57"}, answer.Code[:min(2, len(answer.Code))])
}
