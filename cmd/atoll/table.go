package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
)

// printer prints what the API answered.
type printer struct {
	out    io.Writer
	format string
	now    time.Time
	// zones are in touch with the control plane, as far as it says.
	zones []server.ZoneReach
}

// asYAML renders JSON as YAML, members in the same order.
func asYAML(body []byte) (string, error) {
	var tree yaml.MapSlice // JSON is YAML
	if err := yaml.Unmarshal(body, &tree); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(tree)
	return string(text), err
}

func (p printer) document(body json.RawMessage) error {
	if p.format == "json" {
		return p.json(body)
	}
	text, err := asYAML(body)
	if err == nil {
		_, err = io.WriteString(p.out, text)
	}
	return err
}

func (p printer) json(value any) error {
	body, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(p.out, "%s\n", body)
	}
	return err
}

// documents prints a list, so that apply reads it.
func (p printer) documents(rows []json.RawMessage) error {
	if p.format == "json" {
		return p.json(struct {
			Total int               `json:"total"`
			Items []json.RawMessage `json:"items"`
		}{len(rows), rows})
	}
	for i, row := range rows {
		if i > 0 {
			fmt.Fprintln(p.out, "---")
		}
		if err := p.document(row); err != nil {
			return err
		}
	}
	return nil
}

// shownRow is what tables show of a resource, of every kind.
type shownRow struct {
	Mesh    string            `json:"mesh"`
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels"`
	Created time.Time         `json:"creationTime"`

	Dataplane struct {
		Networking struct {
			Address string       `json:"address"`
			Gateway *api.Gateway `json:"gateway"`
		} `json:"networking"`
	} `json:"dataplane"`
	DataplaneInsight api.DataplaneInsight `json:"dataplaneInsight"`

	Zone struct {
		Enabled *bool `json:"enabled"`
	} `json:"zone"`
	ZoneInsight api.ZoneInsight `json:"zoneInsight"`
}

// column is a header and what stands below it.
type column struct {
	header string
	cell   func(printer, *shownRow) string
}

func columns(info api.Facts) []column {
	mesh := column{"MESH", func(_ printer, r *shownRow) string { return r.Mesh }}
	name := column{"NAME", func(_ printer, r *shownRow) string { return r.Name }}
	age := column{"AGE", func(p printer, r *shownRow) string { return p.age(r.Created) }}
	switch {
	case info.Name == api.Dataplanes.Name:
		return []column{
			mesh, name,
			{"TAGS", func(_ printer, r *shownRow) string { return r.tags() }},
			{"ADDRESS", func(_ printer, r *shownRow) string { return r.Dataplane.Networking.Address }},
			{"STATUS", func(_ printer, r *shownRow) string { return r.proxyStatus() }},
			age,
		}
	case info.Name == api.Zones.Name:
		return []column{
			name,
			{"STATUS", func(p printer, r *shownRow) string { return p.zoneStatus(r) }},
			{"VERSION", func(_ printer, r *shownRow) string { return r.zoneVersion() }},
			{"LAST SEEN", func(p printer, r *shownRow) string { return p.lastSeen(r) }},
			age,
		}
	case info.Scope == api.MeshScope:
		return []column{mesh, name, age}
	}
	return []column{name, age}
}

func (p printer) table(kind api.AnyKind, rows []json.RawMessage) error {
	shown := columns(kind.Info())
	w := tabwriter.NewWriter(p.out, 0, 8, 3, ' ', 0)
	cells := make([]string, len(shown))
	for i, c := range shown {
		cells[i] = c.header
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for _, row := range rows {
		var r shownRow
		if err := json.Unmarshal(row, &r); err != nil {
			return fmt.Errorf("answer of the control plane: %w", err)
		}
		for i, c := range shown {
			cells[i] = c.cell(p, &r)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// tags are the labels that say what the workload is, and a gateway's tags.
func (r *shownRow) tags() string {
	tags := maps.Clone(r.Labels)
	for _, computed := range []string{api.LabelDisplayName, api.LabelMesh, api.LabelOrigin, api.LabelEnv, api.LabelManagedBy} {
		delete(tags, computed)
	}
	if g := r.Dataplane.Networking.Gateway; g != nil {
		maps.Copy(tags, g.Tags)
	}
	out := make([]string, 0, len(tags))
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, name+"="+tags[name])
	}
	return strings.Join(out, ",")
}

// proxyStatus is REJECTING for a proxy that is online and refuses something.
func (r *shownRow) proxyStatus() string {
	if !slices.ContainsFunc(r.DataplaneInsight.Subscriptions, api.DataplaneSubscription.Online) {
		return "OFFLINE"
	}
	if len(r.DataplaneInsight.Rejected) > 0 {
		return "REJECTING"
	}
	return "ONLINE"
}

func (p printer) zoneStatus(r *shownRow) string {
	switch {
	case r.Zone.Enabled != nil && !*r.Zone.Enabled:
		return "DISABLED"
	case p.connected(r):
		return "ONLINE"
	}
	return "OFFLINE"
}

// connected: the insight says it of other zones, the convergence of this one too.
func (p printer) connected(r *shownRow) bool {
	return slices.ContainsFunc(r.ZoneInsight.Subscriptions, api.ZoneSubscription.Online) ||
		slices.ContainsFunc(p.zones, func(z server.ZoneReach) bool { return z.Zone == r.Name && z.Connected })
}

func (r *shownRow) zoneVersion() string {
	for _, s := range slices.Backward(r.ZoneInsight.Subscriptions) {
		if s.Version != nil && s.Version.KumaCP != nil {
			return s.Version.KumaCP.Version
		}
	}
	return ""
}

func (p printer) lastSeen(r *shownRow) string {
	if p.connected(r) {
		return "now"
	}
	var seen time.Time
	later := func(t *time.Time) {
		if t != nil && t.After(seen) {
			seen = *t
		}
	}
	if h := r.ZoneInsight.HealthCheck; h != nil {
		later(h.Time)
	}
	for _, s := range r.ZoneInsight.Subscriptions {
		later(s.ConnectTime)
		later(s.DisconnectTime)
	}
	if seen.IsZero() {
		return "never"
	}
	return p.age(seen)
}

// age is the time since then in its largest unit: 5s, 3m, 4h, 12d.
func (p printer) age(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	switch d := max(p.now.Sub(since), 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	default:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	}
}

func (p printer) convergence(c server.Reach) error {
	switch p.format {
	case "json":
		return p.json(c)
	case "yaml":
		body, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return p.document(body)
	}
	w := tabwriter.NewWriter(p.out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "ZONE\tSTATUS\tPROXIES\tBEHIND\tREJECTING")
	for _, z := range c.Zones {
		status := map[bool]string{true: "ONLINE", false: "OFFLINE"}[z.Connected]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", z.Zone, status, z.Proxies, z.Behind, z.Rejected)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\n%s\n", summary(c))
	return nil
}
