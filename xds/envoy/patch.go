package envoy

import (
	"encoding/json"
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// patched is what a patch may add or change, by the words of MeshProxyPatch.
func patched(target string) (message, bool) {
	switch target {
	case "cluster":
		return &clusterv3.Cluster{}, true
	case "listener":
		return &listenerv3.Listener{}, true
	case "networkFilter":
		return &listenerv3.Filter{}, true
	case "httpFilter":
		return &hcmv3.HttpFilter{}, true
	case "virtualHost":
		return &routev3.VirtualHost{}, true
	}
	return nil, false
}

// ParsePatch reads the value of a patch: the JSON of the protobuf that target
// (cluster, listener, networkFilter, httpFilter, virtualHost) is. One that is
// whole must also pass Envoy's validation rules, inside its opaque parts too; one
// that is not is merged into another, where it has the rules to pass.
func ParsePatch(target string, value json.RawMessage, whole bool) (protoreflect.ProtoMessage, error) {
	m, ok := patched(target)
	if !ok {
		return nil, fmt.Errorf("%w: a patch cannot be of a %q", ErrInvalid, target)
	}
	if err := protojson.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if whole {
		if err := validateAll(m.ProtoReflect()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return m, nil
}

// validateAll validates a message and, since generated validation stops there,
// what is inside its opaque parts.
func validateAll(m protoreflect.Message) error {
	if rules, ok := m.Interface().(message); ok {
		if err := rules.ValidateAll(); err != nil {
			return err
		}
	}
	return validateOpaque(m)
}

func validateOpaque(m protoreflect.Message) error {
	if opaque, ok := m.Interface().(*anypb.Any); ok {
		inner, err := opaque.UnmarshalNew()
		if err != nil {
			return err
		}
		return validateAll(inner.ProtoReflect())
	}
	var faults []error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					faults = append(faults, validateOpaque(v.Message()))
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				faults = append(faults, validateOpaque(v.List().Get(i).Message()))
			}
		default:
			faults = append(faults, validateOpaque(v.Message()))
		}
		return true
	})
	return errors.Join(faults...)
}
