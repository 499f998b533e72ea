package inspect

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"pgregory.net/rapid"
)

// drawTree draws a document; pools are small, so that two have much in common.
// Nulls are left out: the library that applies patches here cannot compare them.
func drawTree(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	if depth == 0 {
		kind %= 4
	}
	switch kind {
	case 0:
		return rapid.SampledFrom([]any{true, false}).Draw(t, "constant")
	case 1:
		return float64(rapid.IntRange(0, 2).Draw(t, "number"))
	case 2, 3:
		return rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "text")
	case 4:
		list := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			list = append(list, drawTree(t, depth-1))
		}
		return list
	}
	return drawObject(t, depth-1)
}

func drawObject(t *rapid.T, depth int) tree {
	out := tree{}
	for range rapid.IntRange(0, 3).Draw(t, "members") {
		out[rapid.SampledFrom([]string{"x", "a/b", "~", "0", "~1"}).Draw(t, "name")] = drawTree(t, depth)
	}
	return out
}

func TestDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawObject(t, 3), drawObject(t, 3)
		encode := func(v any) []byte {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		ops := difference(a, b)
		patch, err := jsonpatch.DecodePatch(encode(ops))
		if err != nil {
			t.Fatal(err)
		}
		text, err := patch.Apply(encode(a))
		if err != nil {
			t.Fatalf("%s of %s: %v", encode(ops), encode(a), err)
		}
		var got tree
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, b) {
			t.Fatalf("%s of %s makes %s (%v)\nwant %s", encode(ops), encode(a), text, err, encode(b))
		}
		for i, op := range ops {
			if (op.Op == "remove" || op.Op == "replace") && (i == 0 || ops[i-1].Op != "test" || ops[i-1].Path != op.Path) {
				t.Fatalf("%s %s is not tested: %s", op.Op, op.Path, encode(ops))
			}
		}
		if same := difference(a, a); len(same) != 0 || !strings.HasPrefix(string(encode(same)), "[") {
			t.Fatalf("a document differs from itself: %s", encode(same))
		}
	})
}
