package envoy_test

import (
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// Envoy takes every operator that a format may have.
func TestOperators(t *testing.T) {
	format := strings.Join(envoy.Operators(), " ")
	if err := envoy.CheckFormat(format); err != nil {
		t.Error(err)
	}
	l, err := envoy.Listener(ir.Listener{
		Name: "all", Address: ir.Address{Host: "127.0.0.1", Port: 10000},
		Chains: []ir.Chain{{TCP: &ir.TCP{Backends: []ir.Backend{{Cluster: "x"}}}, Logs: []ir.AccessLog{{Path: "/dev/null", Format: format}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var all batch
	all.add("operators", l)
	all.validate(t)
}

func TestCheckFormat(t *testing.T) {
	for format, want := range map[string]string{
		"":                  "",
		"text, 100%% of it": "",
		"[%START_TIME(%Y/%m)%] %REQ(A?:PATH):9%%% %DYNAMIC_METADATA(a:b)%": "",
		"%START_TIME% %OURS%":         "",
		"%RESPONSE_CODE%%BYTES_SENT%": "",
		"%RESPONSECODE%":              `no command operator "RESPONSECODE"`,
		"100% of it":                  "is not closed",
		"50% of 100%":                 `no command operator ""`,
		"%REQ%":                       "REQ needs parameters",
		"%RESPONSE_CODE(x)%":          "RESPONSE_CODE takes no parameters",
		"%RESPONSE_CODE:3%":           "RESPONSE_CODE takes no parameters",
		"%OURS(x)%":                   "OURS takes no parameters",
		"%response_code%":             "no command operator",
		"%START_TIME% %THEIRS%":       "THEIRS",
	} {
		err := envoy.CheckFormat(format, "OURS")
		if got := errorText(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
