package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func deleteCommand(c *connection) *cobra.Command {
	var (
		input   written
		mesh    string
		lenient bool
		dry     bool
		after   waiting
	)
	command := c.bind(&cobra.Command{
		Use:   "delete KIND NAME… | delete -f FILE|DIRECTORY|URL|-",
		Short: "Delete resources",
		Long: `Deletes resources by name, or those that documents name; then what refers to
others goes first. With a mesh goes what is in it; --dry-run says how much.`,
		Example: `  atoll delete meshtimeout slow
  atoll delete dataplane web-1 web-2 -m shop
  atoll delete mesh shop --dry-run
  atoll delete -f policies/ --ignore-not-found`,
	})
	c.meshFlag(command, &mesh, "mesh of the resources")
	input.bind(command, "delete what the documents name")
	command.Flags().BoolVar(&lenient, "ignore-not-found", false, "what is not there is no error")
	command.Flags().BoolVar(&dry, "dry-run", false, "delete nothing: ask the control plane what would go")
	after.bind(command)
	command.ValidArgsFunction = completeResources(c, &mesh, func(info api.Facts) bool { return !info.ReadOnly })
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		documents, err := doomed(ctx, c, &input, mesh, args, command.InOrStdin())
		if err != nil {
			return err
		}
		cl, err := after.open(c)
		if err != nil {
			return err
		}
		out := command.OutOrStdout()
		var revision uint64
		err = each(documents, func(d *document) error {
			at, also, err := deleteOne(ctx, cl, d, dry)
			switch {
			case err == nil && dry:
				did(out, d, client.Deleted+also+" (dry run)")
			case err == nil:
				revision = max(revision, at)
				did(out, d, client.Deleted)
			case errors.Is(err, client.ErrNotFound) && lenient:
				return nil
			case errors.Is(err, client.ErrNotFound):
				return missing(ctx, cl, d.Kind, d.Mesh, d.Name)
			}
			return err
		})
		if err != nil {
			return err
		}
		return after.wait(ctx, cl, revision, out, command.ErrOrStderr())
	})
	return command
}

// doomed is what is to be deleted, what refers to others first.
func doomed(ctx context.Context, c *connection, input *written, mesh string, args []string, in io.Reader) ([]document, error) {
	switch {
	case len(input.paths) > 0 && len(args) > 0:
		return nil, wrongUsage("either KIND and NAME, or -f")
	case len(input.paths) > 0:
		documents, err := input.read(ctx, in)
		slices.Reverse(documents)
		return documents, err
	case len(args) < 2:
		return nil, wrongUsage("what to delete? KIND and NAME, or -f FILE")
	}
	kind, err := kindOf(args[0])
	if err != nil {
		return nil, err
	}
	if mesh, err = c.in(mesh); err != nil {
		return nil, err
	}
	var documents []document
	for _, name := range args[1:] {
		d := document{Kind: kind, Document: api.Document{Type: kind.Info().Name, Name: name}}
		if kind.Info().Scope == api.MeshScope {
			d.Mesh = mesh
		}
		documents = append(documents, d)
	}
	return documents, nil
}

func deleteOne(ctx context.Context, cl *client.Client, d *document, dry bool) (revision uint64, also string, err error) {
	if !dry {
		revision, err = cl.Delete(ctx, d.Kind, d.Mesh, d.Name)
		return revision, "", err
	}
	tried, err := cl.TryDelete(ctx, d.Kind, d.Mesh, d.Name)
	if tried.Also > 0 {
		also = fmt.Sprintf(" with %d others that belong to it", tried.Also)
	}
	return 0, also, err
}
