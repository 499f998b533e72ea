package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
)

// outputs are the forms that resources are printed in.
var outputs = []string{"table", "wide", "yaml", "json"}

// printer prints what the API answered.
type printer struct {
	out    io.Writer
	format string
	now    time.Time
	grid   *grid
	// zones are in touch with the control plane, as far as it says.
	zones []server.ZoneReach
}

func newPrinter(out io.Writer, format string) *printer {
	return &printer{out: out, format: format, now: time.Now(), grid: &grid{out: out}}
}

func (p *printer) tables() bool { return p.format == "table" || p.format == "wide" }

// asYAML renders JSON as YAML, members in the same order.
func asYAML(body []byte) (string, error) {
	var tree yaml.MapSlice // JSON is YAML
	if err := yaml.Unmarshal(body, &tree); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(tree)
	return string(text), err
}

func (p *printer) document(body json.RawMessage) error {
	if p.format == "json" {
		return p.json(body)
	}
	text, err := asYAML(body)
	if err == nil {
		_, err = io.WriteString(p.out, text)
	}
	return err
}

func (p *printer) json(value any) error {
	body, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(p.out, "%s\n", body)
	}
	return err
}

// documents prints a list, so that apply reads it.
func (p *printer) documents(rows []json.RawMessage) error {
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

// columns are those of the kind that the format shows.
func (p *printer) columns(info api.Facts) []column {
	return slices.DeleteFunc(columns(info), func(c column) bool { return c.wide && p.format != "wide" })
}

// head adds the headers of the table, after those of before.
func (p *printer) head(kind api.AnyKind, before ...string) {
	for _, c := range p.columns(kind.Info()) {
		before = append(before, c.header)
	}
	p.grid.row(before...)
}

// line adds the row of a resource, after the cells of before.
func (p *printer) line(kind api.AnyKind, row json.RawMessage, before ...string) error {
	var r shownRow
	if err := json.Unmarshal(row, &r); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	for _, c := range p.columns(kind.Info()) {
		before = append(before, c.cell(p, &r))
	}
	p.grid.row(before...)
	return nil
}

func (p *printer) table(kind api.AnyKind, rows []json.RawMessage) error {
	p.head(kind)
	for _, row := range rows {
		if err := p.line(kind, row); err != nil {
			return err
		}
	}
	return p.grid.flush()
}

// age is the time since then in its largest unit: 5s, 3m, 4h, 12d.
func (p *printer) age(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return span(max(p.now.Sub(since), 0))
}

// span is a length of time in its largest unit.
func span(d time.Duration) string {
	switch {
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

func (p *printer) convergence(c server.Reach) error {
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
	p.grid.row("ZONE", "STATUS", "PROXIES", "BEHIND", "REJECTING")
	for _, z := range c.Zones {
		status := map[bool]string{true: "ONLINE", false: "OFFLINE"}[z.Connected]
		p.grid.row(z.Zone, status, strconv.Itoa(z.Proxies), strconv.Itoa(z.Behind), strconv.Itoa(z.Rejected))
	}
	if err := p.grid.flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "\n%s\n", summary(c))
	return nil
}
