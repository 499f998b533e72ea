package ir_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// This fails to compile when a type that takes part in query keys is no longer comparable.
var _ = map[any]struct{}{
	key[ir.Address]{}: {}, key[ir.Duration]{}: {}, key[ir.Timeouts]{}: {}, key[ir.Backend]{}: {}, key[ir.PeerMatch]{}: {},
	key[ir.Share]{}: {},
}

type key[K comparable] struct{}

func durations() *rapid.Generator[ir.Duration] {
	return rapid.Custom(func(t *rapid.T) ir.Duration {
		if rapid.Bool().Draw(t, "set") {
			return ir.Span(time.Duration(rapid.Int64().Draw(t, "span")))
		}
		return ir.Duration{}
	})
}

func timeouts() *rapid.Generator[ir.Timeouts] {
	return rapid.Custom(func(t *rapid.T) ir.Timeouts {
		d := func(name string) ir.Duration { return durations().Draw(t, name) }
		return ir.Timeouts{
			Connect: d("connect"), Idle: d("idle"), Request: d("request"), StreamIdle: d("streamIdle"),
			MaxStream: d("maxStream"), MaxConnection: d("maxConnection"), RequestHeaders: d("requestHeaders"),
		}
	})
}

// TestDurationText: unset, zero and any other span are told apart after being written and read, also into a used value.
func TestDurationText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := timeouts().Draw(t, "timeouts"), ir.Timeouts{}
		text, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &after); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatal(diff)
		}
	})
	used := ir.Span(time.Second)
	if err := used.UnmarshalText(nil); err != nil || used.Set {
		t.Errorf("empty text left %v, %v", used, err)
	}
	if err := used.UnmarshalText([]byte("soon")); err == nil {
		t.Error("took \"soon\" for a span")
	}
}

// TestOr: what is set stays, zero included; the rest comes from the other; so the first of three that is set wins
// whichever two are joined first.
func TestOr(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := timeouts().Draw(t, "a"), timeouts().Draw(t, "b"), timeouts().Draw(t, "c")
		if left, right := a.Or(b).Or(c), a.Or(b.Or(c)); left != right {
			t.Fatalf("%v, %v", left, right)
		}
		if a.Or(ir.Timeouts{}) != a || (ir.Timeouts{}).Or(a) != a {
			t.Fatal("nothing set changes something")
		}
		if a.Request.Set && a.Or(b).Request != a.Request {
			t.Fatal("a set span was replaced")
		}
	})
}

func TestSecretDoesNotPrint(t *testing.T) {
	s := ir.Secret{Name: "id", Chain: "certificate", Key: "private"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, s); strings.Contains(text, "private") {
			t.Errorf("%s prints the key: %s", verb, text)
		}
	}
}
