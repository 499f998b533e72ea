package envoy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var update = flag.Bool("update", false, "rewrite the expected configuration in testdata")

// TestCases runs testdata/*.txtar. A file holds pairs: KIND[-LABEL].ir.yaml, what is asked for, and KIND[-LABEL].envoy.yaml,
// what comes out; or KIND[-LABEL].error, why nothing does.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	var all batch
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			runCase(t, file, &all)
		})
	}
	t.Run("accepted by Envoy", all.validate)
}

func runCase(t *testing.T, file string, all *batch) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	expected := make(map[string]string)
	for _, f := range archive.Files {
		expected[f.Name] = string(f.Data)
	}
	out := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		name, is := strings.CutSuffix(f.Name, ".ir.yaml")
		if !is {
			continue
		}
		kind, _, _ := strings.Cut(name, "-")
		made, err := build(t, kind, f.Data)
		result := txtar.File{Name: name + ".envoy.yaml"}
		if err != nil {
			result.Name, result.Data = name+".error", []byte(err.Error()+"\n")
		} else {
			result.Data = asYAML(t, made)
			all.add(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+name, made)
			again, err := build(t, kind, f.Data)
			if err != nil || cmp.Diff(marshal(t, made), marshal(t, again)) != "" {
				t.Errorf("%s: built twice, got different bytes", name)
			}
		}
		out.Files = append(out.Files, f, result)
		if diff := cmp.Diff(expected[result.Name], string(result.Data)); diff != "" && !*update {
			t.Errorf("%s (-want +got):\n%s", result.Name, diff)
		}
		delete(expected, f.Name)
		delete(expected, result.Name)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for name := range expected {
		t.Errorf("%s: nothing made it", name)
	}
}

func build(t *testing.T, kind string, input []byte) (proto.Message, error) {
	switch kind {
	case "listener":
		return built(t, input, envoy.Listener)
	case "cluster":
		return built(t, input, envoy.Cluster)
	case "endpoints":
		return built(t, input, envoy.Endpoints)
	case "routes":
		return built(t, input, envoy.Routes)
	case "secret":
		return built(t, input, envoy.Secret)
	case "bundle":
		return built(t, input, envoy.TrustBundle)
	}
	t.Fatalf("unknown kind %q", kind)
	return nil, nil
}

// built also requires that the IR survives being written and read: that is how it is shown and compared.
func built[I any, M proto.Message](t *testing.T, input []byte, make func(I) (M, error)) (proto.Message, error) {
	t.Helper()
	var in, again I
	if err := yaml.UnmarshalStrict(input, &in); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, again); diff != "" {
		t.Errorf("IR changed by writing and reading it (-before +after):\n%s", diff)
	}
	out, err := make(in)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func asYAML(t *testing.T, m proto.Message) []byte {
	t.Helper()
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.JSONToYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestStatesEveryFault: an author who has to come back for each next fault stops coming back.
func TestStatesEveryFault(t *testing.T) {
	_, err := envoy.Listener(ir.Listener{
		Name:      "many",
		Address:   ir.Address{Host: "127.0.0.1", Port: 1},
		Direction: "sideways",
		Chains: []ir.Chain{
			{Name: "none"},
			{Name: "tls", TLS: &ir.ServerTLS{Identity: "id"}, TCP: &ir.TCP{}},
		},
	})
	for _, fault := range []string{"sideways", `"none"`, "no trust bundle", "no backend"} {
		if !strings.Contains(fmt.Sprint(err), fault) {
			t.Errorf("does not name %s: %v", fault, err)
		}
	}
}
