package kdspb_test

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/atoll-mesh/atoll/kds/kdspb"
)

// The examples are those of the contract: bytes that a peer accepted.
func TestBytes(t *testing.T) {
	for _, c := range []struct{ kind, url, json, hex string }{
		{"Mesh", "kuma.mesh.v1alpha1.Mesh", `{"skipCreatingInitialPolicies":["*"]}`, "42012a"},
		{"Mesh", "kuma.mesh.v1alpha1.Mesh", `{}`, ""},
		{"Secret", "kuma.system.v1alpha1.Secret", `{"data":"dGVzdA=="}`, "0a060a0474657374"},
		{"GlobalSecret", "kuma.system.v1alpha1.Secret", `{"data":"dGVzdA=="}`, "0a060a0474657374"},
		{"Dataplane", "kuma.mesh.v1alpha1.Dataplane", `{"networking":{"inbound":[{"port":8080,"name":"http","protocol":"http"}],"address":"192.168.0.1"}}`,
			"0a1e0a0f18903f5204687474705a04687474702a0b3139322e3136382e302e31"},
	} {
		m, lost, err := kdspb.ToProto(c.kind, []byte(c.json))
		if err != nil || lost != nil {
			t.Fatalf("%s: %v, lost %v", c.kind, err, lost)
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || hex.EncodeToString(b) != c.hex {
			t.Errorf("%s: %x (%v), want %s", c.kind, b, err, c.hex)
		}
		back, err := kdspb.FromAny(c.kind, &anypb.Any{TypeUrl: "type.googleapis.com/" + c.url, Value: b})
		if err != nil {
			t.Fatal(err)
		}
		spec, lost, err := kdspb.ToJSON(back)
		if err != nil || lost != nil || string(spec) != c.json {
			t.Errorf("%s: %s (%v, lost %v), want %s", c.kind, spec, err, lost, c.json)
		}
	}
}

func TestWhatIsLostIsSaid(t *testing.T) {
	m, lost, err := kdspb.ToProto("Dataplane", []byte(`{"networking":{"address":"a","inbound":[{"port":1,"tags":{"x":"y"},"odd":1}],"new":{}},"labels2":{}}`))
	if err != nil || !slices.Equal(lost, []string{"labels2", "networking.inbound[0].odd", "networking.new"}) {
		t.Errorf("lost %v, %v", lost, err)
	}
	inbound := m.(*kdspb.Dataplane).Networking.Inbound[0]
	if inbound.Tags["x"] != "y" {
		t.Error("tags of an older generation are not kept")
	}
	inbound.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	_, lost, err = kdspb.ToJSON(m)
	if err != nil || !slices.Equal(lost, []string{"networking.inbound[0]#99"}) {
		t.Errorf("lost %v, %v", lost, err)
	}
}

func TestWrongSpec(t *testing.T) {
	if _, _, err := kdspb.ToProto("Dataplane", []byte(`{"networking":"none"}`)); !errors.Is(err, kdspb.ErrSpec) {
		t.Errorf("wrong shape: %v", err)
	}
	if _, _, err := kdspb.ToProto("MeshTimeout", []byte(`{}`)); !errors.Is(err, kdspb.ErrSpec) {
		t.Errorf("kind that crosses as JSON: %v", err)
	}
	any := &anypb.Any{TypeUrl: "type.googleapis.com/kuma.mesh.v1alpha1.Mesh"}
	if _, err := kdspb.FromAny("Dataplane", any); !errors.Is(err, kdspb.ErrSpec) {
		t.Errorf("message of another kind: %v", err)
	}
}
