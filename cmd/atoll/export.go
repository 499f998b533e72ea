package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v2"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// Profiles say what of a control plane is exported.
const (
	profileAll          = "all"
	profileNoDataplanes = "no-dataplanes"
	profileFederation   = "federation"
	profilePolicies     = "federation-with-policies"
)

var (
	profiles = []string{profileAll, profileNoDataplanes, profileFederation, profilePolicies}
	formats  = []string{"universal", "kubernetes"}
)

func exportCommand(c *connection) *cobra.Command {
	var e exporter
	var dir string
	var secrets bool
	command := c.bind(&cobra.Command{
		Use:   "export",
		Short: "Everything that a control plane was told",
		Long: `Prints what this control plane was told, as documents: meshes, policies, services,
secrets with the keys of tokens and authorities. "atoll apply -f" restores it on an
empty control plane, with the same tokens and identities.

Not part of it: what other control planes wrote, which comes from there again; what
a control plane makes by itself; what proxies report.

Profiles:
  all                       everything
  no-dataplanes             all, without Dataplanes
  federation                what a zone that was alone gives to the global control plane
                            above it: meshes, the keys of tokens, what is in meshes; no policies
  federation-with-policies  the same, with policies`,
		Example: `  atoll export > backup.yaml
  atoll export --dir backup/
  atoll export --profile federation-with-policies | atoll apply --control-plane global -f -
  atoll export --format kubernetes --secrets=false | kubectl apply -f -`,
		Args: arguments(cobra.NoArgs),
	})
	fs := command.Flags()
	fs.StringVar(&e.profile, "profile", profileAll, "what to export: "+strings.Join(profiles, ", "))
	fs.StringVar(&e.format, "format", formats[0], "universal (what apply reads) or kubernetes (for kubectl)")
	fs.StringVarP(&e.namespace, "namespace", "n", "", "namespace of Kubernetes objects (default: that of the control plane)")
	fs.StringVar(&dir, "dir", "", "write a file per resource below this directory, instead of printing")
	fs.BoolVar(&secrets, "secrets", true, "with what only administrators may see; refused: a warning")
	for flag, values := range map[string][]string{"profile": profiles, "format": formats} {
		complete(command, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return values, cobra.ShellCompDirectiveNoFileComp
		})
	}
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		if !slices.Contains(profiles, e.profile) {
			return wrongUsage("--profile %q: %s", e.profile, strings.Join(profiles, ", "))
		}
		if !slices.Contains(formats, e.format) {
			return wrongUsage("--format %q: %s", e.format, strings.Join(formats, ", "))
		}
		var err error
		if e.cl, err = c.open(); err != nil {
			return err
		}
		e.errs, e.secrets = command.ErrOrStderr(), secrets
		e.write = stream(command.OutOrStdout())
		if dir != "" {
			e.write = files(dir)
		}
		return e.run(ctx)
	})
	return command
}

// stream prints documents one after the other.
func stream(out io.Writer) func(api.Facts, resourceHead, string) error {
	began := false
	return func(_ api.Facts, _ resourceHead, text string) error {
		if began {
			text = "---\n" + text
		}
		began = true
		_, err := io.WriteString(out, text)
		return err
	}
}

// files writes each document to DIR/MESH/KINDS/NAME.yaml, for its owner only.
func files(dir string) func(api.Facts, resourceHead, string) error {
	return func(info api.Facts, h resourceHead, text string) error {
		path := filepath.Join(dir, h.Mesh, info.Plural, h.Name+".yaml")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		return nil
	}
}

// exporter reads one control plane.
type exporter struct {
	cl                         *client.Client
	profile, format, namespace string
	secrets                    bool
	errs                       io.Writer
	write                      func(api.Facts, resourceHead, string) error

	origin  string // of rows that this control plane wrote
	foreign int    // left out: of other control planes
}

func (e *exporter) run(ctx context.Context) error {
	if err := e.findOrigin(ctx); err != nil {
		return err
	}
	for _, kind := range api.Kinds {
		if !e.wants(kind.Info()) {
			continue
		}
		err := e.kind(ctx, kind)
		var problem *client.Problem
		if kind.Info().AdminOnly && errors.As(err, &problem) && problem.Status == http.StatusForbidden {
			fmt.Fprintf(e.errs, "Warning: without %ss: %s\n", kind.Info().Name, problem.Detail)
			continue
		}
		if err != nil {
			return err
		}
	}
	if e.foreign > 0 {
		fmt.Fprintf(e.errs, "left out %d that other control planes wrote: they come from there again\n", e.foreign)
	}
	return nil
}

