package inspect

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value *any   `json:"value,omitempty"` // nil: has none
}

// difference is the patch that makes b of a, both as encoding/json decodes
// objects. It tests what it removes or replaces, so that it can be read and
// undone without knowing a. Equal documents have an empty patch.
func difference(a, b tree) []operation {
	p := patch{ops: []operation{}}
	p.objects("", a, b)
	return p.ops
}

type patch struct{ ops []operation }

func (p *patch) values(path string, a, b any) {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			p.objects(path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			p.lists(path, x, y)
			return
		}
	}
	if !reflect.DeepEqual(a, b) {
		p.ops = append(p.ops, operation{"test", path, &a}, operation{"replace", path, &b})
	}
}

func (p *patch) objects(path string, a, b map[string]any) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		x, had := a[name]
		y, has := b[name]
		at := path + "/" + pointer.Replace(name)
		switch {
		case !has:
			p.remove(at, x)
		case !had:
			p.ops = append(p.ops, operation{"add", at, &y})
		default:
			p.values(at, x, y)
		}
	}
}

// lists leaves alone what both begin and end with.
func (p *patch) lists(path string, a, b []any) {
	same := 0
	for same < min(len(a), len(b)) && reflect.DeepEqual(a[same], b[same]) {
		same++
	}
	for len(a) > same && len(b) > same && reflect.DeepEqual(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	at := func(i int) string { return path + "/" + strconv.Itoa(i) }
	both := min(len(a), len(b))
	for i := same; i < both; i++ {
		p.values(at(i), a[i], b[i])
	}
	for i := len(a) - 1; i >= both; i-- {
		p.remove(at(i), a[i])
	}
	for i := both; i < len(b); i++ {
		p.ops = append(p.ops, operation{"add", at(i), &b[i]})
	}
}

func (p *patch) remove(path string, value any) {
	p.ops = append(p.ops, operation{"test", path, &value}, operation{Op: "remove", Path: path})
}

// pointer escapes a name in a JSON pointer (RFC 6901).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")
