package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/zone"
)

func zoneCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "zone",
		Short: "Run a zone control plane: configuration for the proxies next to it",
		Long: `Runs the control plane that serves the proxies of one zone. Without a global
address it is a complete mesh of its own; with one it receives meshes and
policies from there, keeps a copy, and goes on when global is away.

Its REST API is at port 5681, proxies connect to port 5678. The first start writes
admin.token into the data directory, where the command line of this machine finds
it. Settings come from the file of --config, then from environment variables
(dpServer.address is ATOLL_DP_SERVER_ADDRESS), then from flags.`,
		Example: `  # a mesh on one machine
  atoll zone

  # a zone of a global control plane
  atoll zone --name east --global-address grpcs://global.example:5685 --token-file east.token --global-ca-file global.pem

  # one of several instances over a database (the rest of its settings: store.postgres in the file)
  atoll zone --name east --store postgres --postgres-host db.example --postgres-password-file db.password --postgres-tls-mode verifyFull

  # free ports, nothing kept, no tokens asked for: for trying out
  atoll zone --store memory --dp-auth none --localhost-is-admin --api-address 127.0.0.1:0 --dp-address 127.0.0.1:0 --diagnostics-address 127.0.0.1:0`,
		Args: arguments(cobra.NoArgs),
	}
	options := append([]option[zone.Config]{
		{"name", "name of the zone", func(c *zone.Config) any { return &c.Name }},
		{"global-address", "grpcs://host:port of global; empty: the zone stands alone", func(c *zone.Config) any { return &c.Global.Address }},
		{"token-file", "file with the zone token that global issued", func(c *zone.Config) any { return &c.Global.TokenFile }},
		{"global-ca-file", "authorities (PEM) that verify global; empty: those of the system", func(c *zone.Config) any { return &c.Global.CAFile }},
		{"global-skip-verify", "connect to global without verifying it", func(c *zone.Config) any { return &c.Global.SkipVerify }},
		{"dp-address", "host:port that proxies connect to; port 0 picks one", func(c *zone.Config) any { return &c.DPServer.Address }},
		{"dp-auth", "token: proxies show a dataplane token; none: every proxy is admitted", func(c *zone.Config) any { return &c.DPServer.Auth }},
	}, commonOptions(func(c *zone.Config) *server.Config { return &c.Config })...)
	load := configuration(command, zone.Default, options)
	command.RunE = stoppable(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		zone.Process()
		return zone.Run(ctx, c, version, os.Stdout)
	})
	return command
}
