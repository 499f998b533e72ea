package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Field is one value of a merged conf and where it was written.
type Field struct {
	// Path is as in http.requestTimeout, appendMatch[2] or tags["a.b"].
	Path string
	// Value is a scalar or a list; of a list that is joined, one element.
	Value json.RawMessage
	// Step is the position in the rule's Steps of the one with the last word.
	Step int
	Source
}

// Explain lists the fields of the conf, by path, with where they were written.
func (r Rule[C]) Explain() []Field {
	var tree any
	for i, s := range r.Steps {
		tree = patch(tree, tell("", treeOf(s.Conf), i))
	}
	var out []Field
	r.flatten(&out, "", tree)
	return out
}

// told is a value that knows its step. It is no object to patch, so trees with
// told leaves merge as the plain ones do.
type told struct {
	value any
	step  int
}

func tell(name string, value any, step int) any {
	switch v := value.(type) {
	case nil:
		return nil
	case map[string]any:
		for name, value := range v {
			v[name] = tell(name, value, step)
		}
		return v
	case []any:
		if isJoined(name) {
			for i, e := range v {
				v[i] = told{e, step}
			}
			return v
		}
	}
	return told{value, step}
}

func (r Rule[C]) flatten(out *[]Field, path string, tree any) {
	switch t := tree.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(t)) {
			r.flatten(out, join(path, name), t[name])
		}
	case []any:
		for i, value := range t {
			r.flatten(out, fmt.Sprintf("%s[%d]", path, i), value)
		}
	case told:
		body, err := json.Marshal(t.value)
		if err != nil {
			panic("policy: explain: " + err.Error()) // it came out of a decoder
		}
		*out = append(*out, Field{path, body, t.step, r.Steps[t.step].Source})
	}
}

func join(path, name string) string {
	switch {
	case strings.ContainsAny(name, `.["`):
		return path + "[" + strconv.Quote(name) + "]"
	case path == "":
		return name
	}
	return path + "." + name
}
