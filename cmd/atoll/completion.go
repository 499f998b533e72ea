package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Completion for your shell",
		Long: "Prints a script that completes commands, flags, kinds and names of resources.",
		Example: `  source <(atoll completion bash)
  atoll completion zsh > "${fpath[1]}/_atoll"
  atoll completion fish > ~/.config/fish/completions/atoll.fish
  atoll completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      arguments(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(command *cobra.Command, args []string) error {
			root, out := command.Root(), command.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(out)
			}
		},
	}
}

// completion is what cobra calls for the words of an argument.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeResources completes KIND and then names, which the control plane is
// asked for. If it does not answer soon there are none.
func completeResources(c *connection, mesh *string, include func(api.Facts) bool, more ...string) completion {
	return func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			words := more
			for _, info := range shownKinds() {
				if include(info) {
					words = append(words, info.Plural)
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := kindOf(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeNames(c, kind, mesh)(command, args[1:], typed)
	}
}

// completeNames completes names of resources of the kind that were not given yet.
func completeNames(c *connection, kind api.AnyKind, mesh *string) completion {
	return func(command *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		in := ""
		if kind.Info().Scope == api.MeshScope {
			var err error
			if in, err = c.in(*mesh); err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
		}
		return names(command.Context(), c, kind, in, typed, given), cobra.ShellCompDirectiveNoFileComp
	}
}

// atMost ends completion after so many arguments.
func atMost(n int, with completion) completion {
	return func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return with(command, args, typed)
	}
}

// maxCompletions bounds what a shell is given.
const maxCompletions = 200

func names(ctx context.Context, c *connection, kind api.AnyKind, mesh, typed string, without []string) []string {
	cl, err := c.quick()
	if err != nil {
		return nil
	}
	skip := map[string]bool{}
	for _, name := range without {
		skip[name] = true
	}
	var out []string
	for row, err := range cl.List(ctx, kind, mesh, url.Values{"name": {typed}}) {
		var head struct{ Name string }
		if err != nil || json.Unmarshal(row, &head) != nil || len(out) == maxCompletions {
			break
		}
		if strings.HasPrefix(head.Name, typed) && !skip[head.Name] {
			out = append(out, head.Name)
		}
	}
	return out
}

func completeMesh(c *connection, command *cobra.Command) {
	complete(command, "mesh", func(command *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return names(command.Context(), c, api.Meshes, "", typed, nil), cobra.ShellCompDirectiveNoFileComp
	})
}

func completeOutput(command *cobra.Command) {
	complete(command, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return outputs, cobra.ShellCompDirectiveNoFileComp
	})
}

func complete(command *cobra.Command, flag string, with completion) {
	if err := command.RegisterFlagCompletionFunc(flag, with); err != nil {
		panic(err) // the flag was added before
	}
}
