package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/inspect"
)

// proxyViews are what can be asked about a proxy; some have older names.
var proxyViews = []string{"policies", "rules", "layout", "config", "xds", "stats", "clusters"}

func inspectDataplane(c *connection) *cobra.Command {
	var asked proxyView
	command := inspectNamed(c, api.Dataplanes, &cobra.Command{
		Use: "dataplane NAME", Aliases: []string{"dp", "dataplanes", "proxy"}, Short: "What a proxy is told, and by which policies",
		Long: `Shows one side of a proxy, chosen by --type:

  policies   which policies say something of the proxy, its inbounds and what it calls
  rules      the same with every value, and where it was written
  layout     what it listens on and what it can call
  config     what the control plane sends it now; --shadow: as if policies marked
             as shadow were in force; --diff: what they would change
  xds        what Envoy has (config dump)
  stats      Envoy's statistics
  clusters   Envoy's clusters with their endpoints`,
		Example: `  atoll inspect dataplane web-1
  atoll inspect dataplane web-1 -m shop --type rules
  atoll inspect dataplane web-1 --type config --diff
  atoll inspect dataplane web-1 --type stats | grep upstream_rq_5xx`,
	}, func(i *inspection, ctx context.Context, name string) error {
		return proxyInspection{i, name}.show(ctx, asked)
	})
	fs := command.Flags()
	fs.StringVarP(&asked.view, "type", "t", "policies", strings.Join(proxyViews, ", "))
	fs.BoolVar(&asked.shadow, "shadow", false, "config: with shadow policies in force")
	fs.BoolVar(&asked.diff, "diff", false, "config: what shadow policies would change")
	fs.StringSliceVar(&asked.include, "include", nil, "config: diff (as --diff)")
	fs.BoolVar(&asked.endpoints, "include-eds", false, "xds: with endpoints")
	complete(command, "type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return proxyViews, cobra.ShellCompDirectiveNoFileComp
	})
	return command
}

// proxyView is what is asked about a proxy.
type proxyView struct {
	view                    string
	shadow, diff, endpoints bool
	include                 []string
}

// proxyInspection is that of one proxy.
type proxyInspection struct {
	*inspection
	name string
}

func (p proxyInspection) show(ctx context.Context, asked proxyView) error {
	view := strings.ToLower(asked.view)
	if view == "config-dump" {
		view = "xds"
	}
	diff := asked.diff || slices.Contains(asked.include, "diff")
	if (asked.shadow || diff) && view != "config" {
		return wrongUsage("--shadow and --diff are about --type config")
	}
	switch view {
	case "policies":
		return p.policies(ctx)
	case "rules":
		return p.rules(ctx)
	case "layout":
		return p.layout(ctx)
	case "config":
		return p.config(ctx, asked.shadow, diff)
	case "xds":
		return p.dump(ctx, "/xds", url.Values{"include_eds": {strconv.FormatBool(asked.endpoints)}})
	case "stats", "clusters":
		return p.dump(ctx, "/"+view, nil)
	}
	return wrongUsage("--type %q: %s", view, strings.Join(proxyViews, ", "))
}

func (p proxyInspection) ask(ctx context.Context, below string, query url.Values, into any) error {
	return p.get(ctx, api.Dataplanes, p.name, below, query, into)
}

// rulesAnswer is the answer of _rules.
type rulesAnswer struct {
	Rules []struct {
		Type string `json:"type"`
		To   []struct {
			Resource shownMeta `json:"resourceMeta"`
			Section  string    `json:"resourceSectionName"`
			Origin   []ruleRef `json:"origin"`
		} `json:"toResourceRules"`
		Inbound []struct {
			Inbound struct {
				Name string `json:"name"`
				Port uint32 `json:"port"`
			} `json:"inbound"`
			Rules []struct {
				Match  json.RawMessage `json:"match"`
				Origin []ruleRef       `json:"origin"`
			} `json:"rules"`
		} `json:"inboundRules"`
		Proxy *struct {
			Origin []shownMeta `json:"origin"`
		} `json:"proxyRule"`
		Warnings []string `json:"warnings"`
	} `json:"rules"`
}

type ruleRef struct {
	Resource shownMeta `json:"resourceMeta"`
	Index    int       `json:"ruleIndex"`
}

