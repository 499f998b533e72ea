package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Merge returns what the steps say together: RFC 7396, later over earlier.
// Objects merge deeply, lists are replaced as a whole, except that lists whose
// name starts with "append" are joined, earlier first. Absent and null mean
// "nothing said". One step is its own result; none is the zero conf.
func Merge[C any](steps []Step[C]) C {
	var out C
	switch len(steps) {
	case 0:
		return out
	case 1:
		return steps[0].Conf
	}
	var tree any
	for _, s := range steps {
		tree = patch(tree, treeOf(s.Conf))
	}
	body, err := json.Marshal(tree)
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	if err != nil {
		panic(fmt.Sprintf("policy: a merged %T does not decode: %v", out, err))
	}
	return out
}

func treeOf(conf any) any {
	body, err := json.Marshal(conf)
	var tree any
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber() // integers beyond 2⁵³ stay what they are
		err = dec.Decode(&tree)
	}
	if err != nil {
		panic(fmt.Sprintf("policy: a %T does not encode: %v", conf, err))
	}
	return tree
}

// patch changes target and may keep parts of change; both are private to the
// merge. A null in change says nothing: written specs cannot carry one, it is
// how an unset pointer encodes.
func patch(target, change any) any {
	with, ok := change.(map[string]any)
	if !ok {
		if change == nil {
			return target
		}
		return change
	}
	into, ok := target.(map[string]any)
	if !ok {
		into = make(map[string]any, len(with))
	}
	for name, value := range with {
		if value == nil {
			continue
		}
		if list, more, ok := joined(name, into[name], value); ok {
			into[name] = slices.Concat(list, more)
			continue
		}
		into[name] = patch(into[name], value)
	}
	return into
}

func isJoined(name string) bool { return strings.HasPrefix(name, "append") }

// joined reports whether both values of a field are lists to be joined.
func joined(name string, old, new any) (list, more []any, ok bool) {
	if !isJoined(name) {
		return nil, nil, false
	}
	list, ok1 := old.([]any)
	more, ok2 := new.([]any)
	return list, more, ok1 && ok2
}

// Keyed is an element of a list whose elements are matched up by a key, as
// MeshHTTPRoute's rules are by their matches.
type Keyed[K, C any] struct {
	Key  K
	Conf C
}

// KeyedRule is the merge of all elements with one key.
type KeyedRule[K, C any] struct {
	Key K
	Rule[C]
}

// MergeKeyed merges the elements whose keys are deeply equal. An element that
// comes again counts at its later place. The most important is first in the
// result: it is in the reverse order of the steps.
func MergeKeyed[K, C any](steps []Step[[]Keyed[K, C]]) []KeyedRule[K, C] {
	type group struct {
		key   K
		steps []Step[C]
		last  int
	}
	groups := map[string]*group{}
	n := 0
	for _, s := range steps {
		for _, e := range s.Conf {
			name, err := json.Marshal(e.Key)
			if err != nil {
				panic(fmt.Sprintf("policy: a %T does not encode: %v", e.Key, err))
			}
			g := groups[string(name)]
			if g == nil {
				g = &group{key: e.Key}
				groups[string(name)] = g
			}
			g.steps = append(g.steps, Step[C]{s.Source, e.Conf})
			g.last = n
			n++
		}
	}
	ordered := make([]*group, n)
	for _, g := range groups {
		ordered[g.last] = g
	}
	out := make([]KeyedRule[K, C], 0, len(groups))
	for _, g := range slices.Backward(ordered) {
		if g != nil {
			out = append(out, KeyedRule[K, C]{g.key, NewRule(g.steps)})
		}
	}
	return out
}
