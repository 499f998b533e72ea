package main

import (
	"context"
	"fmt"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api/client"
)

func versionCommand(c *connection) *cobra.Command {
	var local bool
	command := c.bind(&cobra.Command{
		Use: "version", Short: "The versions of this program and of the control plane", Args: arguments(cobra.NoArgs),
		Example: "  atoll version\n  atoll version --client",
	})
	command.Flags().BoolVar(&local, "client", false, "do not ask the control plane")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		w := tabwriter.NewWriter(command.OutOrStdout(), 0, 8, 2, ' ', 0)
		fmt.Fprintf(w, "Client:\tatoll %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		if local {
			return w.Flush()
		}
		o, err := c.options()
		if err != nil {
			return err
		}
		server := "not reachable at " + o.URL
		if cl, err := c.quick(); err != nil {
			return err
		} else if root, err := cl.Root(ctx); err == nil {
			server = serverVersion(root) + " at " + o.URL
		}
		fmt.Fprintf(w, "Server:\t%s\n", server)
		return w.Flush()
	})
	return command
}

func serverVersion(root client.Root) string {
	if root.BasedOnKuma == "" {
		return fmt.Sprintf("%s %s", root.Product, root.Version)
	}
	return fmt.Sprintf("atoll %s (API of %s %s)", root.AtollVersion, root.Product, root.BasedOnKuma)
}
