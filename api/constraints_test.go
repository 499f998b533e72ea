package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/atoll-mesh/atoll/api"
)

// TestConstraints breaks every rule of every shape, one at a time, wherever a full
// document in testdata/kinds has a field with the rule: each time the document is
// refused, at that field. A rule that no document can break is a fault of the
// documents.
func TestConstraints(t *testing.T) {
	files, err := filepath.Glob("testdata/kinds/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no documents", err)
	}
	for _, file := range files {
		plural := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(plural, func(t *testing.T) {
			k := kindOf(t, plural)
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b := breaker{t: t, kind: k, broken: map[string]bool{}}
			for _, section := range archive.Files {
				if strings.HasPrefix(section.Name, "full") {
					body := envelope(t, section.Name, k.Info(), section.Data)
					if err := json.Unmarshal(body, &b.document); err != nil {
						t.Fatal(err)
					}
					b.spec(specOf(t, k, body))
				}
			}
			rules := map[string]bool{}
			listRules(k.Shape(), "", rules)
			for _, rule := range slices.Sorted(maps.Keys(rules)) {
				if !b.broken[rule] {
					t.Errorf("no full document has a value that can break %s", rule)
				}
			}
		})
	}
}

// rulesOf names the rules of a shape, with values that break them.
func rulesOf(s *api.Shape, value any) map[string]any {
	out := map[string]any{}
	number := func(n float64) any {
		switch s.Format {
		case "duration":
			return fmt.Sprintf("%vs", n)
		case "int-or-string":
			return fmt.Sprint(n)
		}
		return n
	}
	if s.Min != nil {
		out["min"] = number(*s.Min - math.Abs(*s.Min) - 1)
	}
	if s.Max != nil {
		out["max"] = number(*s.Max*2 + 1)
	}
	if s.Above != nil {
		out["above"] = number(*s.Above)
	}
	if s.Enum != nil {
		out["enum"] = "none of these"
	}
	if s.Pattern != "" {
		out["pattern"] = "NO HEADER, NO KEY"
	}
	if s.MinLen != nil {
		out["minLen"] = strings.Repeat("a", *s.MinLen-1)
	}
	if s.MaxLen != nil {
		out["maxLen"] = strings.Repeat("a", *s.MaxLen+1)
	}
	list, _ := value.([]any)
	if s.MinItems != nil {
		out["minItems"] = list[:min(len(list), *s.MinItems-1)]
	}
	if s.MaxItems != nil && len(list) > 0 {
		out["maxItems"] = slices.Repeat(list, *s.MaxItems+1)
	}
	switch s.Type {
	case "object", "array":
		out["type"] = 7
	case "":
	default:
		out["type"] = map[string]any{"a": "b"}
	}
	return out
}

// listRules lists the rules below a shape by the path of their field.
func listRules(s *api.Shape, path string, into map[string]bool) {
	for rule := range rulesOf(s, []any{nil}) {
		into[path+" "+rule] = rule != "type" // some lists and maps must be empty
	}
	if s.Elem != nil {
		listRules(s.Elem, path+"[]", into)
	}
	for _, f := range s.Fields {
		at := path + "." + f.Name
		if f.Required {
			into[at+" req"] = true
		}
		if f.When != "" {
			into[at+" when"] = true
		}
		listRules(f.Shape, at, into)
	}
	maps.DeleteFunc(into, func(_ string, is bool) bool { return !is })
}

// breaker breaks one rule of a document after the other.
type breaker struct {
	t        *testing.T
	kind     api.AnyKind
	document map[string]any
	broken   map[string]bool
}

func (b *breaker) spec(spec any) {
	if b.kind.Info().Flat {
		maps.Copy(spec.(map[string]any), map[string]any{"type": b.document["type"], "name": b.document["name"], "mesh": b.document["mesh"]})
		b.document = spec.(map[string]any)
	} else {
		b.document["spec"] = spec
	}
	b.value(b.kind.Shape(), spec, "")
}

func (b *breaker) value(s *api.Shape, v any, path string) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			if s.Elem == nil { // free content
				break
			}
			b.rules(s.Elem, v[i], path+"[]", func(bad any) { v[i] = bad })
		}
	case map[string]any:
		for _, f := range s.Fields {
			member, has := v[f.Name]
			if !has {
				continue
			}
			at := path + "." + f.Name
			b.rules(f.Shape, member, at, func(bad any) { v[f.Name] = bad })
			if f.Required || f.When != "" && v["type"] == f.When {
				delete(v, f.Name)
				b.refused(at, map[bool]string{true: "req", false: "when"}[f.Required])
				v[f.Name] = member
			}
		}
		if s.Fields == nil && s.Elem != nil {
			for name, member := range v {
				b.rules(s.Elem, member, path+"[]", func(bad any) { v[name] = bad })
			}
		}
	}
}

func (b *breaker) rules(s *api.Shape, v any, path string, set func(any)) {
	for rule, bad := range rulesOf(s, v) {
		set(bad)
		b.refused(path, rule)
	}
	set(v)
	b.value(s, v, path)
}

// place is an index or a key within a path.
var place = regexp.MustCompile(`\[[^\]]*\]`)

// refused requires a fault at the field. Some kinds report it below another path,
// which their documents show.
func (b *breaker) refused(path, rule string) {
	b.t.Helper()
	b.broken[path+" "+rule] = true
	body, err := json.Marshal(b.document)
	if err != nil {
		b.t.Fatal(err)
	}
	var r api.Report
	write(b.kind, body, &r)
	field := path[strings.LastIndexByte(path, '.')+1:]
	for _, f := range r.Faults() {
		if name := place.ReplaceAllString(f.Field, ""); name[strings.LastIndexByte(name, '.')+1:] == place.ReplaceAllString(field, "") {
			return
		}
	}
	b.t.Errorf("%s of %s is broken, and the faults are %v\n%s", rule, path, r.Faults(), body)
}
