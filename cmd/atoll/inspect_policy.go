package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
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
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, args []string) error {
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Info().Policy == nil {
			return wrongUsage("%s is no policy; `atoll inspect --help` shows what else can be looked at", kind.Info().Name)
		}
		if err := i.open(command); err != nil {
			return err
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
	list, err := i.proxies(ctx, kind, name, "/_resources/dataplanes")
	if err != nil {
		return err
	}
	if !i.text() {
		return i.value(map[string]any{"total": len(list), "items": list})
	}
	var r shownRow
	if err := json.Unmarshal(document, &r); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	fmt.Fprintf(i.out, "%s %s is about proxies of %s: %d\n", kind.Info().Name, name, refText(specOf[policyShape](&r).TargetRef), len(list))
	if r.Labels[api.LabelEffect] == "shadow" {
		fmt.Fprintln(i.out, "It is marked as shadow: proxies do not follow it.")
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
