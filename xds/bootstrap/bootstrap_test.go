package bootstrap_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

var update = flag.Bool("update", false, "rewrite the expected bootstraps in testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// findEnvoy skips the test where there is no Envoy.
func findEnvoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ATOLL_ENVOY"); path != "" {
		return path
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	if path, err := filepath.Abs("../../.tools/envoy/envoy"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no Envoy in $ATOLL_ENVOY, on PATH or in .tools/envoy (`make envoy` fetches it)")
	return ""
}

// TestBuild runs testdata/*.txtar: request.yaml and params.yaml make bootstrap.yaml,
// and Envoy accepts it.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]*txtar.File{}
			for i := range archive.Files {
				parts[archive.Files[i].Name] = &archive.Files[i]
			}
			var req bootstrap.Request
			if err := yaml.UnmarshalStrict(parts["request.yaml"].Data, &req); err != nil {
				t.Fatal(err)
			}
			var p bootstrap.Params
			if err := yaml.UnmarshalStrict(parts["params.yaml"].Data, &p); err != nil {
				t.Fatal(err)
			}
			got, err := bootstrap.Build(req, p)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := bootstrap.Build(req, p); string(again) != string(got) {
				t.Error("built twice, it differs")
			}
			if *update {
				parts["bootstrap.yaml"].Data = got
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(parts["bootstrap.yaml"].Data), string(got)); diff != "" {
				t.Errorf("-expected +built\n%s", diff)
			}
			validate(t, got)
		})
	}
}

func validate(t *testing.T, text []byte) {
	binary := findEnvoy(t)
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--mode", "validate", "-l", "warning", "-c", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "deprecated") {
		t.Errorf("Envoy: %v\n%s", err, out)
	}
}

func TestBuildRefusesMetadataThatIsNoObject(t *testing.T) {
	_, err := bootstrap.Build(bootstrap.Request{Mesh: "m", Name: "n", DataplaneConfig: []byte(`[1]`)}, bootstrap.DefaultParams())
	if err == nil || !strings.Contains(err.Error(), "transparentProxy") {
		t.Errorf("error %v", err)
	}
}

func TestParse(t *testing.T) {
	row, err := bootstrap.Parse(`{"type":"Dataplane","mesh":"shop","name":"api","labels":{"kuma.io/workload":"api"},"networking":{"address":"10.0.0.9"}}`, "")
	if err != nil {
		t.Fatal(err)
	}
	dp := row.(*api.Object[api.Dataplane])
	if dp.Mesh != "shop" || dp.Name != "api" || dp.Label("kuma.io/workload") != "api" || dp.Spec.Networking.Address != "10.0.0.9" {
		t.Errorf("%+v", dp)
	}
	for name, text := range map[string]string{
		"no YAML":      "{",
		"a list":       "[]",
		"no type":      "name: x",
		"another type": "type: Mesh\nname: x",
		"unknown type": "type: Dataplan\nname: x",
		"key twice":    "type: Dataplane\ntype: Dataplane\nname: x",
	} {
		if _, err := bootstrap.Parse(text, "dataplane"); !errors.Is(err, bootstrap.ErrDefinition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for proxyType, text := range map[string]string{
		"ingress": "type: ZoneIngress\nname: in\nnetworking: {address: 10.0.0.9, port: 1}",
		"egress":  "type: ZoneEgress\nname: out\nnetworking: {address: 10.0.0.9, port: 1}",
	} {
		if row, err := bootstrap.Parse(text, proxyType); err != nil || row.Head().Mesh != "" {
			t.Errorf("%s: %v %v", proxyType, row, err)
		}
		for _, other := range []string{"", "dataplane", "gateway"} {
			_, err := bootstrap.Parse(text, other)
			if want := "for proxies of type " + proxyType; !errors.Is(err, bootstrap.ErrDefinition) || other != "gateway" && !strings.Contains(err.Error(), want) {
				t.Errorf("%s as %q: %v", proxyType, other, err)
			}
		}
	}
	_, err = bootstrap.Parse("type: Dataplane\nmesh: shop\nname: api\nnetworking: {adress: 1.1.1.1, inbound: [{port: 99999}]}", "dataplane")
	var invalid *api.Invalid
	if !errors.As(err, &invalid) || len(invalid.Faults) < 2 {
		t.Errorf("expected every fault at once, not %v", err)
	}
}

func TestAccessLogSocketIsCut(t *testing.T) {
	long := bootstrap.AccessLogSocket("/run/atoll", strings.Repeat("n", 200), "mesh")
	if len(long) != 103 || !strings.HasSuffix(long, "n.sock") {
		t.Errorf("%d bytes: %s", len(long), long)
	}
	if got := bootstrap.AccessLogSocket("/run/atoll", "api", "shop"); got != "/run/atoll/kuma-al-api-shop.sock" {
		t.Error(got)
	}
}

// Where Envoy runs in the work directory, names of sockets have a common bound.
func TestCollectorSocket(t *testing.T) {
	for _, c := range []struct{ dir, name, want string }{
		{"/run/atoll", "main-5bbwdf45w44954fc", "/run/atoll/kuma-otel-main-5bbwdf45w44954fc.sock"},
		{"", "main", "kuma-otel-main.sock"},
	} {
		if got := bootstrap.CollectorSocket(c.dir, c.name); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	a, b := bootstrap.CollectorSocket("", strings.Repeat("n", 200)), bootstrap.CollectorSocket("", strings.Repeat("n", 201))
	if a == b || len(a) > len(bootstrap.DynamicSocketName) {
		t.Error(a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("type: Dataplane\nmesh: shop\nname: api\nnetworking: {address: 10.0.0.9}", "dataplane")
	f.Add(`{"type":"Dataplane","labels":{"a":1}}`, "")
	f.Add("type: ZoneIngress\nname: in\nnetworking: {address: 10.0.0.9, port: 1}", "ingress")
	f.Fuzz(func(t *testing.T, text, proxyType string) {
		if row, err := bootstrap.Parse(text, proxyType); err == nil && row == nil {
			t.Error("neither a row nor an error")
		}
	})
}
