package api_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/atoll-mesh/atoll/api"
)

// FuzzKRI: what is read as a KRI is written as the same one.
func FuzzKRI(f *testing.F) {
	for _, seed := range []string{"kri_m____default_", "kri_msvc_default_east_ns_api_http", "kri__", "kri_mt_a_b_c_d_e_f", "kri_zzz_____"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, section, err := api.ParseKRI(text)
		if err != nil {
			return
		}
		k, ok := api.ByName(id.Kind)
		if !ok {
			t.Fatalf("%q is of no kind: %v", text, id)
		}
		if again := k.Info().KRI(id, section); again != text {
			t.Fatalf("%q is written as %q", text, again)
		}
	})
}

// FuzzDuration: what is read as a duration is written as one that is the same.
func FuzzDuration(f *testing.F) {
	for _, seed := range []string{`"30s"`, `"1h2m3.5s"`, `"-1ns"`, `null`, `7`, `"9223372036854775807ns"`, `"1.5"`, `""`, `"-9223372036.854775808s"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		roundTrip[api.Duration](t, text)
		roundTrip[api.ProtoDuration](t, text)
	})
}

// FuzzIntOrString: what is read as an integer or text is written as it was read,
// and whatever it is as a number is one that can be reckoned with.
func FuzzIntOrString(f *testing.F) {
	for _, seed := range []string{`80`, `"http"`, `"61.5"`, `-1`, `"1e400"`, `"NaN"`, `"0x1p-2"`, `"1_0"`, `2147483648`, `1.5`, `1e2`, `null`, `""`, `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		roundTrip[api.IntOrString](t, text)
		var v api.IntOrString
		if json.Unmarshal(text, &v) != nil {
			return
		}
		n := v.Decimal()
		if math.IsNaN(n) || math.IsInf(n, 0) || !v.Text && n != float64(v.Int) {
			t.Fatalf("%s is the number %v", text, n)
		}
		// A field with a range takes it if, and only if, it is a number within.
		var r api.Report
		spec := append(append([]byte(`{"default":{"backends":[],"sampling":{"overall":`), text...), `}}}`...)
		api.MeshTraces.Decode(api.Meta{}, spec, true, &r)
		if r.Err() == nil && (n < 0 || n > 100) {
			t.Fatalf("%s is taken for a percentage", text)
		}
	})
}

func roundTrip[T comparable](t *testing.T, text []byte) {
	t.Helper()
	var first, second T
	if json.Unmarshal(text, &first) != nil {
		return
	}
	again, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := json.Unmarshal(again, &second); err != nil || first != second {
		t.Fatalf("%s is written as %s, and read as %v, %v", text, again, second, err)
	}
}
