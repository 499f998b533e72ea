package policy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func stepsOf[C any](confs ...C) []policy.Step[C] {
	var out []policy.Step[C]
	for i, c := range confs {
		m := &api.Meta{ID: api.ID{Kind: "MeshTest", Mesh: "default", Name: fmt.Sprint("p", i)}}
		out = append(out, policy.Step[C]{Source: policy.Source{Policy: m, Index: i}, Conf: c})
	}
	return out
}

// Documents of RFC 7396, appendix A, as far as confs can hold them, and ours.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string
		want  string
	}{
		{"none", nil, `null`},
		{"one is itself, nulls and all", []string{`{"a":null}`}, `{"a":null}`},
		{"replace", []string{`{"a":"b"}`, `{"a":"c"}`}, `{"a":"c"}`},
		{"add", []string{`{"a":"b"}`, `{"b":"c"}`}, `{"a":"b","b":"c"}`},
		{"null says nothing", []string{`{"a":"b"}`, `{"a":null}`}, `{"a":"b"}`},
		{"list over scalar", []string{`{"a":"c"}`, `{"a":["b"]}`}, `{"a":["b"]}`},
		{"scalar over list", []string{`{"a":["b"]}`, `{"a":"c"}`}, `{"a":"c"}`},
		{"object into object", []string{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`}, `{"a":{"b":"d"}}`},
		{"list replaced whole", []string{`{"a":[{"b":"c"}]}`, `{"a":[1]}`}, `{"a":[1]}`},
		{"object over list", []string{`{"a":[1]}`, `{"a":{"b":{"c":null}}}`}, `{"a":{"b":{}}}`},
		{"zero and false are said", []string{`{"a":1,"b":true}`, `{"a":0,"b":false}`}, `{"a":0,"b":false}`},
		{"append", []string{`{"x":{"appendMatch":[1]}}`, `{"x":{"appendMatch":[2,3]}}`, `{"x":{"appendMatch":[1]}}`}, `{"x":{"appendMatch":[1,2,3,1]}}`},
		{"large integers", []string{`{"a":9007199254740993}`, `{"b":1}`}, `{"a":9007199254740993,"b":1}`},
		{"three", []string{`{"h":{"a":1,"b":1,"c":1}}`, `{"h":{"b":2,"c":2}}`, `{"h":{"c":3}}`}, `{"h":{"a":1,"b":2,"c":3}}`},
	} {
		var confs []json.RawMessage
		for _, s := range c.steps {
			confs = append(confs, json.RawMessage(s))
		}
		if got := asJSON(policy.Merge(stepsOf(confs...))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestMergeLeavesTheStepsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		confs := rapid.SliceOfN(rapid.Custom(drawConf), 0, 5).Draw(t, "confs")
		before := asJSON(confs)
		if got, want := asJSON(policy.Merge(stepsOf(confs...))), asJSON(naiveMerge(confs)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		if asJSON(confs) != before {
			t.Fatalf("the steps were %s and are %s", before, asJSON(confs))
		}
	})
}

func TestExplain(t *testing.T) {
	rule := policy.NewRule(stepsOf(
		json.RawMessage(`{"idle":"1h","http":{"request":"15s","idle":"30m"},"appendMatch":[{"v":1}],"tags":{"a.b":"x"}}`),
		json.RawMessage(`{"http":{"request":"5s"},"list":[1,2],"none":null}`),
		json.RawMessage(`{"appendMatch":[{"v":2},{"v":3}],"list":[3]}`),
	))
	var got []string
	for _, f := range rule.Explain() {
		if f.Source != rule.Steps[f.Step].Source {
			t.Errorf("%s: source %v is not that of step %d", f.Path, f.Source, f.Step)
		}
		got = append(got, fmt.Sprintf("%s = %s by %s", f.Path, f.Value, f.Policy.Name))
	}
	want := []string{
		`appendMatch[0] = {"v":1} by p0`,
		`appendMatch[1] = {"v":2} by p2`,
		`appendMatch[2] = {"v":3} by p2`,
		`http.idle = "30m" by p0`,
		`http.request = "5s" by p1`,
		`idle = "1h" by p0`,
		`list = [3] by p2`,
		`tags["a.b"] = "x" by p0`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

// Every scalar of the result is explained by the last step that sets it.
func TestExplainNamesTheLastWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		confs := rapid.SliceOfN(rapid.Custom(drawConf), 1, 5).Draw(t, "confs")
		last := map[string]int{}
		joined := 0
		for i, c := range confs {
			if c.A != nil {
				last["a"] = i
			}
			if c.B != nil && c.B.C != nil {
				last["b.c"] = i
			}
			if c.B != nil && c.B.D != nil {
				last["b.d"] = i
			}
			if len(c.List) > 0 {
				last["list"] = i
			}
			for range c.AppendList {
				last[fmt.Sprintf("appendList[%d]", joined)] = i
				joined++
			}
		}
		got := map[string]int{}
		for _, f := range policy.NewRule(stepsOf(confs...)).Explain() {
			got[f.Path] = f.Step
		}
		if !reflect.DeepEqual(got, last) {
			t.Fatalf("got %v, want %v", got, last)
		}
	})
}

type element = policy.Keyed[[]string, conf]

func TestMergeKeyed(t *testing.T) {
	a := func(n int) conf { return conf{A: &n} }
	got := policy.MergeKeyed(stepsOf(
		[]element{{[]string{"/v1"}, a(1)}, {[]string{"/v2"}, conf{List: []string{"x"}}}, {[]string{"/v3"}, a(3)}},
		[]element{{[]string{"/v2"}, a(4)}, {[]string{"/v1", "/v2"}, a(5)}},
	))
	var lines []string
	for _, r := range got {
		lines = append(lines, fmt.Sprintf("%v %s from %d", r.Key, asJSON(r.Conf), len(r.Steps)))
	}
	want := []string{
		`[/v1 /v2] {"a":5,"b":null} from 1`,
		`[/v2] {"a":4,"b":null,"list":["x"]} from 2`,
		`[/v3] {"a":3,"b":null} from 1`,
		`[/v1] {"a":1,"b":null} from 1`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func TestMergeKeyedEqualsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		elements := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) element {
			return element{rapid.SliceOfN(rapid.SampledFrom([]string{"/a", "/b"}), 1, 2).Draw(t, "key"), drawConf(t)}
		}), 0, 4)
		lists := rapid.SliceOfN(elements, 0, 4).Draw(t, "lists")

		type group struct {
			key   []string
			confs []conf
		}
		var want []group
		for _, list := range lists {
			for _, e := range list {
				g := group{key: e.Key}
				if i := slices.IndexFunc(want, func(w group) bool { return reflect.DeepEqual(w.key, e.Key) }); i >= 0 {
					g = want[i]
					want = slices.Delete(want, i, i+1)
				}
				g.confs = append(slices.Clone(g.confs), e.Conf)
				want = append(want, g)
			}
		}
		slices.Reverse(want)
		got := policy.MergeKeyed(stepsOf(lists...))
		if len(got) != len(want) {
			t.Fatalf("%d rules, want %d", len(got), len(want))
		}
		for i, w := range want {
			if !reflect.DeepEqual(got[i].Key, w.key) || asJSON(got[i].Conf) != asJSON(naiveMerge(w.confs)) || len(got[i].Steps) != len(w.confs) {
				t.Fatalf("rule %d is %v %s, want %v %s", i, got[i].Key, asJSON(got[i].Conf), w.key, asJSON(naiveMerge(w.confs)))
			}
		}
	})
}
