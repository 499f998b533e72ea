package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func deleteCommand(c *connection) *cobra.Command {
	var (
		files     []string
		variables map[string]string
		mesh      string
		lenient   bool
		wait      bool
		patience  time.Duration
	)
	command := c.bind(&cobra.Command{
		Use:   "delete KIND NAME… | delete -f FILE|DIRECTORY|URL|-",
		Short: "Delete resources",
		Long: `Deletes resources by name, or those that documents name; then what refers to
others goes first.`,
		Example: `  atoll delete meshtimeout slow
  atoll delete dataplane web-1 web-2 -m shop
  atoll delete -f policies/ --ignore-not-found`,
	})
	fs := command.Flags()
	fs.StringVarP(&mesh, "mesh", "m", defaultMesh, "mesh of the resources")
	fs.StringArrayVarP(&files, "file", "f", nil, "delete what the documents name (repeatable)")
	pairs(fs, &variables, "var", "v", "`name=value` for {{ name }} in the documents (repeatable)")
	fs.BoolVar(&lenient, "ignore-not-found", false, "what is not there is no error")
	fs.BoolVar(&wait, "wait", false, "wait until every proxy has acknowledged the change")
	fs.DurationVar(&patience, "timeout", time.Minute, "how long to --wait")
	completeMesh(c, command)
	command.ValidArgsFunction = completeResources(c, &mesh, func(info api.Facts) bool { return !info.ReadOnly })
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		var documents []document
		switch {
		case len(files) > 0 && len(args) > 0:
			return wrongUsage("either KIND and NAME, or -f")
		case len(files) > 0:
			read, err := readDocuments(ctx, files, variables, command.InOrStdin())
			if err != nil {
				return err
			}
			slices.Reverse(read)
			documents = read
		case len(args) < 2:
			return wrongUsage("what to delete? KIND and NAME, or -f FILE")
		default:
			kind, err := kindOf(args[0])
			if err != nil {
				return err
			}
			for _, name := range args[1:] {
				d := document{Kind: kind, Document: api.Document{Type: kind.Info().Name, Name: name}}
				if kind.Info().Scope == api.MeshScope {
					d.Mesh = mesh
				}
				documents = append(documents, d)
			}
		}
		if wait {
			c = c.patient()
		}
		cl, err := c.open()
		if err != nil {
			return err
		}
		var revision uint64
		var failed []error
		for _, d := range documents {
			at, err := cl.Delete(ctx, d.Kind, d.Mesh, d.Name)
			switch {
			case err == nil:
				revision = max(revision, at)
				fmt.Fprintf(command.OutOrStdout(), "resource type=%q mesh=%q name=%q Deleted\n", d.Type, d.Mesh, d.Name)
			case errors.Is(err, client.ErrNotFound) && lenient:
			case errors.Is(err, client.ErrNotFound):
				failed = append(failed, missing(ctx, cl, d.Kind, d.Mesh, d.Name))
			default:
				failed = append(failed, fmt.Errorf("%s: %w", &d, err))
			}
			if err != nil && !onlyThis(err) {
				break
			}
		}
		if len(failed) > 0 {
			return errors.Join(failed...)
		}
		if wait && revision > 0 {
			return waitFor(ctx, cl, revision, patience, command.OutOrStdout(), command.ErrOrStderr())
		}
		return nil
	})
	return command
}
