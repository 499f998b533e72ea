package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/openapi"
)

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain KIND[.FIELD]", Short: "What a kind or one of its fields means",
		Long: `Says what a kind is for and what its fields take: type, limits, default, meaning.
It needs no control plane. A field is named as in a document; places in lists may
be left out.`,
		Example: `  atoll explain meshtimeout
  atoll explain meshtimeout.spec.to.default.http
  atoll explain dataplane.networking.inbound`,
		Args: arguments(cobra.ExactArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeField(typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(command *cobra.Command, args []string) error {
			name, path, _ := strings.Cut(args[0], ".")
			k, err := kindOf(name)
			if err != nil {
				return err
			}
			return explain(command.OutOrStdout(), k, path)
		},
	}
}

// explain describes the kind, or the field at the path in its documents.
func explain(out io.Writer, k api.AnyKind, path string) error {
	f := api.Field{Name: k.Info().Name, Doc: k.Shape().Doc, Shape: openapi.Written(k)}
	at := k.Info().Name
	for name := range strings.SplitSeq(strings.TrimSuffix(path, "."), ".") {
		if name, _, _ = strings.Cut(name, "["); name == "" {
			continue
		}
		inner := openapi.Inner(f.Shape)
		next, ok := inner.Field(name)
		if !ok {
			return fmt.Errorf("%s has no field %q%s", at, name, inner.Suggest(name))
		}
		f, at = next, at+"."+next.Name
	}
	fmt.Fprintf(out, "%s: %s\n", at, openapi.Takes(f))
	inner := openapi.Inner(f.Shape)
	for _, text := range []string{f.Doc, inner.Doc} {
		if text != "" {
			fmt.Fprintf(out, "\n%s\n", text)
		}
		if f.Doc == inner.Doc {
			break
		}
	}
	if len(inner.Fields) == 0 {
		return nil
	}
	fmt.Fprint(out, "\nFields:\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range inner.Fields {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", f.Name, openapi.Takes(f), strings.ReplaceAll(f.Doc, "\n", " "))
	}
	return w.Flush()
}

// completeField completes KIND, then one field after another.
func completeField(typed string) []string {
	name, path, dotted := strings.Cut(typed, ".")
	if !dotted {
		var out []string
		for _, info := range shownKinds() {
			out = append(out, strings.ToLower(info.Name))
		}
		return out
	}
	k, err := kindOf(name)
	if err != nil {
		return nil
	}
	shape, prefix := openapi.Written(k), name+"."
	for {
		field, rest, more := strings.Cut(path, ".")
		if !more {
			break
		}
		next, ok := shape.Field(field)
		if !ok {
			return nil
		}
		shape, path, prefix = openapi.Inner(next.Shape), rest, prefix+field+"."
	}
	var out []string
	for _, f := range shape.Fields {
		out = append(out, prefix+f.Name)
	}
	return out
}
