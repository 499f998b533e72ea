// Command atoll is the one executable of the mesh: the control planes, the
// keeper of a proxy, and the command line that talks to them.
//
// It owns flags, help, exit codes and what is printed; each command builds a
// configuration or a request and calls the package that does the work. Nothing
// imports it. It never holds state, except the user's list of control planes in
// ~/.atoll/config.
//
//	flags, environment, files ─▶ Config ─▶ global.Run, zone.Run, proxy.Run
//	                         └─▶ client ─▶ REST ─▶ tables, YAML, JSON
//
// # Why
//
// One executable: what is copied to a machine can be every part of the mesh,
// and versions cannot be mixed by accident. Commands are functions that return
// a cobra.Command, put together in one list; there is no registry. An error is
// printed once, at the end, together with what the user can do about it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/atoll-mesh/atoll/api"
)

// version is set by the linker: -X main.version=….
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes beside those of Envoy, which `atoll dp` passes on.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// run runs one command line and returns its exit code.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	var c connection
	root := commands(&c)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(context.Background())
	var status exitStatus
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		if status.err != nil {
			c.say(errs, status.err)
		}
		return status.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &wrong) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintln(errs, "Error: "+err.Error())
		if !strings.Contains(err.Error(), "--help") {
			fmt.Fprintln(errs, "Run the command with --help for examples.")
		}
		return exitUsage
	}
	c.say(errs, err)
	return exitFailed
}

// say prints an error and what can be done about it.
func (c *connection) say(errs io.Writer, err error) {
	fmt.Fprintln(errs, "Error: "+err.Error())
	if what := c.advice(err); what != "" {
		fmt.Fprintln(errs, what)
	}
}

func rootCommand() *cobra.Command { return commands(&connection{}) }

// commands are all commands; those that talk to a control plane share the
// connection.
func commands(c *connection) *cobra.Command {
	root := &cobra.Command{
		Use:   "atoll",
		Short: "A service mesh over many zones",
		Long: `Atoll connects services in many places (zones) over mutual TLS, with policies
that are written once.

A first mesh on this machine, with Envoy on the PATH:

  atoll demo

By hand: a control plane, a token for a proxy, the proxy, a policy.

  atoll zone &
  atoll generate dataplane-token --name web-1 > web-1.token
  atoll dp --dataplane-file web-1.yaml --dataplane-token-file web-1.token --skip-verify &
  atoll apply -f timeout.yaml --wait
  atoll get dataplanes`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run a part of the mesh:"},
		&cobra.Group{ID: groupUse, Title: "Use a control plane:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		groupRun: {globalCommand(), zoneCommand(), dpCommand(), demoCommand(), migrateCommand()},
		groupUse: {
			getCommand(c), applyCommand(c), diffCommand(c), editCommand(c), deleteCommand(c), inspectCommand(c), exportCommand(c),
			generateCommand(c), configCommand(c), explainCommand(), versionCommand(c),
		},
	} {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	root.AddCommand(completionCommand(), referenceCommand())
	return root
}

const (
	groupRun = "run"
	groupUse = "use"
)

// stoppable gives a command a context that SIGINT and SIGTERM end. After the
// first signal the default action is back, so that a second one ends a process
// that hangs.
func stoppable(do func(ctx context.Context, c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		return interruptible(c.Context(), func(ctx context.Context) error { return do(ctx, c, args) })
	}
}

func interruptible(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	return do(ctx)
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func wrongUsage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// wrongFlag is a flag that the command does not have, or with a value that the
// flag cannot have.
func wrongFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError{err}
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if found := api.Nearest(unknown.GetSpecifiedName(), known); found != "" {
		return wrongUsage("%w; did you mean --%s?", err, found)
	}
	return usageError{err}
}

// arguments makes the faults that cobra finds in arguments faults of usage, and
// shows what the command takes.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return wrongUsage("%w\nUsage: %s", err, c.UseLine())
		}
		return nil
	}
}

// group runs a command that only has others below it.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	hint := ""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", near[0])
	}
	return wrongUsage("unknown command %q for %q%s", args[0], c.CommandPath(), hint)
}

// exitStatus ends the process with a code that is not ours to choose.
type exitStatus struct {
	code int
	err  error
}

func (e exitStatus) Error() string { return e.err.Error() }
func (e exitStatus) Unwrap() error { return e.err }
