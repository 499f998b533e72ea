package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/atoll-mesh/atoll/zone/proxy"
)

func dpCommand() *cobra.Command {
	given := proxy.Default()
	command := &cobra.Command{
		Use:   "dp",
		Short: "Run a proxy: Envoy next to a workload",
		Long: `Fetches the first configuration from the zone, runs Envoy with it, and ends with
Envoy's status. SIGTERM and SIGINT let connections end first (--drain-time); a
second signal does not wait. Whatever started this process (systemd, Kubernetes)
starts it again.

The Dataplane either exists at the control plane (--name, --mesh) or is given
here and registers itself (--dataplane-file).`,
		Example: `  # web-1.yaml is a Dataplane
  atoll generate dataplane-token --name web-1 > web-1.token
  atoll dp --cp-address https://zone.example:5678 --ca-cert-file zone.pem \
    --dataplane-file web-1.yaml --dataplane-token-file web-1.token

  # one template for many: {{ name }} and {{ address }} in it are replaced
  atoll dp --dataplane-file web.yaml -v name=web-2 -v address=10.0.0.12 --dataplane-token-file web-2.token`,
		Args: arguments(cobra.NoArgs),
	}
	command.Flags().SortFlags = false
	given.Bind(command.Flags())
	command.RunE = func(command *cobra.Command, _ []string) error {
		c, err := proxyConfig(command.Flags(), given, os.Environ())
		if err != nil {
			return err
		}
		c.Version = version
		signals := make(chan os.Signal, 16)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
		defer signal.Stop(signals)
		c.Signals = signals
		code, err := proxy.Run(command.Context(), c)
		if code == 0 && err == nil {
			return nil
		}
		return exitStatus{max(code, exitFailed), err}
	}
	return command
}

// proxyConfig is defaults, then the environment, then the flags that were given.
// The environment is read here and not before help is shown, because help
// prints defaults and the environment may hold a token.
func proxyConfig(flags *pflag.FlagSet, given proxy.Config, env []string) (proxy.Config, error) {
	c := proxy.Default()
	if err := c.Environment(env); err != nil {
		return c, err
	}
	over := pflag.NewFlagSet("dp", pflag.ContinueOnError)
	c.Bind(over)
	var errs []error
	flags.Visit(func(f *pflag.Flag) {
		if f.Name == "dataplane-var" { // a map: does not read what it prints
			c.Variables = given.Variables
		} else if over.Lookup(f.Name) != nil {
			errs = append(errs, over.Set(f.Name, f.Value.String()))
		}
	})
	return c, errors.Join(errs...)
}
