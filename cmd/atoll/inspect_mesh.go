package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
)

func inspectMesh(c *connection) *cobra.Command {
	return inspectNamed(c, api.Meshes, &cobra.Command{
		Use: "mesh NAME", Aliases: []string{"meshes"}, Short: "What is in a mesh, and how its proxies are",
		Example: `  atoll inspect mesh default
  atoll inspect mesh shop -o json`,
	}, (*inspection).inMesh)
}

func (i *inspection) inMesh(ctx context.Context, name string) error {
	var mesh, body json.RawMessage
	if err := i.get(ctx, api.Meshes, name, "", nil, &mesh); err != nil {
		return err
	}
	err := i.get(ctx, api.MeshInsights, name, "", nil, &body)
	if errors.As(err, &notThere{}) {
		return fmt.Errorf("mesh %s is there, but it is not counted here: ask the global control plane, or try again soon if this zone has none", name)
	}
	if err != nil {
		return err
	}
	if !i.text() {
		return i.raw(body)
	}
	var insight api.MeshInsight
	if err := json.Unmarshal(body, &insight); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	fmt.Fprintf(i.out, "mesh %s\n", name)
	g := &grid{out: i.out, indent: "  "}
	d := insight.Dataplanes
	g.row("proxies", fmt.Sprintf("%d: %d online, %d in parts, %d offline", d.Total, d.Online, d.PartiallyDegraded, d.Offline))
	versions(g, "envoy", insight.DPVersions.Envoy)
	versions(g, "keeper", insight.DPVersions.KumaDP)
	for _, kind := range slices.Sorted(maps.Keys(insight.Resources)) {
		if n := insight.Resources[kind].Total; n > 0 {
			g.row(kind, strconv.Itoa(int(n)))
		}
	}
	return g.flush()
}

func versions(g *grid, what string, by map[string]api.DataplaneStat) {
	for _, version := range slices.Sorted(maps.Keys(by)) {
		g.row(what+" "+first(version, "unknown"), strconv.Itoa(int(by[version].Total)))
	}
}
