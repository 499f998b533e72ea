package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
)

func inspectZone(c *connection) *cobra.Command {
	return inspectNamed(c, api.Zones, &cobra.Command{
		Use: "zone NAME", Aliases: []string{"zones"}, Short: "How a zone is connected, and how far it is behind",
		Example: `  atoll inspect zone east
  atoll inspect zone east -o yaml`,
	}, (*inspection).zone)
}

func (i *inspection) zone(ctx context.Context, name string) error {
	var body json.RawMessage
	if err := i.get(ctx, api.Zones, name, "/_overview", nil, &body); err != nil {
		return err
	}
	reach, err := converged(ctx, i.cl, 0, 0)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	var own *server.ZoneReach
	for n := range reach.Zones {
		if reach.Zones[n].Zone == name {
			own = &reach.Zones[n]
		}
	}
	if !i.text() {
		return i.value(map[string]any{"zone": body, "convergence": own})
	}
	var r shownRow
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	p := i.printer()
	p.zones = reach.Zones
	fmt.Fprintf(i.out, "zone %s\n", name)
	g := &grid{out: i.out, indent: "  "}
	g.row("status", p.zoneStatus(&r))
	g.row("last seen", p.lastSeen(&r))
	if version := r.zoneVersion(); version != "" {
		g.row("version", version)
	}
	lag(g, own, reach)
	if err := g.flush(); err != nil {
		return err
	}
	if err := i.connections(p, &r); err != nil {
		return err
	}
	return i.troubles(r.ZoneInsight.Conditions, r.ZoneInsight.Rejected)
}

// lag is how far the zone is behind the control plane that is asked.
func lag(g *grid, own *server.ZoneReach, all server.Reach) {
	if own == nil {
		g.row("convergence", "nothing was heard of its proxies yet")
		return
	}
	switch {
	case own.Epoch != all.Epoch:
		g.row("convergence", "it has nothing of this history yet")
	case own.Enforced >= all.Revision:
		g.row("convergence", fmt.Sprintf("revision %d, the newest, is in force", own.Enforced))
	default:
		g.row("convergence", fmt.Sprintf("revision %d is in force, %d behind the newest, %d", own.Enforced, all.Revision-own.Enforced, all.Revision))
	}
	g.row("proxies", fmt.Sprintf("%d, %d behind, %d refuse something", own.Proxies, own.Behind, own.Rejected))
	for _, l := range own.Laggards {
		g.row("", fmt.Sprintf("%s/%s: %s", l.Mesh, l.Name, l.Reason))
	}
}

// connections are those of now and of before, the newest first.
func (i *inspection) connections(p *printer, r *shownRow) error {
	subscriptions := r.ZoneInsight.Subscriptions
	if len(subscriptions) == 0 {
		return nil
	}
	fmt.Fprintln(i.out)
	g := i.grid()
	g.row("CONNECTED", "ENDED", "AT INSTANCE", "OF INSTANCE", "SENT", "ACKNOWLEDGED", "REJECTED")
	for n := len(subscriptions) - 1; n >= 0; n-- {
		s := subscriptions[n]
		began, ended := "", "open"
		if s.ConnectTime != nil {
			began = p.age(*s.ConnectTime) + " ago"
		}
		if s.DisconnectTime != nil {
			ended = p.age(*s.DisconnectTime) + " ago"
		}
		total := s.Status.Total
		g.row(began, ended, s.GlobalInstanceID, s.ZoneInstanceID, count(total.ResponsesSent), count(total.ResponsesAcknowledged), count(total.ResponsesRejected))
	}
	return g.flush()
}

func count(n api.Uint64) string { return strconv.FormatUint(uint64(n), 10) }

// troubles are what does not hold, and what was not taken.
func (i *inspection) troubles(conditions []api.Condition, rejected []api.RejectedResource) error {
	g := i.grid()
	for _, c := range conditions {
		g.row("condition", c.Type+"="+c.Status, c.Reason, c.Message)
	}
	for _, r := range rejected {
		g.row("rejected", r.Type+" "+r.Name, r.Reason)
	}
	if len(g.rows) > 0 {
		fmt.Fprintln(i.out)
	}
	return g.flush()
}