// findOrigin finds out which rows are the control plane's own: at global those
// of origin global, elsewhere those of origin zone. A global control plane does
// not take Dataplanes; a zone below one takes nothing, as existing clients see it.
func (e *exporter) findOrigin(ctx context.Context) error {
	var answer struct {
		Resources []struct {
			Name     string
			ReadOnly bool
		}
	}
	if _, err := e.cl.Do(ctx, http.MethodGet, "/_resources", nil, nil, &answer); err != nil {
		return err
	}
	readOnly := map[string]bool{}
	for _, r := range answer.Resources {
		readOnly[r.Name] = r.ReadOnly
	}
	e.origin = api.OriginZone
	if readOnly[api.Dataplanes.Name] && !readOnly[api.Meshes.Name] {
		e.origin = api.OriginGlobal
	}
	return nil
}

// wants reports whether the profile has the kind.
func (e *exporter) wants(info api.Facts) bool {
	switch {
	case info.Hidden, info.ReadOnly, info.Memory, info.AdminOnly && !e.secrets:
		return false
	case info.Name == api.Dataplanes.Name:
		return e.profile == profileAll
	case !e.federates():
		return true
	case info.Policy != nil:
		return e.profile == profilePolicies
	}
	return info.Flow.Has(api.Down)
}

func (e *exporter) federates() bool {
	return e.profile == profileFederation || e.profile == profilePolicies
}

// ownKeys are secrets that stay with the control plane that has them.
var ownKeys = []string{"envoy-admin-ca", "inter-cp-ca"}

func (e *exporter) kind(ctx context.Context, kind api.AnyKind) error {
	for row, err := range e.cl.List(ctx, kind, "", nil) {
		if err != nil {
			return err
		}
		h := headOf(row)
		switch origin := h.Labels[api.LabelOrigin]; {
		case origin != "" && origin != e.origin:
			e.foreign++
			continue
		case h.Labels[api.LabelManagedBy] != "": // the control plane makes it again
			continue
		case e.federates() && kind.Info().AdminOnly && slices.Contains(ownKeys, h.Name):
			continue
		}
		text, err := e.document(ctx, kind, h, row)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind.Info().Name, h.Name, err)
		}
		if err := e.write(kind.Info(), h, text); err != nil {
			return err
		}
	}
	return nil
}

// computed are labels that each control plane gives by itself. They name it,
// and another one would refuse them. That of the mesh is one where there is a
// mesh.
var computed = []string{api.LabelOrigin, api.LabelZone, api.LabelEnv, api.LabelDisplayName}

func (e *exporter) document(ctx context.Context, kind api.AnyKind, h resourceHead, row json.RawMessage) (string, error) {
	if e.format == "kubernetes" {
		query := url.Values{"format": {"kubernetes"}}
		if e.namespace != "" {
			query.Set("namespace", e.namespace)
		}
		var object json.RawMessage
		if _, err := e.cl.Do(ctx, http.MethodGet, client.Path(kind, h.Mesh, h.Name), query, nil, &object); err != nil {
			return "", err
		}
		return asYAML(object)
	}
	var members yaml.MapSlice // JSON is YAML
	if err := yaml.Unmarshal(row, &members); err != nil {
		return "", err
	}
	for i := range members {
		if labels, ok := members[i].Value.(yaml.MapSlice); ok && members[i].Key == "labels" {
			members[i].Value = slices.DeleteFunc(labels, func(l yaml.MapItem) bool {
				name, _ := l.Key.(string)
				return slices.Contains(computed, name) || name == api.LabelMesh && kind.Info().Scope == api.MeshScope
			})
		}
	}
	members = slices.DeleteFunc(members, func(m yaml.MapItem) bool {
		labels, ok := m.Value.(yaml.MapSlice)
		return m.Key == "labels" && ok && len(labels) == 0
	})
	if kind.Info().Name == api.Meshes.Name {
		// Policies that were deleted on purpose would be made again.
		const skip = "skipCreatingInitialPolicies"
		members = slices.DeleteFunc(members, func(m yaml.MapItem) bool { return m.Key == skip })
		members = append(members, yaml.MapItem{Key: skip, Value: []string{"*"}})
	}
	return normalTree(members)
}
