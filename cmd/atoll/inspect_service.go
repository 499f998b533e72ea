package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// serviceKinds are what can be called by name.
var serviceKinds = []api.AnyKind{api.MeshServices, api.MeshMultiZoneServices, api.MeshExternalServices}

func inspectService(c *connection) *cobra.Command {
	return inspectNamed(c, api.MeshServices, &cobra.Command{
		Use: "service NAME", Aliases: []string{"svc"}, Short: "How a service is called, and what is behind it",
		Long: `Shows the ports and the host names of a MeshService, MeshMultiZoneService or
MeshExternalService, and what is behind it: proxies with their endpoints, services
of zones, or addresses.`,
		Example: `  atoll inspect service backend
  atoll inspect service backend -m shop -o yaml`,
	}, (*inspection).services)
}

// services looks at all services of a name: one of each kind can have it.
func (i *inspection) services(ctx context.Context, name string) error {
	found := false
	for _, kind := range serviceKinds {
		body, err := i.cl.Get(ctx, kind, i.mesh, name)
		if errors.Is(err, client.ErrNotFound) {
			continue
		}
		if err == nil {
			err = i.service(ctx, kind, name, body, found)
		}
		if err != nil {
			return err
		}
		found = true
	}
	if !found {
		return missing(ctx, i.cl, api.MeshServices, i.mesh, name)
	}
	return nil
}

// shownHostname is a name of a service, and where it is known.
type shownHostname struct {
	Hostname string `json:"hostname"`
	Zones    []struct {
		Name string `json:"name"`
	} `json:"zones"`
}

// service prints one service; another one of the name may have come before.
func (i *inspection) service(ctx context.Context, kind api.AnyKind, name string, body json.RawMessage, another bool) error {
	var hosts struct {
		Items []shownHostname `json:"items"`
	}
	if err := i.get(ctx, kind, name, "/_hostnames", nil, &hosts); err != nil {
		return err
	}
	var behind []shownMeta
	var err error
	if kind.Info().Name == api.MeshServices.Name {
		if behind, err = i.proxies(ctx, kind, name, "/_dataplanes"); err != nil {
			return err
		}
	}
	if !i.text() {
		if another && i.output == "yaml" {
			fmt.Fprintln(i.out, "---")
		}
		return i.value(map[string]any{"service": body, "hostnames": hosts.Items, "dataplanes": behind})
	}
	var r shownRow
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	if another {
		fmt.Fprintln(i.out)
	}
	fmt.Fprintf(i.out, "%s %s in mesh %s", kind.Info().Name, name, i.mesh)
	if zone := r.Labels[api.LabelZone]; zone != "" {
		fmt.Fprintf(i.out, ", of zone %s", zone)
	}
	fmt.Fprintln(i.out)
	g := grid{out: i.out, indent: "  "}
	for _, column := range ownColumns(kind.Info()) {
		if text := column.cell(i.printer(), &r); text != "" {
			g.row(strings.ToLower(column.header), text)
		}
	}
	if len(hosts.Items) == 0 {
		g.row("hostnames", "none: no HostnameGenerator selects it")
	}
	for n, host := range hosts.Items {
		title := ""
		if n == 0 {
			title = "hostnames"
		}
		var zones []string
		for _, z := range host.Zones {
			zones = append(zones, z.Name)
		}
		g.row(title, host.Hostname+" in "+strings.Join(zones, ", "))
	}
	if err := g.flush(); err != nil {
		return err
	}
	if kind.Info().Name != api.MeshServices.Name {
		return nil
	}
	fmt.Fprintln(i.out)
	if len(behind) == 0 {
		fmt.Fprintln(i.out, i.nobody(&r))
		return nil
	}
	return i.endpoints(ctx, specOf[api.MeshService](&r), behind)
}

// nobody says why there are no proxies.
func (i *inspection) nobody(r *shownRow) string {
	if r.Labels[api.LabelOrigin] == api.OriginGlobal || r.Status.Proxies == nil {
		return "Its proxies are known in its zone only."
	}
	return "No Dataplane has the labels that it selects; `atoll get dataplanes` shows theirs."
}

// endpoints prints where the ports of the service lead.
func (i *inspection) endpoints(ctx context.Context, service api.MeshService, behind []shownMeta) error {
	known, err := i.overviews(ctx)
	if err != nil {
		return err
	}
	g := i.grid()
	g.row("PROXY", "PORT", "ENDPOINT", "READY", "STATUS")
	for _, m := range behind {
		body, err := i.cl.Get(ctx, api.Dataplanes, i.mesh, m.Name)
		if err != nil {
			return err
		}
		var dp api.Dataplane
		if err := json.Unmarshal(body, &dp); err != nil {
			return fmt.Errorf("answer of the control plane: %w", err)
		}
		status := ""
		if r := known[m.Name]; r != nil {
			status = r.proxyStatus()
		}
		for _, port := range service.Ports {
			for _, in := range dp.Networking.Inbound {
				if port.Targets(in) {
					address := first(in.Address, dp.Networking.Address) + ":" + strconv.Itoa(int(in.Port))
					g.row(m.Name, port.Section(), address, map[bool]string{true: "yes", false: "no"}[in.Healthy()], status)
				}
			}
		}
	}
	return g.flush()
}
