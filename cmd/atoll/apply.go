package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func applyCommand(c *connection) *cobra.Command {
	var (
		input written
		dry   trial
		after waiting
	)
	command := c.bind(&cobra.Command{
		Use:   "apply -f FILE|DIRECTORY|URL|-",
		Short: "Create or replace resources",
		Long: `Creates or replaces the resources of YAML or JSON documents. Everything is checked
first: if any document has a fault, all faults are printed and nothing is sent.
What others refer to (meshes, then services) is sent first.

A file may hold many documents, separated by ---. Of a directory *.yaml, *.yml and
*.json are read, also below it. {{ name }} is replaced by the value of -v name=…;
other braces stay as they are.

--dry-run=client checks the documents here and prints them. --dry-run=server asks
the control plane, which judges them against what it has and says what each would
do; nothing is written. "atoll diff" also shows the difference.

--wait ends when every proxy of every connected zone has acknowledged the change. It
names the zones that are not connected: they get the change when they are back.`,
		Example: `  atoll apply -f mesh.yaml
  atoll apply -f policies/ --wait --timeout 30s
  atoll apply -f timeout.yaml -v seconds=5
  atoll get meshtimeout slow -o yaml | sed s/10s/5s/ | atoll apply -f -
  atoll apply -f policies/ --dry-run=server`,
		Args: arguments(cobra.NoArgs),
	})
	input.bind(command, "apply the documents of it")
	dry.bind(command)
	after.bind(command)
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if len(input.paths) == 0 {
			return wrongUsage("what to apply? Name a file by -f, or - for standard input")
		}
		documents, err := input.read(ctx, command.InOrStdin())
		if err != nil {
			return err
		}
		out, errs := command.OutOrStdout(), command.ErrOrStderr()
		if dry == tryHere {
			return printDocuments(out, documents)
		}
		cl, err := after.open(c)
		if err != nil {
			return err
		}
		if dry == tryThere {
			return tryAll(ctx, cl, documents, out, errs)
		}
		revision, err := apply(ctx, cl, documents, out, errs)
		if err != nil {
			return err
		}
		return after.wait(ctx, cl, revision, out, errs)
	})
	return command
}

// trial is the value of --dry-run.
type trial string

const (
	notTrial trial = "none"
	tryHere  trial = "client"
	tryThere trial = "server"
)

func (t *trial) bind(command *cobra.Command) {
	*t = notTrial
	command.Flags().Var(t, "dry-run", "change nothing: client checks the documents here, server asks the control plane; alone: client")
	command.Flags().Lookup("dry-run").NoOptDefVal = string(tryHere)
	complete(command, "dry-run", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{string(tryHere), string(tryThere)}, cobra.ShellCompDirectiveNoFileComp
	})
}

// String, Set and Type make it a flag.
func (t *trial) String() string { return string(*t) }

func (t *trial) Set(text string) error {
	switch text {
	case string(tryHere), string(tryThere), string(notTrial):
		*t = trial(text)
		return nil
	case "true", "false": // as a switch
		*t = map[string]trial{"true": tryHere, "false": notTrial}[text]
		return nil
	}
	return errors.New("want client, server or none")
}

func (t *trial) Type() string { return "client|server" }

// waiting is the flags of commands that can wait until a change is in force.
type waiting struct {
	on       bool
	patience time.Duration
}

func (w *waiting) bind(command *cobra.Command) {
	command.Flags().BoolVar(&w.on, "wait", false, "wait until every proxy has acknowledged the change")
	command.Flags().DurationVar(&w.patience, "timeout", time.Minute, "how long to --wait")
}

// open is a client whose questions may be answered late, if it is to wait.
func (w *waiting) open(c *connection) (*client.Client, error) {
	if w.on {
		c = c.patient()
	}
	return c.open()
}

func (w *waiting) wait(ctx context.Context, cl *client.Client, revision uint64, out, errs io.Writer) error {
	if !w.on || revision == 0 {
		return nil
	}
	return waitFor(ctx, cl, revision, w.patience, out, errs)
}

func printDocuments(out io.Writer, documents []document) error {
	for i, d := range documents {
		if i > 0 {
			fmt.Fprintln(out, "---")
		}
		text, err := asYAML(d.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Origin, err)
		}
		fmt.Fprint(out, text)
	}
	return nil
}

// did prints one line about a document.
func did(out io.Writer, d *document, result string) {
	mesh := ""
	if d.Kind.Info().Scope == api.MeshScope {
		mesh = d.Mesh
	}
	fmt.Fprintf(out, "resource type=%q mesh=%q name=%q %s\n", d.Type, mesh, d.Name, strings.ToUpper(result[:1])+result[1:])
}

// apply sends the documents and returns the newest revision that holds them. A
// document that is refused does not keep the others back; all refusals are the
// error.
func apply(ctx context.Context, cl *client.Client, documents []document, out, errs io.Writer) (revision uint64, err error) {
	err = each(documents, func(d *document) error {
		done, err := cl.Apply(ctx, d.Body)
		if err != nil {
			return err
		}
		revision = max(revision, done.Revision)
		warn(errs, d, done.Warnings)
		did(out, d, done.Result)
		return nil
	})
	return revision, err
}

// tryAll says what apply would do.
func tryAll(ctx context.Context, cl *client.Client, documents []document, out, errs io.Writer) error {
	made := map[string]bool{} // meshes that documents before would create
	return each(documents, func(d *document) error {
		tried, err := cl.TryApply(ctx, d.Body)
		if made[d.Mesh] && errors.Is(err, client.ErrNotFound) {
			did(out, d, client.Created+" (checked here only: its mesh is not there yet)")
			return nil
		}
		if err != nil {
			return err
		}
		if d.Kind.Info().Name == api.Meshes.Name {
			made[d.Name] = true
		}
		warn(errs, d, tried.Warnings)
		did(out, d, tried.Result+" (dry run)")
		return nil
	})
}

func warn(errs io.Writer, d *document, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(errs, "Warning: %s: %s\n", d, warning)
	}
}

// each does something with every document, and goes on after a refusal that
// concerns one of them. The error is all refusals.
func each(documents []document, do func(*document) error) error {
	var refused []error
	for i := range documents {
		d := &documents[i]
		err := do(d)
		if err == nil {
			continue
		}
		var absent notThere
		switch {
		case d.Origin != "":
			refused = append(refused, fmt.Errorf("%s: %s: %w", d.Origin, d, err))
		case errors.As(err, &absent):
			refused = append(refused, err) // it names what it is about
		default:
			refused = append(refused, fmt.Errorf("%s: %w", d, err))
		}
		if !onlyThis(err) {
			break
		}
	}
	return errors.Join(refused...)
}

// onlyThis reports whether an error concerns one document, so that the next may
// do better.
func onlyThis(err error) bool {
	var problem *client.Problem
	if errors.As(err, &problem) {
		return problem.Status < http.StatusInternalServerError && problem.Status != http.StatusUnauthorized
	}
	var invalid *api.Invalid
	var absent notThere
	return errors.As(err, &invalid) || errors.As(err, &absent)
}
