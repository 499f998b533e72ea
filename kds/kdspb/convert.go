package kdspb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/atoll-mesh/atoll/kds/kdspb/systempb"
)

// ErrSpec is returned for a spec that does not fit the kind.
var ErrSpec = errors.New("spec does not fit the kind")

// New returns an empty message for the spec of the kind, or nil if the kind
// crosses as JSON.
func New(kind string) proto.Message {
	switch kind {
	case "Mesh":
		return &Mesh{}
	case "Dataplane":
		return &Dataplane{}
	case "DataplaneInsight":
		return &DataplaneInsight{}
	case "ServiceInsight":
		return &ServiceInsight{}
	case "Secret", "GlobalSecret":
		return &systempb.Secret{}
	case "Config":
		return &systempb.Config{}
	}
	return nil
}

// ToProto turns the JSON of a spec into the message of the kind (see [New]).
// lost lists the paths of fields that the message does not have.
func ToProto(kind string, spec json.RawMessage) (m proto.Message, lost []string, err error) {
	m = New(kind)
	if m == nil {
		return nil, nil, fmt.Errorf("%s crosses as JSON: %w", kind, ErrSpec)
	}
	if len(spec) == 0 {
		return m, nil, nil
	}
	strict := protojson.Unmarshal(spec, m)
	if strict == nil {
		return m, nil, nil
	}
	proto.Reset(m)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(spec, m); err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", kind, ErrSpec, err)
	}
	var tree any
	if json.Unmarshal(spec, &tree) == nil {
		lost = unknownKeys(nil, "", tree, m.ProtoReflect().Descriptor())
	}
	return m, lost, nil
}

// FromAny turns the Any of an envelope into the message of the kind. Only the
// message of the kind is accepted, whatever else is linked into the program.
func FromAny(kind string, a *anypb.Any) (proto.Message, error) {
	m := New(kind)
	if m == nil {
		return nil, fmt.Errorf("%s crosses as JSON: %w", kind, ErrSpec)
	}
	if want := m.ProtoReflect().Descriptor().FullName(); a.MessageName() != want {
		return nil, fmt.Errorf("%s: got %q, want %s: %w", kind, a.GetTypeUrl(), want, ErrSpec)
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", kind, ErrSpec, err)
	}
	return m, nil
}

// ToJSON turns the message of a kind into the JSON of its spec. lost lists what
// JSON cannot carry: the fields that this side does not know, as
// path#field-number.
func ToJSON(m proto.Message) (spec json.RawMessage, lost []string, err error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	var b bytes.Buffer // the marshaller varies its spaces on purpose
	if err := json.Compact(&b, raw); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return b.Bytes(), unknownNumbers(nil, "", m.ProtoReflect()), nil
}

func unknownNumbers(out []string, path string, m protoreflect.Message) []string {
	for raw := m.GetUnknown(); len(raw) > 0; {
		number, _, n := protowire.ConsumeField(raw)
		if n < 0 {
			break
		}
		if at := fmt.Sprintf("%s#%d", path, number); !slices.Contains(out, at) {
			out = append(out, at)
		}
		raw = raw[n:]
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := join(path, f.JSONName())
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					out = unknownNumbers(out, join(at, k.String()), v.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				out = unknownNumbers(out, fmt.Sprintf("%s[%d]", at, i), v.List().Get(i).Message())
			}
		default:
			out = unknownNumbers(out, at, v.Message())
		}
		return true
	})
	slices.Sort(out)
	return out
}

func unknownKeys(out []string, path string, tree any, d protoreflect.MessageDescriptor) []string {
	object, ok := tree.(map[string]any)
	if !ok || strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return out
	}
	for key, v := range object {
		at := join(path, key)
		f := d.Fields().ByJSONName(key)
		if f == nil {
			f = d.Fields().ByTextName(key)
		}
		switch {
		case f == nil:
			out = append(out, at)
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			list, _ := v.([]any)
			for i := range list {
				out = unknownKeys(out, fmt.Sprintf("%s[%d]", at, i), list[i], f.Message())
			}
		default:
			out = unknownKeys(out, at, v, f.Message())
		}
	}
	slices.Sort(out)
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
