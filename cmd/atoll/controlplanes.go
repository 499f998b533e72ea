package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// planes is the file with the user's control planes.
type planes struct {
	Current       string  `json:"current,omitempty"`
	ControlPlanes []plane `json:"controlPlanes"`
}

// plane is one of them.
type plane struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Token, or the file that holds it.
	Token      string `json:"token,omitempty"`
	TokenFile  string `json:"tokenFile,omitempty"`
	CAFile     string `json:"caFile,omitempty"`
	SkipVerify bool   `json:"skipVerify,omitempty"`
	// Mesh that commands are about which name none; empty: default.
	Mesh string `json:"mesh,omitempty"`
}

func (c *connection) planesFile() string {
	if path := first(c.configFile, os.Getenv("ATOLL_CONFIG_FILE")); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".atoll", "config")
}

// controlPlanes are the names, for completion.
func (c *connection) controlPlanes() []string {
	known, err := loadPlanes(c.planesFile())
	if err != nil {
		return nil
	}
	return known.names()
}

func (p planes) names() []string {
	names := make([]string, 0, len(p.ControlPlanes))
	for _, one := range p.ControlPlanes {
		names = append(names, one.Name)
	}
	return names
}

// put adds the control plane, or replaces that of the name.
func (p *planes) put(added plane, overwrite bool) error {
	i := slices.IndexFunc(p.ControlPlanes, func(one plane) bool { return one.Name == added.Name })
	switch {
	case i < 0:
		p.ControlPlanes = append(p.ControlPlanes, added)
	case overwrite:
		p.ControlPlanes[i] = added
	default:
		return fmt.Errorf("there is a control plane %q already: --overwrite replaces it", added.Name)
	}
	return nil
}

// loadPlanes reads the file; there need not be one.
func loadPlanes(path string) (planes, error) {
	var known planes
	body, err := os.ReadFile(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return known, fmt.Errorf("control planes: %w", err)
	}
	if err := yaml.UnmarshalStrict(body, &known); err != nil {
		return known, fmt.Errorf("control planes: %s: %w", path, err)
	}
	return known, nil
}

// save replaces the file as a whole, readable by its owner only: it may hold tokens.
func (p planes) save(path string) error {
	if path == "" {
		return fmt.Errorf("control planes: there is no home directory; name a file by --config-file")
	}
	body, err := yaml.Marshal(p)
	if err != nil {
		return fmt.Errorf("control planes: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("control planes: %w", err)
	}
	// A file of its own per writer; it has mode 0600.
	next, err := os.CreateTemp(filepath.Dir(path), ".config-*")
	if err != nil {
		return fmt.Errorf("control planes: %w", err)
	}
	defer os.Remove(next.Name()) // gone already when all went well
	_, err = next.Write(body)
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("control planes: %w", err)
	}
	return nil
}

// find returns the named control plane, or the current one if name is empty and
// there is one.
func (p planes) find(name string) (plane, bool, error) {
	wanted := first(name, p.Current)
	if wanted == "" {
		return plane{}, false, nil
	}
	i := slices.IndexFunc(p.ControlPlanes, func(one plane) bool { return one.Name == wanted })
	if i < 0 {
		near := ""
		if found := api.Nearest(wanted, p.names()); found != "" {
			near = fmt.Sprintf("; did you mean %q?", found)
		}
		return plane{}, false, fmt.Errorf("there is no control plane %q%s; `atoll config control-planes list` shows those that are known", wanted, near)
	}
	return p.ControlPlanes[i], true, nil
}

func configCommand(c *connection) *cobra.Command {
	config := c.bind(&cobra.Command{
		Use:   "config",
		Short: "The control planes that this command line knows",
		Long: `Keeps names for control planes in ~/.atoll/config, with the token, the authority and
the usual mesh of each.`,
		Example: `  atoll config control-planes add --name prod --address https://global.example:5681 --token-file ~/prod.token
  atoll config control-planes list
  atoll config control-planes use prod
  atoll config import
  atoll get zones`,
		RunE: group,
	})
	known := &cobra.Command{
		Use: "control-planes", Aliases: []string{"control-plane", "contexts", "context", "cp"},
		Short: "Add, list, remove and use control planes",
		RunE:  group,
	}
	known.AddCommand(addPlane(c), listPlanes(c), removePlane(c), switchPlane(c))
	view := &cobra.Command{
		Use: "view", Short: "Show the file, without tokens", Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			known, err := loadPlanes(c.planesFile())
			if err != nil {
				return err
			}
			for i := range known.ControlPlanes {
				if known.ControlPlanes[i].Token != "" {
					known.ControlPlanes[i].Token = "(not shown)"
				}
			}
			body, err := yaml.Marshal(known)
			if err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "# %s\n%s", c.planesFile(), body)
			return nil
		},
	}
	config.AddCommand(known, importPlanes(c), view)
	return config
}

