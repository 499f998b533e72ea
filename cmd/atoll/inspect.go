package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func inspectCommand(c *connection) *cobra.Command {
	command := c.bind(&cobra.Command{
		Use:   "inspect",
		Short: "Why things are as they are",
		Long: `Shows what the control plane makes of resources: which policies a proxy follows and
where each value was written, which proxies a policy or a service is about, how a
zone is connected.`,
		Example: `  atoll inspect dataplane web-1
  atoll inspect dataplane web-1 --type config --shadow --diff
  atoll inspect policy meshtimeout slow
  atoll inspect service backend
  atoll inspect zone east`,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) > 0 {
				if kind, err := kindOf(args[0]); err == nil && kind.Info().Policy != nil {
					return wrongUsage("policies are shown by: %s policy %s NAME", command.CommandPath(), strings.ToLower(kind.Info().Name))
				}
			}
			return group(command, args)
		},
	})
	command.AddCommand(inspectDataplane(c), inspectPolicy(c), inspectService(c), inspectZone(c), inspectMesh(c))
	return command
}

// inspection is what the commands below inspect have in common: one resource,
// in a mesh or not, as text or as the API answered.
type inspection struct {
	c            *connection
	cl           *client.Client
	mesh, output string
	out          io.Writer
}

// bind adds flags; global kinds have no mesh.
func (i *inspection) bind(command *cobra.Command, scope api.Scope) {
	if scope == api.MeshScope {
		i.c.meshFlag(command, &i.mesh, "mesh of the resource")
	}
	command.Flags().StringVarP(&i.output, "output", "o", "text", "text, yaml or json")
	complete(command, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"text", "yaml", "json"}, cobra.ShellCompDirectiveNoFileComp
	})
}

// open checks the flags and connects.
func (i *inspection) open(command *cobra.Command) (err error) {
	switch i.output {
	case "text", "yaml", "json":
	default:
		return wrongUsage("output %q: text, yaml or json", i.output)
	}
	if i.mesh, err = i.c.in(i.mesh); err != nil {
		return err
	}
	i.out = command.OutOrStdout()
	i.cl, err = i.c.open()
	return err
}

// run makes what a command does: it opens, then looks.
func (i *inspection) run(look func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		if err := i.open(command); err != nil {
			return err
		}
		return look(ctx, args)
	})
}

// inspectNamed completes a command that looks at one resource of the kind, which
// its only argument names.
func inspectNamed(c *connection, kind api.AnyKind, command *cobra.Command, look func(i *inspection, ctx context.Context, name string) error) *cobra.Command {
	i := &inspection{c: c}
	i.bind(command, kind.Info().Scope)
	command.Args = arguments(cobra.ExactArgs(1))
	command.ValidArgsFunction = atMost(1, completeNames(c, kind, &i.mesh))
	command.RunE = i.run(func(ctx context.Context, args []string) error { return look(i, ctx, args[0]) })
	return command
}

// text reports whether people read it.
func (i *inspection) text() bool { return i.output == "text" }

func (i *inspection) grid() *grid { return &grid{out: i.out} }

func (i *inspection) printer() *printer {
	return newPrinter(i.out, "wide")
}

// get asks for the inspection of a resource at a path below it.
func (i *inspection) get(ctx context.Context, kind api.AnyKind, name, below string, query url.Values, into any) error {
	mesh := i.mesh
	if kind.Info().Scope == api.GlobalScope {
		mesh = ""
	}
	_, err := i.cl.Do(ctx, http.MethodGet, client.Path(kind, mesh, name)+below, query, nil, into)
	if !errors.Is(err, client.ErrNotFound) {
		return err
	}
	if _, absent := i.cl.Get(ctx, kind, mesh, name); errors.Is(absent, client.ErrNotFound) {
		return missing(ctx, i.cl, kind, mesh, name)
	}
	return fmt.Errorf("%s %s is there, but the control plane has no answer at …%s: %w", kind.Info().Name, name, below, err)
}

// raw prints what the API answered.
func (i *inspection) raw(body json.RawMessage) error {
	p := newPrinter(i.out, i.output)
	if i.text() {
		p.format = "yaml"
	}
	return p.document(body)
}

// shownMeta is a resource in the answers of inspection.
type shownMeta struct {
	Type   string            `json:"type"`
	Mesh   string            `json:"mesh"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	KRI    string            `json:"kri"`
}

// shownName is the name that a user gave it.
func (m shownMeta) shownName() string { return first(m.Labels[api.LabelDisplayName], m.Name) }

// kriName is a KRI in a few words: name:section.
func kriName(kri string) string {
	id, section, err := api.ParseKRI(kri)
	if err != nil {
		return kri
	}
	name := id.Name
	if section != "" {
		name += ":" + section
	}
	return name
}

// proxies lists the Dataplanes of a page-wise answer, with what they are now.
func (i *inspection) proxies(ctx context.Context, kind api.AnyKind, name, below string) ([]shownMeta, error) {
	var out []shownMeta
	for row, err := range i.cl.Pages(ctx, client.Path(kind, i.mesh, name)+below, nil) {
		if err != nil {
			return nil, err
		}
		var m shownMeta
		if err := json.Unmarshal(row, &m); err != nil {
			return nil, fmt.Errorf("answer of the control plane: %w", err)
		}
		out = append(out, m)
	}
	return out, nil
}

// overviews are the Dataplanes of the mesh as tables show them, by name.
func (i *inspection) overviews(ctx context.Context) (map[string]*shownRow, error) {
	out := map[string]*shownRow{}
	for row, err := range i.cl.Overviews(ctx, api.Dataplanes, i.mesh, nil) {
		if err != nil {
			return nil, err
		}
		var r shownRow
		if err := json.Unmarshal(row, &r); err != nil {
			return nil, fmt.Errorf("answer of the control plane: %w", err)
		}
		out[r.Name] = &r
	}
	return out, nil
}

// reached prints the proxies that something is about.
func (i *inspection) reached(ctx context.Context, list []shownMeta) error {
	known, err := i.overviews(ctx)
	if err != nil {
		return err
	}
	g := i.grid()
	g.row("PROXY", "ZONE", "ADDRESS", "STATUS")
	for _, m := range list {
		address, status := "", ""
		if r := known[m.Name]; r != nil {
			address, status = r.Dataplane.Networking.Address, r.proxyStatus()
		}
		g.row(m.Name, m.Labels[api.LabelZone], address, status)
	}
	return g.flush()
}
