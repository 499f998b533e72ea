package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global"
)

func globalCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "global",
		Short: "Run the global control plane: policies for every zone",
		Long: `Runs the control plane that holds meshes and policies and sends them to zones.

Its REST API is at port 5681, zones connect to port 5685. The first start writes
admin.token into the data directory, where the command line of this machine finds
it. Settings come from the file of --config, then from environment variables
(api.localhostIsAdmin is ATOLL_API_LOCALHOST_IS_ADMIN), then from flags.`,
		Example: `  # a global control plane, and a token for the zone east
  atoll global
  atoll generate zone-token --zone east > east.token

  # on another machine: the zone
  atoll zone --name east --global-address grpcs://global.example:5685 --token-file east.token

  # one of several instances over a database (the rest of its settings: store.postgres in the file)
  atoll global --store postgres --postgres-host db.example --postgres-password-file db.password --postgres-tls-mode verifyFull

  # free ports, nothing kept
  atoll global --store memory --api-address 127.0.0.1:0 --kds-address 127.0.0.1:0 --diagnostics-address 127.0.0.1:0`,
		Args: arguments(cobra.NoArgs),
	}
	options := append(commonOptions(func(c *global.Config) *server.Config { return &c.Config }),
		option[global.Config]{"kds-address", "host:port that zones connect to; port 0 picks one", func(c *global.Config) any { return &c.KDS.Address }},
		option[global.Config]{"zone-auth", "token: zones show a zone token; none: every zone is admitted", func(c *global.Config) any { return &c.KDS.Auth }},
		option[global.Config]{"unauthenticated-zone", "name of a zone that is admitted without a token (repeatable)", func(c *global.Config) any { return &c.KDS.UnauthenticatedZones }},
	)
	load := configuration(command, global.Default, options)
	command.RunE = stoppable(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		return global.Run(ctx, c, version, os.Stdout)
	})
	return command
}
