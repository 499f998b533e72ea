package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// defaultMesh is where a first user's services are.
const defaultMesh = "default"

// getting is the flags of get.
type getting struct {
	mesh, output string
	all          bool
	labels       map[string]string
}

func getCommand(c *connection) *cobra.Command {
	var g getting
	command := c.bind(&cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Show resources",
		Long: `Shows one resource, or all of a kind. KIND is the plural, the singular or the short
name, in upper or lower case: meshtimeouts, MeshTimeout, mt.

` + kindList() + `

"get convergence" shows how far each zone is: which proxies have everything.
What -o yaml and -o json print can be applied again.`,
		Example: `  atoll get dataplanes
  atoll get meshtimeouts -A
  atoll get meshtimeout slow -o yaml
  atoll get dp -l app=web -m shop
  atoll get zones
  atoll get convergence`,
		Args: arguments(cobra.RangeArgs(1, 2)),
	})
	fs := command.Flags()
	fs.StringVarP(&g.mesh, "mesh", "m", defaultMesh, "mesh of the resources")
	fs.BoolVarP(&g.all, "all-meshes", "A", false, "resources of every mesh")
	fs.StringVarP(&g.output, "output", "o", "table", "table, yaml or json")
	pairs(fs, &g.labels, "label", "l", "only those with the label `k=v` (repeatable, all must match)")
	completeOutput(command)
	completeMesh(c, command)
	command.ValidArgsFunction = completeResources(c, &g.mesh, func(api.Facts) bool { return true }, "convergence")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "yaml", "json"}, g.output) {
			return wrongUsage("output %q: table, yaml or json", g.output)
		}
		if g.all && command.Flags().Changed("mesh") {
			return wrongUsage("--mesh and --all-meshes exclude each other")
		}
		p := printer{out: command.OutOrStdout(), format: g.output, now: time.Now()}
		if strings.EqualFold(args[0], "convergence") {
			if len(args) > 1 {
				return wrongUsage("convergence has no names")
			}
			cl, err := c.open()
			if err != nil {
				return err
			}
			state, err := converged(ctx, cl, 0, 0)
			if err != nil {
				return err
			}
			return p.convergence(state)
		}
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		cl, err := c.open()
		if err != nil {
			return err
		}
		if len(args) == 2 {
			if g.all || len(g.labels) > 0 {
				return wrongUsage("a name selects one resource: leave out --all-meshes and --label")
			}
			return g.one(ctx, cl, p, kind, args[1])
		}
		return g.list(ctx, cl, p, kind)
	})
	return command
}

func (g *getting) meshOf(kind api.AnyKind) string {
	if kind.Info().Scope == api.GlobalScope || g.all {
		return ""
	}
	return g.mesh
}

func (g *getting) one(ctx context.Context, cl *client.Client, p printer, kind api.AnyKind, name string) error {
	mesh := g.meshOf(kind)
	body, err := cl.Get(ctx, kind, mesh, name)
	if errors.Is(err, client.ErrNotFound) {
		return missing(ctx, cl, kind, mesh, name)
	}
	if err != nil {
		return err
	}
	if p.format != "table" {
		return p.document(body)
	}
	if hasOverview(kind) {
		// The table also shows what is known at run time.
		var rows []json.RawMessage
		for row, err := range cl.Overviews(ctx, kind, mesh, url.Values{"name": {name}}) {
			if err != nil {
				return err
			}
			var head struct{ Name string }
			if json.Unmarshal(row, &head) == nil && head.Name == name {
				rows = append(rows, row)
			}
		}
		return g.table(ctx, cl, p, kind, rows)
	}
	return p.table(kind, []json.RawMessage{body})
}

func (g *getting) list(ctx context.Context, cl *client.Client, p printer, kind api.AnyKind) error {
	query := url.Values{}
	for name, value := range g.labels {
		query.Set("filter[labels."+name+"]", value)
	}
	list := cl.List
	if p.format == "table" && hasOverview(kind) {
		list = cl.Overviews
	}
	rows := []json.RawMessage{}
	for row, err := range list(ctx, kind, g.meshOf(kind), query) {
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if p.format != "table" {
		return p.documents(rows)
	}
	return g.table(ctx, cl, p, kind, rows)
}

// table also asks how far the zones are, because a zone is not connected to
// itself and yet is there.
func (g *getting) table(ctx context.Context, cl *client.Client, p printer, kind api.AnyKind, rows []json.RawMessage) error {
	if kind.Info().Name == api.Zones.Name {
		if state, err := converged(ctx, cl, 0, 0); err == nil {
			p.zones = state.Zones
		}
	}
	return p.table(kind, rows)
}

// hasOverview: the API joins these kinds with their insights.
func hasOverview(kind api.AnyKind) bool {
	name := kind.Info().Name
	return name == api.Dataplanes.Name || name == api.Zones.Name
}

// missing says what is not there: the mesh, or the resource, and in which meshes
// the name is.
func missing(ctx context.Context, cl *client.Client, kind api.AnyKind, mesh, name string) error {
	err := fmt.Errorf("there is no %s %q", kind.Info().Name, name)
	if mesh == "" {
		return fmt.Errorf("%w; `atoll get %s` lists what there is", err, kind.Info().Plural)
	}
	if _, e := cl.Get(ctx, api.Meshes, "", mesh); errors.Is(e, client.ErrNotFound) {
		return fmt.Errorf("there is no mesh %q; `atoll get meshes` lists what there is", mesh)
	}
	var elsewhere []string
	for row, e := range cl.List(ctx, kind, "", url.Values{"name": {name}}) {
		if e != nil {
			break // the first error is the one that counts
		}
		var head struct{ Mesh, Name string }
		if json.Unmarshal(row, &head) == nil && head.Name == name {
			elsewhere = append(elsewhere, head.Mesh)
		}
	}
	if len(elsewhere) > 0 {
		return fmt.Errorf("%w in mesh %q, but there is one in %s: choose it by -m", err, mesh, strings.Join(elsewhere, ", "))
	}
	return fmt.Errorf("%w in mesh %q; `atoll get %s -A` lists what there is", err, mesh, kind.Info().Plural)
}
