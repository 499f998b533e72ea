package postgres

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// migrations are applied in the order of their numbers, each in a transaction
// of its own. One that programs of the format before cannot live with must raise
// atoll_store.format and say in atoll_store.reader who can.
//
//go:embed migrations/*.sql
var migrations embed.FS

// Migration is a step from an empty database to the tables of this program.
type Migration struct {
	Version int
	Name    string
	// Applied is when, zero if it was not.
	Applied time.Time
}

// known lists the migrations of this program, in order.
func known() ([]Migration, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	out := make([]Migration, len(files))
	for i, file := range files {
		number, name, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("%s: the next migration is number %d", file, i+1)
		}
		out[i] = Migration{Version: version, Name: name}
	}
	return out, nil
}

// Migrations returns the migrations of this program, and when each was applied.
func Migrations(ctx context.Context, o Options) (all []Migration, err error) {
	o = o.withDefaults()
	err = o.alone(ctx, func(c *pgx.Conn) error {
		all, err = status(ctx, c)
		return err
	})
	return all, err
}

// Migrate applies the migrations that are missing and returns them. Open does
// the same. Writers wait meanwhile. With restored it also begins a new epoch,
// for a database whose files were put back to an older copy.
func Migrate(ctx context.Context, o Options, restored bool) (applied []Migration, err error) {
	o = o.withDefaults()
	err = o.alone(ctx, func(c *pgx.Conn) error {
		if applied, err = migrate(ctx, c, o.Log); err != nil || !restored {
			return err
		}
		return locked(ctx, c, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `WITH s AS (UPDATE atoll_store SET epoch = $1) SELECT pg_notify('`+channel+`', '')`, newEpoch())
			return err
		})
	})
	return applied, err
}

// alone calls f with a connection of its own.
func (o *Options) alone(ctx context.Context, f func(*pgx.Conn) error) error {
	c, err := o.connect(ctx)
	if err == nil {
		err = errors.Join(f(c), c.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o, o.explain(err))
	}
	return nil
}

const lockStatement = "SELECT pg_advisory_xact_lock($1)"

// locked calls f in a transaction beside which nobody writes.
func locked(ctx context.Context, c *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockStatement, lock); err != nil {
			return err
		}
		return f(tx)
	})
}

// queries is a connection or a transaction.
type queries interface {
	querier
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// status refuses the tables of a newer program.
func status(ctx context.Context, q queries) ([]Migration, error) {
	all, err := known()
	if err != nil {
		return nil, err
	}
	var migrated, stored bool
	err = q.QueryRow(ctx, "SELECT to_regclass('atoll_migrations') IS NOT NULL, to_regclass('atoll_store') IS NOT NULL").Scan(&migrated, &stored)
	if err != nil || !migrated {
		return all, err
	}
	if stored {
		if _, err := readState(ctx, q, 0); err != nil && !errors.Is(err, errEmpty) {
			return nil, err
		}
	}
	rows, err := q.Query(ctx, "SELECT version, applied FROM atoll_migrations")
	if err != nil {
		return nil, err
	}
	var version int
	var applied time.Time
	_, err = pgx.ForEachRow(rows, []any{&version, &applied}, func() error {
		// A newer program may have applied more, which this one can live with.
		if version >= 1 && version <= len(all) {
			all[version-1].Applied = applied
		}
		return nil
	})
	return all, err
}

// migrate brings the tables up to date. Nothing is locked if they are.
func migrate(ctx context.Context, c *pgx.Conn, log *slog.Logger) (applied []Migration, err error) {
	all, err := status(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if !m.Applied.IsZero() {
			continue
		}
		done, err := migrateTo(ctx, c, m.Version)
		if err != nil {
			return applied, fmt.Errorf("migration %d (%s): %w", m.Version, m.Name, err)
		}
		if done != nil {
			log.Info("the tables of the store were migrated", "version", m.Version, "name", m.Name)
			applied = append(applied, *done)
		}
	}
	return applied, settle(ctx, c, log)
}

// migrateTo applies one migration, unless another instance was faster.
func migrateTo(ctx context.Context, c *pgx.Conn, version int) (done *Migration, err error) {
	err = locked(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS atoll_migrations (
			version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`); err != nil {
			return err
		}
		all, err := status(ctx, tx)
		if err != nil || !all[version-1].Applied.IsZero() {
			return err
		}
		m := all[version-1]
		text, err := fs.ReadFile(migrations, fmt.Sprintf("migrations/%04d_%s.sql", m.Version, m.Name))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, string(text)); err != nil {
			return err
		}
		done = &m
		return tx.QueryRow(ctx, "INSERT INTO atoll_migrations (version, name) VALUES ($1, $2) RETURNING applied", m.Version, m.Name).Scan(&m.Applied)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// home is where the table is: it differs after a dump was restored, be it into
// the same database.
const home = `concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
	(SELECT oid FROM pg_database WHERE datname = current_database()), 'atoll_store'::regclass::oid)`

// settle makes the row of atoll_store, and begins a new epoch if it was restored
// from elsewhere.
func settle(ctx context.Context, c *pgx.Conn, log *slog.Logger) error {
	var at string
	err := c.QueryRow(ctx, "SELECT home FROM atoll_store WHERE home = "+home).Scan(&at)
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return locked(ctx, c, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO atoll_store (format, reader, epoch, revision, home)
			SELECT $1, $2, $3, 0, `+home+` WHERE NOT EXISTS (SELECT FROM atoll_changes) ON CONFLICT DO NOTHING`, Format, reader, newEpoch())
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "UPDATE atoll_store SET epoch = $1, home = "+home+" WHERE home <> "+home, newEpoch())
		if tag.RowsAffected() > 0 {
			log.Warn("the database was restored from elsewhere: a new epoch begins")
		}
		return err
	})
}

// newEpoch is a name that no other history has.
func newEpoch() string { return rand.Text() }