// policies is which policies say something, of what.
func (p proxyInspection) policies(ctx context.Context) error {
	var body json.RawMessage
	if err := p.ask(ctx, "/_rules", nil, &body); err != nil {
		return err
	}
	if !p.text() {
		return p.raw(body)
	}
	var answer rulesAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	if len(answer.Rules) == 0 {
		_, err := fmt.Fprintf(p.out, "no policy says anything of %s\n", p.name)
		return err
	}
	g := p.grid()
	g.row("POLICY", "SAYS SOMETHING OF", "WRITTEN IN (the last is the strongest)")
	for _, kind := range answer.Rules {
		if kind.Proxy != nil {
			g.row(kind.Type, "the proxy", joined(kind.Proxy.Origin, shownMeta.shownName))
		}
		for _, in := range kind.Inbound {
			about := "inbound " + first(in.Inbound.Name, strconv.Itoa(int(in.Inbound.Port)))
			for _, rule := range in.Rules {
				match := ""
				if len(rule.Match) > 0 {
					match = " from " + oneLine(rule.Match)
				}
				g.row(kind.Type, about+match, joined(rule.Origin, func(r ruleRef) string { return r.Resource.shownName() }))
			}
		}
		for _, to := range kind.To {
			about := "calls to " + to.Resource.Type + " " + to.Resource.shownName()
			if to.Resource.Type == api.RefMesh {
				about = "calls to everything"
			}
			if to.Section != "" {
				about += ":" + to.Section
			}
			g.row(kind.Type, about, joined(to.Origin, func(r ruleRef) string { return r.Resource.shownName() }))
		}
	}
	if err := g.flush(); err != nil {
		return err
	}
	for _, kind := range answer.Rules {
		for _, w := range kind.Warnings {
			fmt.Fprintf(p.out, "Warning: %s: %s\n", kind.Type, w)
		}
	}
	return nil
}

// joined is the names of things in one text, each once.
func joined[T any](things []T, name func(T) string) string {
	var out []string
	for _, t := range things {
		if n := name(t); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return strings.Join(out, ", ")
}

func (p proxyInspection) layout(ctx context.Context) error {
	var body json.RawMessage
	if err := p.ask(ctx, "/_layout", nil, &body); err != nil {
		return err
	}
	if !p.text() {
		return p.raw(body)
	}
	var l inspect.Layout
	if err := json.Unmarshal(body, &l); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	if l.SPIFFE != "" {
		fmt.Fprintf(p.out, "identity %s\n\n", l.SPIFFE)
	}
	g := p.grid()
	g.row("", "PORT", "PROTOCOL", "OF", "IN ENVOY")
	for _, part := range []struct {
		what  string
		ports []inspect.Port
	}{{"inbound", l.Inbounds}, {"listener", l.Listeners}, {"outbound", l.Outbounds}} {
		for _, port := range part.ports {
			g.row(part.what, strconv.Itoa(int(port.Port)), first(port.Protocol, port.Type), kriName(port.KRI), port.Name)
		}
	}
	return g.flush()
}

// effective is what policies of a kind say of one thing.
type effective struct {
	Kind  string          `json:"kind"`
	Conf  json.RawMessage `json:"conf"`
	Rules []struct {
		KRI     string          `json:"kri"`
		Matches json.RawMessage `json:"matches"`
		Conf    json.RawMessage `json:"conf"`
		Fields  []saidField     `json:"fields"`
	} `json:"rules"`
	Origins []struct {
		KRI string `json:"kri"`
	} `json:"origins"`
	Fields []saidField `json:"fields"`
}

// saidField is where a value was written.
type saidField struct {
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value"`
	KRI   string          `json:"kri"`
	Index int             `json:"index"`
}

// rules is every value that policies give, and where it was written.
func (p proxyInspection) rules(ctx context.Context) error {
	if !p.text() {
		var body json.RawMessage
		if err := p.ask(ctx, "/_rules", nil, &body); err != nil {
			return err
		}
		return p.raw(body)
	}
	var l inspect.Layout
	if err := p.ask(ctx, "/_layout", nil, &l); err != nil {
		return err
	}
	if err := p.section(ctx, "the proxy", "/_policies"); err != nil {
		return err
	}
	for _, in := range slices.Concat(l.Inbounds, l.Listeners) {
		title := fmt.Sprintf("inbound %s, port %d", kriName(in.KRI), in.Port)
		if err := p.section(ctx, title, "/_inbounds/"+url.PathEscape(in.KRI)+"/_policies"); err != nil {
			return err
		}
	}
	for _, out := range l.Outbounds {
		below := "/_outbounds/" + url.PathEscape(out.KRI)
		title := fmt.Sprintf("calls to %s, port %d", kriName(out.KRI), out.Port)
		if err := p.section(ctx, title, below+"/_policies"); err != nil {
			return err
		}
		if err := p.section(ctx, title+", routes", below+"/_routes"); err != nil {
			return err
		}
	}
	return nil
}

// section prints what is said of one part of the proxy, if anything is.
func (p proxyInspection) section(ctx context.Context, title, below string) error {
	var answer struct {
		Policies []effective `json:"policies"`
		Routes   []effective `json:"routes"`
	}
	if err := p.ask(ctx, below, url.Values{"include": {"fields"}}, &answer); err != nil {
		return err
	}
	all := slices.Concat(answer.Policies, answer.Routes)
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintf(p.out, "%s\n", title)
	for _, e := range all {
		var from []string
		for _, o := range e.Origins {
			from = append(from, kriName(o.KRI))
		}
		fmt.Fprintf(p.out, "  %s, written in %s\n", e.Kind, strings.Join(from, ", "))
		g := grid{out: p.out, indent: "    "}
		said(&g, e.Conf, e.Fields, "")
		for _, rule := range e.Rules {
			if len(rule.Matches) > 0 {
				g.row("matches " + oneLine(rule.Matches))
			}
			said(&g, rule.Conf, rule.Fields, rule.KRI)
		}
		if err := g.flush(); err != nil {
			return err
		}
	}
	return nil
}

// said adds a row for each value: path, value, where it was written. Without
// fields it was written as a whole in one place, the KRI.
func said(g *grid, conf json.RawMessage, fields []saidField, kri string) {
	if len(fields) == 0 && len(conf) > 0 {
		for _, f := range leaves("", conf) {
			g.row(f.Path, oneLine(f.Value), kriName(kri))
		}
	}
	for _, f := range fields {
		g.row(f.Path, oneLine(f.Value), fmt.Sprintf("%s, entry %d", kriName(f.KRI), f.Index))
	}
}

// leaves are the values of a conf that are no objects, by path.
func leaves(path string, conf json.RawMessage) []saidField {
	var members map[string]json.RawMessage
	if json.Unmarshal(conf, &members) != nil || len(members) == 0 {
		return []saidField{{Path: path, Value: conf}}
	}
	var out []saidField
	for _, name := range slices.Sorted(maps.Keys(members)) {
		out = append(out, leaves(strings.TrimPrefix(path+"."+name, "."), members[name])...)
	}
	return out
}

// oneLine is JSON without space, text without quotes.
func oneLine(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return string(value)
	}
	return b.String()
}

