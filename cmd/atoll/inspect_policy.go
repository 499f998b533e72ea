package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func inspectPolicy(c *connection) *cobra.Command {
	i := inspection{c: c}
	command := &cobra.Command{
		Use: "policy KIND NAME", Short: "Which proxies a policy is about",
		Example: `  atoll inspect policy meshtimeout slow
  atoll inspect policy mtp allow-web -m shop -o json`,
		Args: arguments(cobra.ExactArgs(2)),
	}
	i.bind(command, api.MeshScope)
	isPolicy := func(info api.Facts) bool { return info.Policy != nil }
	command.ValidArgsFunction = atMost(2, completeResources(c, &i.mesh, isPolicy))
	command.RunE = i.run(func(ctx context.Context, args []string) error {
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Info().Policy == nil {
			return wrongUsage("%s is no policy; `atoll inspect --help` shows what else can be looked at", kind.Info().Name)
		}
		return i.policy(ctx, kind, args[1])
	})
	return command
}

func (i *inspection) policy(ctx context.Context, kind api.AnyKind, name string) error {
	var document json.RawMessage
	if err := i.get(ctx, kind, name, "", nil, &document); err != nil {
		return err
	}
	const below = "/_resources/dataplanes"
	first, err := i.cl.Page(ctx, client.Path(kind, i.mesh, name)+below, url.Values{"size": {"1"}})
	if err != nil {
		return err
	}
	list, err := i.proxies(ctx, kind, name, below)
	if err != nil {
		return err
	}
	if !i.text() {
		body := map[string]any{"total": len(list), "items": list}
		if len(first.Warnings) > 0 {
			body["warnings"] = first.Warnings
		}
		return i.value(body)
	}
	var r shownRow
	if err := json.Unmarshal(document, &r); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	fmt.Fprintf(i.out, "%s %s is about proxies of %s: %d\n", kind.Info().Name, name, refText(specOf[policyShape](&r).TargetRef), len(list))
	if r.Labels[api.LabelEffect] == "shadow" {
		fmt.Fprintln(i.out, "It is marked as shadow: proxies do not follow it.")
	}
	for _, warning := range first.Warnings {
		fmt.Fprintln(i.out, "Warning:", warning)
	}
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(i.out)
	return i.reached(ctx, list)
}

// value prints what is not a single answer of the API.
func (i *inspection) value(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return i.raw(body)
}
