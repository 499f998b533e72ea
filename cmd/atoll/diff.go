package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func diffCommand(c *connection) *cobra.Command {
	var input written
	var colour string
	command := c.bind(&cobra.Command{
		Use:   "diff -f FILE|DIRECTORY|URL|-",
		Short: "What apply would change",
		Long: `Shows, as a unified diff of YAML, what apply would change: what is stored, and what
would be stored. The control plane judges the documents as it does when they are
applied; nothing is written.

The exit code is 0 without a difference, 1 with one, 2 after an error.`,
		Example: `  atoll diff -f policies/
  atoll diff -f timeout.yaml -v seconds=5
  atoll get mt slow -o yaml | sed s/10s/5s/ | atoll diff -f -`,
		Args: arguments(cobra.NoArgs),
	})
	input.bind(command, "compare the documents of it")
	command.Flags().StringVar(&colour, "color", "auto", "auto (on terminals), always or never")
	complete(command, "color", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp
	})
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if len(input.paths) == 0 {
			return wrongUsage("what to compare? Name a file by -f, or - for standard input")
		}
		d := differ{out: command.OutOrStdout(), made: map[string]bool{}}
		switch colour {
		case "auto":
			d.colour = onTerminal(d.out) && os.Getenv("NO_COLOR") == ""
		case "always", "never":
			d.colour = colour == "always"
		default:
			return wrongUsage("--color %q: auto, always or never", colour)
		}
		documents, err := input.read(ctx, command.InOrStdin())
		if err != nil {
			return exitStatus{exitTrouble, err}
		}
		if d.cl, err = c.open(); err != nil {
			return exitStatus{exitTrouble, err}
		}
		err = each(documents, func(one *document) error { return d.one(ctx, one) })
		switch {
		case errors.Is(err, context.Canceled):
			return err
		case err != nil:
			return exitStatus{exitTrouble, err}
		case d.found:
			return exitStatus{code: exitDiffers}
		}
		return nil
	})
	return command
}

// Exit codes of diff.
const (
	exitDiffers = 1
	exitTrouble = 2
)

func onTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// differ compares documents with what is stored.
type differ struct {
	cl     *client.Client
	out    io.Writer
	colour bool
	made   map[string]bool // meshes that documents before would create
	found  bool            // a difference
}

func (d *differ) one(ctx context.Context, doc *document) error {
	tried, err := d.cl.TryApply(ctx, doc.Body)
	if d.made[doc.Mesh] && errors.Is(err, client.ErrNotFound) {
		// Its mesh would be there by then: nothing is stored under the name.
		tried, err = client.Trial{Result: client.Created, Document: doc.Body}, nil
	}
	if err != nil || tried.Result == client.Unchanged {
		return err
	}
	stored := ""
	if tried.Result == client.Created {
		if doc.Kind.Info().Name == api.Meshes.Name {
			d.made[doc.Name] = true
		}
	} else {
		body, err := d.cl.Get(ctx, doc.Kind, doc.Mesh, doc.Name)
		if err != nil {
			return err
		}
		if stored, err = normal(body); err != nil {
			return err
		}
	}
	if tried.Document == nil {
		tried.Document = doc.Body // whoever may not read is shown what they wrote
	}
	next, err := normal(tried.Document)
	if err != nil || next == stored {
		return err // written anew, with the same meaning
	}
	d.found = true
	return d.print(udiff.Unified("stored: "+doc.String(), doc.Origin, stored, next))
}

// print shows a diff, on terminals in the usual colours.
func (d *differ) print(text string) error {
	if !d.colour {
		_, err := io.WriteString(d.out, text)
		return err
	}
	for line := range strings.Lines(text) {
		colour := ""
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
			colour = "\x1b[1m"
		case strings.HasPrefix(line, "@@"):
			colour = "\x1b[36m"
		case strings.HasPrefix(line, "-"):
			colour = "\x1b[31m"
		case strings.HasPrefix(line, "+"):
			colour = "\x1b[32m"
		}
		if colour != "" {
			line = colour + strings.TrimSuffix(line, "\n") + "\x1b[0m\n"
		}
		if _, err := fmt.Fprint(d.out, line); err != nil {
			return err
		}
	}
	return nil
}
