package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// row is a line of the table: the same figure of Atoll, the floor and the
// minimal server.
type row struct {
	Figure  string     `json:"figure"`
	Unit    string     `json:"unit"`
	Values  [3]float64 `json:"values"` // atoll, floor, minimal
	Target  string     `json:"target,omitempty"`
	Missed  bool       `json:"missed"`
	decimal int
}

// slack is what the floor's factor leaves for the way from a request at global
// through two control planes.
const slack = 20 * time.Millisecond

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rows are the figures with their targets.
func (r *report) rows() (rows []row) {
	each := func(figure, unit string, decimal int, of func(*figures) float64) *row {
		x := row{Figure: figure, Unit: unit, decimal: decimal}
		for i, s := range r.systems {
			x.Values[i] = of(s)
		}
		rows = append(rows, x)
		return &rows[len(rows)-1]
	}
	percentiles := func(title string, of func(*figures) *spread) *row {
		each(title+" p50", "ms", 1, func(s *figures) float64 { return milliseconds(of(s).at(.5)) })
		return each(title+" p99", "ms", 1, func(s *figures) float64 { return milliseconds(of(s).at(.99)) })
	}
	last := func(title string, of func(*figures) *spread) *row {
		each(title+", half of the proxies", "ms", 0, func(s *figures) float64 { return milliseconds(of(s).at(.5)) })
		return each(title+", all", "ms", 0, func(s *figures) float64 { return milliseconds(of(s).at(1)) })
	}
	x := last("first config", func(s *figures) *spread { return &s.first })
	x.target("≤ 1.5 × minimal", x.Values[0] <= 1.5*x.Values[2])
	last("first config and registration", func(s *figures) *spread { return &s.contact })
	x = last("re-sync after a restart", func(s *figures) *spread { return &s.resync })
	x.target("≤ 1.5 × minimal", x.Values[0] <= 1.5*x.Values[2])
	for i, c := range changesOf() {
		x = percentiles(c.title, func(s *figures) *spread { return &s.changes[i].times })
		x.target("≤ minimal; ≤ 1.5 × floor + 20 ms", x.Values[0] <= x.Values[2] && x.Values[0] <= 1.5*x.Values[1]+milliseconds(slack))
		n := func(s *figures) float64 { return float64(s.changes[i].n) }
		each(c.title+": bytes per change", "kB", 0, func(s *figures) float64 { return float64(s.changes[i].got.bytes) / n(s) / 1000 })
		each(c.title+": changed resources", "", 0, func(s *figures) float64 { return float64(s.changes[i].got.changed) / n(s) })
		x = each(c.title+": sent unchanged", "", 0, func(s *figures) float64 {
			return float64(s.changes[i].got.resources-s.changes[i].got.changed) / n(s)
		})
		if c.again {
			// Envoy keeps a changed cluster warming until its endpoints come again.
			x.target("endpoints of changed clusters only", x.Values[0] <= float64(r.systems[0].changes[i].got.changed)/n(r.systems[0]))
		} else {
			x.target("none", x.Values[0] == 0)
		}
		each(c.title+": CPU per change", "ms", 0, func(s *figures) float64 { return milliseconds(s.changes[i].cpu) / n(s) })
	}
	x = each("idle: messages", "", 0, func(s *figures) float64 { return float64(s.idle.messages) })
	x.target("none", x.Values[0] == 0)
	x = each("idle: queries run", "", 0, func(s *figures) float64 { return float64(s.queries) })
	x.target("none", x.Values[0] == 0)
	each("idle: bytes on the wire", "kB", 1, func(s *figures) float64 { return float64(s.idle.wire) / 1000 })
	each("idle: CPU", "s", 2, func(s *figures) float64 { return s.idleCPU.Seconds() })
	x = each("memory per proxy", "MB", 3, func(s *figures) float64 { return float64(s.rss) / float64(s.proxies) / 1e6 })
	x.target("≤ 0.5 MB", x.Values[0] <= .5)
	x = each("streams that broke", "", 0, func(s *figures) float64 { return float64(s.faults) })
	x.target("none", x.Values[0] == 0)
	return rows
}

func (r *row) target(text string, met bool) { r.Target, r.Missed = text, !met }

// print writes the table, or JSON.
func (r *report) print(out io.Writer) error {
	rows := r.rows()
	if r.options.json {
		return json.NewEncoder(out).Encode(map[string]any{
			"proxies": r.systems[0].proxies, "services": r.options.services, "zones": r.options.zones, "outbounds": r.options.outbounds + 1,
			"rounds": r.options.rounds, "cpus": runtime.NumCPU(), "rows": rows,
		})
	}
	fmt.Fprintf(out, "\n%d proxies in %d zones, %d services, %d outbounds each, %d rounds, %d CPUs\n\n",
		r.systems[0].proxies, r.options.zones, r.options.services, r.options.outbounds+1, r.options.rounds, runtime.NumCPU())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tatoll\tfloor\tminimal\t×floor\t×minimal\t\t  target\t")
	for _, x := range rows {
		verdict := ""
		if x.Target != "" {
			verdict = "PASS"
			if x.Missed {
				verdict = "MISS"
			}
		}
		number := func(v float64) string { return fmt.Sprintf("%.*f %s", x.decimal, v, x.Unit) }
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\t\n", x.Figure, number(x.Values[0]), number(x.Values[1]), number(x.Values[2]),
			ratio(x.Values[0], x.Values[1]), ratio(x.Values[0], x.Values[2]), verdict, x.Target)
	}
	return w.Flush()
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
