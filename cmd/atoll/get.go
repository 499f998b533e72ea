package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// getting is the flags of get.
type getting struct {
	mesh, output string
	all, watch   bool
	labels       map[string]string
	size, offset int
}

func getCommand(c *connection) *cobra.Command {
	var g getting
	command := c.bind(&cobra.Command{
		Use:   "get KIND [NAME…]",
		Short: "Show resources",
		Long: `Shows resources by name, or all of a kind. KIND is the plural, the singular or the
short name, in upper or lower case: meshtimeouts, MeshTimeout, mt.

` + kindList() + `

"get convergence" shows how far each zone is: which proxies have everything.
What -o yaml and -o json print can be applied again. --watch goes on with what
changes, also when the control plane was away.`,
		Example: `  atoll get dataplanes
  atoll get meshtimeouts -A -o wide
  atoll get meshtimeout slow fast -o yaml
  atoll get dp -l app=web -m shop --watch
  atoll get zones
  atoll get convergence`,
		Args: arguments(cobra.MinimumNArgs(1)),
	})
	fs := command.Flags()
	c.meshFlag(command, &g.mesh, "mesh of the resources")
	fs.BoolVarP(&g.all, "all-meshes", "A", false, "resources of every mesh")
	fs.StringVarP(&g.output, "output", "o", "table", "table, wide, yaml or json")
	pairs(fs, &g.labels, "label", "l", "only those with the label `k=v` (repeatable, all must match)")
	fs.IntVar(&g.size, "size", 0, "at most so many, up to 1000 (default: all)")
	fs.IntVar(&g.offset, "offset", 0, "leave out so many before the first, with --size")
	fs.BoolVarP(&g.watch, "watch", "w", false, "go on with what changes")
	completeOutput(command)
	command.ValidArgsFunction = completeResources(c, &g.mesh, func(api.Facts) bool { return true }, "convergence")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		if err := g.check(command, args); err != nil {
			return err
		}
		p := newPrinter(command.OutOrStdout(), g.output)
		if strings.EqualFold(args[0], "convergence") {
			return getConvergence(ctx, c, p)
		}
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if g.mesh, err = c.in(g.mesh); err != nil {
			return err
		}
		cl, err := c.open()
		if err != nil {
			return err
		}
		switch names := args[1:]; {
		case g.watch:
			return g.follow(ctx, cl, p, kind, names, command.ErrOrStderr())
		case len(names) > 0:
			return g.named(ctx, cl, p, kind, names)
		default:
			return g.list(ctx, cl, p, kind)
		}
	})
	return command
}

// check finds faults of usage.
func (g *getting) check(command *cobra.Command, args []string) error {
	changed := command.Flags().Changed
	switch {
	case !slices.Contains(outputs, g.output):
		return wrongUsage("output %q: %s", g.output, strings.Join(outputs, ", "))
	case g.all && changed("mesh"):
		return wrongUsage("--mesh and --all-meshes exclude each other")
	case len(args) > 1 && (g.all || len(g.labels) > 0 || changed("size")):
		return wrongUsage("names select resources: leave out --all-meshes, --label and --size")
	case len(args) > 1 && strings.EqualFold(args[0], "convergence"):
		return wrongUsage("convergence has no names")
	case g.size < 0 || g.offset < 0:
		return wrongUsage("--size and --offset count: 0 or more")
	case changed("offset") && g.size == 0:
		return wrongUsage("--offset needs --size")
	case g.watch && (changed("size") || strings.EqualFold(args[0], "convergence")):
		return wrongUsage("--watch is about resources, all or by name: leave out --size and --offset")
	}
	return nil
}

