package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// kumactlConfig is the file in which kumactl keeps its control planes.
type kumactlConfig struct {
	ControlPlanes []struct {
		Name        string `json:"name"`
		Coordinates struct {
			APIServer kumactlServer `json:"apiServer"`
		} `json:"coordinates"`
	} `json:"controlPlanes"`
	Contexts []struct {
		Name         string `json:"name"`
		ControlPlane string `json:"controlPlane"`
		Defaults     struct {
			Mesh string `json:"mesh"`
		} `json:"defaults"`
	} `json:"contexts"`
	CurrentContext string `json:"currentContext"`
}

type kumactlServer struct {
	URL            string            `json:"url"`
	CACertFile     string            `json:"caCertFile"`
	ClientCertFile string            `json:"clientCertFile"`
	AuthType       string            `json:"authType"`
	AuthConf       map[string]string `json:"authConf"`
	SkipVerify     bool              `json:"skipVerify"`
	Headers        []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"headers"`
}

func importPlanes(c *connection) *cobra.Command {
	var overwrite bool
	command := &cobra.Command{
		Use: "import [FILE]", Short: "Take over the control planes of kumactl",
		Long: `Adds the contexts of kumactl, by default those of ~/.kumactl/config, with address,
authority, token and mesh. Its current one becomes the current one here, if there is none.`,
		Example: `  atoll config import
  atoll config import ~/team/kumactl.yaml --overwrite`,
		Args: arguments(cobra.MaximumNArgs(1)),
	}
	command.Flags().BoolVar(&overwrite, "overwrite", false, "replace control planes of the same name")
	command.RunE = func(command *cobra.Command, args []string) error {
		path := first(args...)
		if path == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return fmt.Errorf("there is no home directory: name the file, %s FILE", command.CommandPath())
			}
			path = filepath.Join(home, ".kumactl", "config")
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%w; name the file of kumactl: %s FILE", err, command.CommandPath())
		}
		var from kumactlConfig
		if err := yaml.Unmarshal(body, &from); err != nil {
			return fmt.Errorf("%s: no configuration of kumactl: %w", path, err)
		}
		known, err := loadPlanes(c.planesFile())
		if err != nil {
			return err
		}
		added, err := known.take(from, overwrite, command.ErrOrStderr())
		if err != nil {
			return err
		}
		if len(added) == 0 {
			return fmt.Errorf("%s: there is no context in it", path)
		}
		if err := known.save(c.planesFile()); err != nil {
			return err
		}
		fmt.Fprintf(command.OutOrStdout(), "added %s; the current one is %q\n", strings.Join(added, ", "), known.Current)
		return nil
	}
	return command
}

// take adds the contexts of kumactl and returns their names.
func (p *planes) take(from kumactlConfig, overwrite bool, errs io.Writer) (added []string, err error) {
	servers := map[string]kumactlServer{}
	for _, cp := range from.ControlPlanes {
		servers[cp.Name] = cp.Coordinates.APIServer
	}
	for _, context := range from.Contexts {
		s, ok := servers[context.ControlPlane]
		if !ok || s.URL == "" {
			fmt.Fprintf(errs, "Warning: %s: left out: there is no address of its control plane %q\n", context.Name, context.ControlPlane)
			continue
		}
		one := plane{Name: context.Name, Address: s.URL, CAFile: s.CACertFile, SkipVerify: s.SkipVerify, Mesh: context.Defaults.Mesh}
		if s.AuthType == "tokens" {
			one.Token = s.AuthConf["token"]
		}
		for _, h := range s.Headers {
			bearer, is := strings.CutPrefix(h.Value, "Bearer ")
			if !is || !strings.EqualFold(h.Key, "Authorization") {
				fmt.Fprintf(errs, "Warning: %s: without its header %q, which is not sent here\n", one.Name, h.Key)
				continue
			}
			one.Token = first(one.Token, bearer)
		}
		if s.ClientCertFile != "" {
			fmt.Fprintf(errs, "Warning: %s: without its client certificate; a user token says who you are: --token-file\n", one.Name)
		}
		if err := p.put(one, overwrite); err != nil {
			return nil, err
		}
		added = append(added, one.Name)
		if p.Current == "" && context.Name == from.CurrentContext {
			p.Current = context.Name
		}
	}
	if p.Current == "" {
		p.Current = first(added...)
	}
	return added, nil
}
