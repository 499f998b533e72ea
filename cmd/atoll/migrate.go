package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/api/store/postgres"
)

func migrateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of a PostgreSQL up to date",
		Long: `Control planes migrate their database when they start. This does it beforehand,
for instance as a user who may create tables while control planes may not.

It reads the key store of a control plane's configuration (--config, environment,
flags) and nothing else of it.`,
		Example: `  atoll migrate status --config global.yaml
  atoll migrate up --config global.yaml --postgres-user owner --postgres-password-file owner.password`,
		RunE: group,
	}
	up := &cobra.Command{
		Use: "up", Short: "Apply the migrations that are missing", Args: arguments(cobra.NoArgs),
		Example: `  atoll migrate up --postgres-host db.example --postgres-db-name mesh

  # after an older copy of the server's files was put back while no control plane ran
  atoll migrate up --config global.yaml --new-epoch`,
	}
	var restored bool
	load := database(up)
	up.Flags().BoolVar(&restored, "new-epoch", false, "the database was restored to an older state: let zones notice")
	up.RunE = stoppable(func(ctx context.Context, c *cobra.Command, _ []string) error {
		o, err := load()
		if err != nil {
			return err
		}
		applied, err := postgres.Migrate(ctx, o, restored)
		for _, m := range applied {
			fmt.Fprintf(c.OutOrStdout(), "applied %d %s\n", m.Version, m.Name)
		}
		if err != nil {
			return err
		}
		if restored {
			fmt.Fprintln(c.OutOrStdout(), "a new epoch has begun")
		}
		fmt.Fprintln(c.OutOrStdout(), "up to date")
		return nil
	})
	status := &cobra.Command{
		Use: "status", Short: "List the migrations, and when each was applied", Args: arguments(cobra.NoArgs),
		Example: `  atoll migrate status --postgres-host db.example --postgres-db-name mesh`,
	}
	loadStatus := database(status)
	status.RunE = stoppable(func(ctx context.Context, c *cobra.Command, _ []string) error {
		o, err := loadStatus()
		if err != nil {
			return err
		}
		all, err := postgres.Migrations(ctx, o)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, "MIGRATION\tNAME\tAPPLIED")
		for _, m := range all {
			applied := "not yet"
			if !m.Applied.IsZero() {
				applied = m.Applied.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\n", m.Version, m.Name, applied)
		}
		return w.Flush()
	})
	command.AddCommand(up, status)
	return command
}

// database binds the settings of the database to the flags of a command.
func database(command *cobra.Command) (load func() (postgres.Options, error)) {
	initial := func() server.StoreConfig { return server.Default().Store }
	options := postgresOptions(func(c *server.StoreConfig) *server.StoreConfig { return c })
	read := overlaid(command, initial, options, func(path string) (server.StoreConfig, error) {
		return server.LoadStore(path, os.Environ())
	})
	return func() (postgres.Options, error) {
		c, err := read()
		if err != nil {
			return postgres.Options{}, err
		}
		c.Type = "postgres" // whatever the control plane uses
		var r api.Report
		c.Validate(r.At("store"))
		return c.Postgres.Options(slog.New(slog.DiscardHandler)), r.Err()
	}
}
