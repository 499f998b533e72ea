package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// folded makes spellings of a kind equal: DataplaneInsight, dataplane-insight.
func folded(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// kindOf finds a kind by plural, singular or short name.
func kindOf(name string) (api.AnyKind, error) {
	for _, k := range api.Kinds {
		info := k.Info()
		if info.Hidden {
			continue
		}
		for _, known := range []string{info.Name, info.Plural, info.Alias, info.Short} {
			if known != "" && folded(known) == folded(name) {
				return k, nil
			}
		}
	}
	// The model knows which name is meant.
	var r api.Report
	body, err := json.Marshal(map[string]string{"type": name})
	if err != nil {
		return nil, err
	}
	api.ParseDocument(body, &r)
	for _, f := range r.Faults() {
		if f.Field == "type" {
			return nil, wrongUsage("%s\n`atoll get --help` lists the kinds", f.Reason)
		}
	}
	return nil, wrongUsage("kind %q cannot be shown\n`atoll get --help` lists the kinds", name)
}

// shownKinds are the kinds with a path, by plural.
func shownKinds() []api.Facts {
	var out []api.Facts
	for _, k := range api.Kinds {
		if info := k.Info(); !info.Hidden {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b api.Facts) int { return strings.Compare(a.Plural, b.Plural) })
	return out
}

// kindList is the part of help that lists the kinds.
func kindList() string {
	var b strings.Builder
	b.WriteString("Kinds (short name):")
	kinds, width := shownKinds(), 0
	for _, info := range kinds {
		width = max(width, len(info.Plural))
	}
	for _, info := range kinds {
		line := "\n  " + info.Plural
		if info.Short != "" {
			line = fmt.Sprintf("\n  %-*s  %s", width, info.Plural, info.Short)
		}
		b.WriteString(line)
	}
	return b.String()
}
