package plan

import (
	"maps"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/envoy"
)

// Judge notes the faults of a row that only show to who knows Envoy, which
// package api does not: values of MeshProxyPatch that are no protobuf of their
// target, formats of MeshAccessLog with command operators that it has not. Either
// makes it refuse what has them, and all that goes with it. It is for the doors of
// people, after the row was found good otherwise.
func Judge(row api.Row, r *api.Report) {
	switch spec := row.Body().(type) {
	case *api.MeshProxyPatch:
		judgePatches(spec, r)
	case *api.MeshAccessLog:
		for i, to := range spec.To {
			judgeLogs(to.Default, r.At("spec").Index("to", i).At("default"))
		}
		for i, rule := range spec.Rules {
			judgeLogs(rule.Default, r.At("spec").Index("rules", i).At("default"))
		}
	}
}

func judgeLogs(c api.MeshAccessLogConf, r *api.Report) {
	check := func(format string, r *api.Report) {
		if err := envoy.CheckFormat(format, meshOperators()...); err != nil {
			r.Add("%v", err)
		}
	}
	line := func(f *api.LogFormat, r *api.Report) {
		if f == nil {
			return
		}
		check(value(f.Plain), r.At("plain"))
		for i, field := range f.JSON {
			check(field.Value, r.Index("json", i).At("value"))
		}
	}
	for i, b := range c.Backends {
		at := r.Index("backends", i)
		switch {
		case b.File != nil:
			line(b.File.Format, at.At("file.format"))
		case b.TCP != nil:
			line(b.TCP.Format, at.At("tcp.format"))
		case b.OpenTelemetry != nil:
			at = at.At("openTelemetry")
			for i, a := range b.OpenTelemetry.Attributes {
				check(a.Value, at.Index("attributes", i).At("value"))
			}
			eachText(b.OpenTelemetry.Body, func(text string) { check(text, at.At("body")) })
		}
	}
}

// eachText calls f for every text of a JSON value.
func eachText(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, one := range v {
			eachText(one, f)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			eachText(v[name], f)
		}
	}
}

func judgePatches(patch *api.MeshProxyPatch, r *api.Report) {
	for i, m := range patch.Default.AppendModifications {
		for _, c := range m.Changes() {
			if c.Value == "" {
				continue
			}
			value, err := c.JSON()
			if err == nil {
				_, err = envoy.ParsePatch(c.Target, value, c.Operation != "Patch")
			}
			if err != nil {
				r.At("spec.default").Index("appendModifications", i).At(c.Target).At("value").Add("%v", err)
			}
		}
	}
}