func addPlane(c *connection) *cobra.Command {
	var name, mesh string
	var overwrite, unchecked bool
	command := &cobra.Command{
		Use: "add --name NAME --address URL", Short: "Add a control plane and switch to it", Args: arguments(cobra.NoArgs),
		Example: `  atoll config control-planes add --name prod --address https://global.example:5681 --token-file ~/prod.token --ca-file ~/prod.pem --mesh shop
  atoll get zones`,
	}
	command.Flags().StringVar(&name, "name", "", "how to call it here")
	command.Flags().StringVarP(&mesh, "mesh", "m", "", "mesh of commands that name none")
	command.Flags().BoolVar(&overwrite, "overwrite", false, "replace the control plane of that name")
	command.Flags().BoolVar(&unchecked, "skip-check", false, "do not ask the control plane who it is")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if name == "" || c.address == "" {
			return wrongUsage("--name and --address are needed")
		}
		added := plane{Name: name, Address: c.address, Token: c.token, CAFile: c.caFile, SkipVerify: c.skipVerify, Mesh: mesh}
		for _, file := range []struct {
			from string
			to   *string
		}{{c.tokenFile, &added.TokenFile}, {c.caFile, &added.CAFile}} {
			if file.from == "" {
				continue
			}
			full, err := filepath.Abs(file.from)
			if err != nil {
				return err
			}
			*file.to = full // the command will run elsewhere next time
		}
		if !unchecked {
			if err := check(ctx, c); err != nil {
				return err
			}
		}
		known, err := loadPlanes(c.planesFile())
		if err != nil {
			return err
		}
		if err := known.put(added, overwrite); err != nil {
			return err
		}
		known.Current = name
		if err := known.save(c.planesFile()); err != nil {
			return err
		}
		fmt.Fprintf(command.OutOrStdout(), "added control plane %q, which is now the current one\n", name)
		return nil
	})
	return command
}

// check asks the control plane who it is.
func check(ctx context.Context, c *connection) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	cl, err := client.New(o)
	if err != nil {
		return err
	}
	root, err := cl.Root(ctx)
	if err != nil {
		return fmt.Errorf("%w\n(--skip-check adds it nevertheless)", err)
	}
	if root.Product != "Kuma" {
		return fmt.Errorf("what answers at %s is %q and no control plane of a mesh (--skip-check adds it nevertheless)", o.URL, root.Product)
	}
	if o.Token == "" {
		return nil
	}
	var who json.RawMessage
	if _, err := cl.Do(ctx, "GET", "/who-am-i", nil, nil, &who); err != nil {
		return fmt.Errorf("the token is not accepted: %w", err)
	}
	return nil
}

func listPlanes(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the control planes", Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			known, err := loadPlanes(c.planesFile())
			if err != nil {
				return err
			}
			g := grid{out: command.OutOrStdout()}
			g.row("ACTIVE", "NAME", "ADDRESS", "MESH")
			for _, p := range known.ControlPlanes {
				g.row(map[bool]string{true: "*"}[p.Name == known.Current], p.Name, p.Address, first(p.Mesh, defaultMesh))
			}
			return g.flush()
		},
	}
}

// named completes the argument of a command with the names of control planes.
func (c *connection) named(command *cobra.Command) *cobra.Command {
	command.Args = arguments(cobra.ExactArgs(1))
	command.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.controlPlanes(), cobra.ShellCompDirectiveNoFileComp
	}
	return command
}

func removePlane(c *connection) *cobra.Command {
	return c.named(&cobra.Command{
		Use: "remove NAME", Short: "Forget a control plane",
		RunE: func(command *cobra.Command, args []string) error {
			known, err := loadPlanes(c.planesFile())
			if err != nil {
				return err
			}
			if _, _, err := known.find(args[0]); err != nil {
				return err
			}
			known.ControlPlanes = slices.DeleteFunc(known.ControlPlanes, func(p plane) bool { return p.Name == args[0] })
			said := fmt.Sprintf("removed control plane %q", args[0])
			if known.Current == args[0] {
				known.Current = ""
				said += "; there is no current one now: " + strings.TrimPrefix(defaultAddress, "http://") + " is used"
			}
			if err := known.save(c.planesFile()); err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), said)
			return nil
		},
	})
}

func switchPlane(c *connection) *cobra.Command {
	return c.named(&cobra.Command{
		Use: "use NAME", Aliases: []string{"switch"}, Short: "Make a control plane the current one",
		RunE: func(command *cobra.Command, args []string) error {
			known, err := loadPlanes(c.planesFile())
			if err != nil {
				return err
			}
			if _, _, err := known.find(args[0]); err != nil {
				return err
			}
			known.Current = args[0]
			if err := known.save(c.planesFile()); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "switched to control plane %q\n", args[0])
			return nil
		},
	})
}