func getConvergence(ctx context.Context, c *connection, p *printer) error {
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

func (g *getting) meshOf(kind api.AnyKind) string {
	if kind.Info().Scope == api.GlobalScope || g.all {
		return ""
	}
	return g.mesh
}

// path is that of the list, with what is known at run time if tables show it.
func (g *getting) path(p *printer, kind api.AnyKind) string {
	path := client.Path(kind, g.meshOf(kind), "")
	if p.tables() && hasOverview(kind) {
		path += "/_overview"
	}
	return path
}

// named shows the resources of the names. Those that are not there are the
// error, after the others.
func (g *getting) named(ctx context.Context, cl *client.Client, p *printer, kind api.AnyKind, names []string) error {
	mesh, suffix := g.meshOf(kind), ""
	if p.tables() && hasOverview(kind) {
		suffix = "/_overview"
	}
	var rows []json.RawMessage
	var absent []error
	for _, name := range names {
		var row json.RawMessage
		_, err := cl.Do(ctx, "GET", client.Path(kind, mesh, name)+suffix, nil, nil, &row)
		switch {
		case errors.Is(err, client.ErrNotFound):
			absent = append(absent, missing(ctx, cl, kind, mesh, name))
		case err != nil:
			return err
		default:
			rows = append(rows, row)
		}
	}
	if len(rows) > 0 {
		if err := g.show(ctx, cl, p, kind, rows, len(names) == 1); err != nil {
			return err
		}
	}
	return errors.Join(absent...)
}

func (g *getting) query() url.Values {
	query := url.Values{}
	for name, value := range g.labels {
		query.Set("filter[labels."+name+"]", value)
	}
	return query
}

func (g *getting) list(ctx context.Context, cl *client.Client, p *printer, kind api.AnyKind) error {
	query, path := g.query(), g.path(p, kind)
	if g.size > 0 {
		query.Set("size", strconv.Itoa(g.size))
		query.Set("offset", strconv.Itoa(g.offset))
		page, err := cl.Page(ctx, path, query)
		if err != nil {
			return err
		}
		if err := g.show(ctx, cl, p, kind, page.Items, false); err != nil {
			return err
		}
		if page.Next != nil && p.tables() {
			fmt.Fprintf(p.out, "\n%d of %d; --offset %d shows what follows\n", len(page.Items), page.Total, g.offset+len(page.Items))
		}
		return nil
	}
	rows := []json.RawMessage{}
	for row, err := range cl.Pages(ctx, path, query) {
		if errors.Is(err, client.ErrNotFound) && g.meshOf(kind) != "" {
			return missing(ctx, cl, kind, g.mesh, "")
		}
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return g.show(ctx, cl, p, kind, rows, false)
}

// show prints resources; a single one that was asked for is no list.
func (g *getting) show(ctx context.Context, cl *client.Client, p *printer, kind api.AnyKind, rows []json.RawMessage, single bool) error {
	switch {
	case p.tables():
		p.reach(ctx, cl, kind)
		return p.table(kind, rows)
	case single:
		return p.document(rows[0])
	}
	return p.documents(rows)
}

// reach asks how far the zones are, because a zone is not connected to itself
// and yet is there.
func (p *printer) reach(ctx context.Context, cl *client.Client, kind api.AnyKind) {
	if kind.Info().Name != api.Zones.Name {
		return
	}
	if state, err := converged(ctx, cl, 0, 0); err == nil { // else what the insights say
		p.zones = state.Zones
	}
}

// hasOverview: the API joins these kinds with their insights.
func hasOverview(kind api.AnyKind) bool {
	name := kind.Info().Name
	return name == api.Dataplanes.Name || name == api.Zones.Name
}

// follow shows what there is, and then each change.
func (g *getting) follow(ctx context.Context, cl *client.Client, p *printer, kind api.AnyKind, names []string, errs io.Writer) error {
	f := follower{printer: p, kind: kind, names: names, has: map[string]string{}}
	for event, err := range cl.Watch(ctx, g.path(p, kind), g.query()) {
		if errors.Is(err, client.ErrNotFound) && g.meshOf(kind) != "" {
			return missing(ctx, cl, kind, g.mesh, "")
		}
		if err != nil {
			return err
		}
		if event.Type == client.Lost {
			fmt.Fprintf(errs, "lost the control plane (%v); it goes on when it is back\n", event.Reason)
			continue
		}
		p.now = time.Now()
		p.reach(ctx, cl, kind)
		if err := f.tell(event); err != nil {
			return err
		}
	}
	return nil
}
