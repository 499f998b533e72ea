package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func generateCommand(c *connection) *cobra.Command {
	command := c.bind(&cobra.Command{
		Use:   "generate",
		Short: "Make tokens",
		Long:  "Asks the control plane for a token and prints it, and nothing else, to standard output.",
		Example: `  atoll generate dataplane-token --name web-1 > web-1.token
  atoll generate zone-token --zone east > east.token
  atoll generate user-token --name ada --group mesh-system:admin`,
		RunE: group,
	})
	command.AddCommand(dataplaneToken(c), zoneToken(c), userToken(c))
	return command
}

// issue gives a command what all tokens have in common.
func issue(c *connection, command *cobra.Command, validFor time.Duration, ask func(ctx context.Context, cl *client.Client, validFor string) (string, error)) *cobra.Command {
	fs := command.Flags()
	lifetime := fs.Duration("valid-for", validFor, "how long the token is valid")
	command.Args = arguments(cobra.NoArgs)
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if *lifetime <= 0 {
			return wrongUsage("--valid-for must be greater than 0")
		}
		cl, err := c.open()
		if err != nil {
			return err
		}
		token, err := ask(ctx, cl, lifetime.String())
		if err != nil {
			return err
		}
		fmt.Fprintln(command.OutOrStdout(), strings.TrimSpace(token))
		return nil
	})
	return command
}

const (
	workloadToken = 365 * 24 * time.Hour // for machines, which do not log in again
	personToken   = 24 * time.Hour
)

func dataplaneToken(c *connection) *cobra.Command {
	var q client.DataplaneTokenRequest
	var tags []string
	command := &cobra.Command{
		Use: "dataplane-token", Aliases: []string{"dp-token"}, Short: "A token for a proxy",
		Long: `A token with which a proxy connects to its zone. It is good for the Dataplane with
the name, the workload and the tags that are given; what is not given is not
checked.`,
		Example: `  atoll generate dataplane-token --name web-1 > web-1.token
  atoll generate dataplane-token -m shop --workload web --valid-for 720h
  atoll generate dataplane-token --tag kuma.io/service=web,api`,
	}
	issue(c, command, workloadToken, func(ctx context.Context, cl *client.Client, validFor string) (string, error) {
		q.Tags = map[string][]string{}
		for _, tag := range tags {
			name, values, ok := strings.Cut(tag, "=")
			if !ok || name == "" {
				return "", wrongUsage("--tag %s: want name=value or name=value,value", tag)
			}
			q.Tags[name] = append(q.Tags[name], strings.Split(values, ",")...)
		}
		var err error
		if q.Mesh, err = c.in(q.Mesh); err != nil {
			return "", err
		}
		q.ValidFor = validFor
		return cl.DataplaneToken(ctx, q)
	})
	fs := command.Flags()
	c.meshFlag(command, &q.Mesh, "mesh of the Dataplane")
	fs.StringVar(&q.Name, "name", "", "name of the Dataplane")
	fs.StringVar(&q.Workload, "workload", "", "workload (label kuma.io/workload) of the Dataplane")
	fs.StringArrayVar(&tags, "tag", nil, "tag and its values, name=value,value (repeatable)")
	fs.StringVar(&q.Type, "proxy-type", "", "type of proxy: dataplane")
	return command
}

func zoneToken(c *connection) *cobra.Command {
	var q client.ZoneTokenRequest
	command := &cobra.Command{
		Use: "zone-token", Short: "A token for a zone",
		Long: "A token with which a zone control plane connects to global, under this name only.",
		Example: `  atoll generate zone-token --zone east > east.token
  atoll zone --name east --global-address grpcs://global.example:5685 --token-file east.token`,
	}
	issue(c, command, workloadToken, func(ctx context.Context, cl *client.Client, validFor string) (string, error) {
		if q.Zone == "" {
			return "", wrongUsage("--zone is needed: the token is good for one zone")
		}
		q.ValidFor = validFor
		return cl.ZoneToken(ctx, q)
	})
	command.Flags().StringVar(&q.Zone, "zone", "", "name of the zone")
	complete(command, "zone", func(command *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return names(command.Context(), c, api.Zones, "", typed, nil), cobra.ShellCompDirectiveNoFileComp
	})
	return command
}

func userToken(c *connection) *cobra.Command {
	var q client.UserTokenRequest
	command := &cobra.Command{
		Use: "user-token", Short: "A token for a person or a program that uses the API",
		Example: `  atoll generate user-token --name ada --group mesh-system:admin --valid-for 8h
  atoll generate user-token --name ci --valid-for 8760h > ci.token`,
	}
	issue(c, command, personToken, func(ctx context.Context, cl *client.Client, validFor string) (string, error) {
		if q.Name == "" {
			return "", wrongUsage("--name is needed")
		}
		q.ValidFor = validFor
		return cl.UserToken(ctx, q)
	})
	fs := command.Flags()
	fs.StringVar(&q.Name, "name", "", "name of the user")
	fs.StringArrayVar(&q.Groups, "group", nil, "group of the user (repeatable)")
	return command
}
