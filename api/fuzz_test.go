package api_test

import (
	"encoding/json"
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
