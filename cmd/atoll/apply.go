package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func applyCommand(c *connection) *cobra.Command {
	var (
		files     []string
		variables map[string]string
		dry, wait bool
		patience  time.Duration
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

--wait ends when every proxy of every connected zone has acknowledged the change. It
names the zones that are not connected: they get the change when they are back.`,
		Example: `  atoll apply -f mesh.yaml
  atoll apply -f policies/ --wait --timeout 30s
  atoll apply -f timeout.yaml -v seconds=5
  atoll get meshtimeout slow -o yaml | sed s/10s/5s/ | atoll apply -f -
  atoll apply -f policies/ --dry-run`,
		Args: arguments(cobra.NoArgs),
	})
	fs := command.Flags()
	fs.StringArrayVarP(&files, "file", "f", nil, "file, directory, URL, or - for standard input (repeatable)")
	pairs(fs, &variables, "var", "v", "`name=value` for {{ name }} in the documents (repeatable)")
	fs.BoolVar(&dry, "dry-run", false, "check the documents and print them; send nothing")
	fs.BoolVar(&wait, "wait", false, "wait until every proxy has acknowledged the change")
	fs.DurationVar(&patience, "timeout", time.Minute, "how long to --wait")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if len(files) == 0 {
			return wrongUsage("what to apply? Name a file by -f, or - for standard input")
		}
		documents, err := readDocuments(ctx, files, variables, command.InOrStdin())
		if err != nil {
			return err
		}
		if dry {
			return printDocuments(command.OutOrStdout(), documents)
		}
		if wait {
			c = c.patient()
		}
		cl, err := c.open()
		if err != nil {
			return err
		}
		revision, err := apply(ctx, cl, documents, command.OutOrStdout(), command.ErrOrStderr())
		if err != nil {
			return err
		}
		if wait {
			return waitFor(ctx, cl, revision, patience, command.OutOrStdout(), command.ErrOrStderr())
		}
		return nil
	})
	return command
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

// apply sends the documents and returns the newest revision that holds them. A
// document that is refused does not keep the others back; all refusals are the
// error.
func apply(ctx context.Context, cl *client.Client, documents []document, out, errs io.Writer) (revision uint64, err error) {
	var refused []error
	for _, d := range documents {
		done, what, err := applyOne(ctx, cl, d)
		if err != nil {
			refused = append(refused, fmt.Errorf("%s: %s: %w", d.Origin, &d, err))
			if !onlyThis(err) {
				break
			}
			continue
		}
		revision = max(revision, done.Revision)
		for _, warning := range done.Warnings {
			fmt.Fprintf(errs, "Warning: %s: %s\n", &d, warning)
		}
		fmt.Fprintf(out, "resource type=%q mesh=%q name=%q %s\n", done.Kind, done.Mesh, done.Name, what)
	}
	return revision, errors.Join(refused...)
}

// applyOne also finds out whether the write changed anything: the control plane
// stamps the row only if it did.
func applyOne(ctx context.Context, cl *client.Client, d document) (done client.Applied, what string, err error) {
	before, err := modified(ctx, cl, d)
	if err != nil {
		return done, "", err
	}
	if done, err = cl.Apply(ctx, d.Body); err != nil {
		return done, "", err
	}
	if done.Created {
		return done, "Created", nil
	}
	after, err := modified(ctx, cl, d)
	if err != nil {
		return done, "", err
	}
	if !before.IsZero() && before.Equal(after) {
		return done, "Unchanged", nil
	}
	return done, "Updated", nil
}

// modified is when the resource was written last, zero if there is none.
func modified(ctx context.Context, cl *client.Client, d document) (time.Time, error) {
	var stamp struct {
		Modified time.Time `json:"modificationTime"`
	}
	body, err := cl.Get(ctx, d.Kind, d.Mesh, d.Name)
	if errors.Is(err, client.ErrNotFound) {
		return stamp.Modified, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &stamp)
	}
	return stamp.Modified, err
}

// onlyThis reports whether an error concerns one document, so that the next may
// do better.
func onlyThis(err error) bool {
	var problem *client.Problem
	if errors.As(err, &problem) {
		return problem.Status < http.StatusInternalServerError && problem.Status != http.StatusUnauthorized
	}
	var invalid *api.Invalid
	return errors.As(err, &invalid)
}