// config is what the control plane sends, or what shadow policies would change.
func (p proxyInspection) config(ctx context.Context, shadow, diff bool) error {
	query := url.Values{"shadow": {strconv.FormatBool(shadow || diff)}}
	if diff {
		query.Set("include", "diff")
	}
	var body json.RawMessage
	var refused *client.Problem
	switch err := p.ask(ctx, "/_config", query, &body); {
	case errors.As(err, &refused) && refused.Status == http.StatusMethodNotAllowed:
		return p.elsewhere(ctx)
	case errors.Is(err, client.ErrNotFound):
		return fmt.Errorf("the proxy of %s has not connected to this control plane: start it by `atoll dp`, or ask the control plane of its zone", p.name)
	case err != nil:
		return err
	}
	if !diff || !p.text() {
		return p.raw(body)
	}
	var answer struct {
		Diff []struct {
			Op    string          `json:"op"`
			Path  string          `json:"path"`
			Value json.RawMessage `json:"value"`
		} `json:"diff"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("answer of the control plane: %w", err)
	}
	changed := false
	for _, step := range answer.Diff {
		sign := map[string]string{"add": "+", "remove": "-", "replace": "~"}[step.Op]
		if sign == "" {
			continue // a test says what was there before
		}
		changed = true
		fmt.Fprintln(p.out, strings.TrimRight(sign+" "+step.Path+" "+string(step.Value), " "))
	}
	if !changed {
		fmt.Fprintln(p.out, "shadow policies would change nothing")
	}
	return nil
}

// elsewhere says who knows what a proxy is sent: global has no plans.
func (p proxyInspection) elsewhere(ctx context.Context) error {
	var m shownMeta
	if err := p.ask(ctx, "", nil, &m); err != nil {
		return err
	}
	return fmt.Errorf("what %s is sent is made by zone %s, not here: ask the control plane of that zone about %s, "+
		"or see by --type xds what its Envoy has", p.name, m.Labels[api.LabelZone], m.shownName())
}

// dump is what Envoy's admin interface answers: JSON or text.
func (p proxyInspection) dump(ctx context.Context, below string, query url.Values) error {
	if p.output == "json" && below != "/xds" {
		query = url.Values{"format": {"json"}}
	}
	var text string
	if err := p.ask(ctx, below, query, &text); err != nil {
		return err
	}
	if p.output == "yaml" {
		return p.raw(json.RawMessage(text))
	}
	_, err := fmt.Fprintln(p.out, strings.TrimSuffix(text, "\n"))
	return err
}
