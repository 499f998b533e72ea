package kds

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds/kdspb"
	"github.com/atoll-mesh/atoll/xds/wire"
)

const envelopeURL = "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource"

// parcel is what one row says on the wire.
type parcel struct {
	name, mesh   string
	labels       map[string]string
	spec, status json.RawMessage
}

// wireName is the key of a resource between control planes: global kinds have a
// trailing dot.
func wireName(name, mesh string) string { return name + "." + mesh }

// splitWireName is the inverse: the mesh is what follows the last dot.
func splitWireName(key string) (name, mesh string, ok bool) {
	i := strings.LastIndexByte(key, '.')
	if i <= 0 {
		return "", "", false
	}
	return key[:i], key[i+1:], true
}

// emptyStatus is what a status without content looks like, or nil for a kind
// that has none (contract: KumaResource envelope).
func emptyStatus(kind string) json.RawMessage {
	switch kind {
	case "MeshService":
		return json.RawMessage(`{"tls":{},"dataplaneProxies":{}}`)
	case "MeshExternalService":
		return json.RawMessage(`{"vip":{}}`)
	case "Workload":
		return json.RawMessage(`{"dataplaneProxies":{"connected":0,"healthy":0,"total":0}}`)
	case "MeshMultiZoneService", "MeshIdentity", "MeshTrust", "MeshOpenTelemetryBackend", "MeshAccessLog", "MeshTrace", "MeshMetric":
		return json.RawMessage(`{}`)
	}
	return nil
}

// encode makes the resource of a parcel. lost lists fields of the spec that the
// protobuf of the kind does not have.
func encode(k api.AnyKind, p parcel) (res *wire.Resource, lost []string, err error) {
	kind := k.Info().Name
	spec := &anypb.Any{Value: p.spec}
	if kdspb.New(kind) != nil {
		m, dropped, err := kdspb.ToProto(kind, p.spec)
		if err != nil {
			return nil, nil, err
		}
		lost = dropped
		if insight, ok := m.(*kdspb.DataplaneInsight); ok {
			for _, s := range insight.Subscriptions {
				s.Generation = 0 // moves only to prove liveness
			}
		}
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", kind, err)
		}
		spec = &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
	}
	envelope := &kdspb.KumaResource{
		Meta: &kdspb.KumaResource_Meta{Name: p.name, Mesh: p.mesh, Labels: p.labels},
		Spec: spec,
	}
	if empty := emptyStatus(kind); empty != nil {
		if len(p.status) == 0 {
			p.status = empty
		}
		envelope.Status = &anypb.Any{Value: p.status}
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(envelope)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", kind, p.name, err)
	}
	var sum [8]byte
	for i, h := 0, xxhash.Sum64(body); i < 8; i++ {
		sum[i] = byte(h >> (56 - 8*i))
	}
	return wire.EncodeAny(envelopeURL, wireName(p.name, p.mesh), hex.EncodeToString(sum[:]), body), lost, nil
}

// decode opens a received resource. What it returns is the peer's word: nothing
// of it is checked against the model yet.
func decode(k api.AnyKind, r *discovery.Resource) (p parcel, lost []string, err error) {
	if u := r.GetResource().GetTypeUrl(); u != envelopeURL {
		return parcel{}, nil, fmt.Errorf("resource is a %q: %w", u, ErrProtocol)
	}
	envelope := &kdspb.KumaResource{}
	if err := proto.Unmarshal(r.GetResource().GetValue(), envelope); err != nil {
		return parcel{}, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	p = parcel{name: envelope.GetMeta().GetName(), mesh: envelope.GetMeta().GetMesh(), labels: envelope.GetMeta().GetLabels()}
	if key := wireName(p.name, p.mesh); key != r.GetName() {
		return parcel{}, nil, fmt.Errorf("the envelope says %q: %w", key, ErrProtocol)
	}
	kind, spec := k.Info().Name, envelope.GetSpec()
	if spec.GetTypeUrl() == "" && (len(spec.GetValue()) > 0 || kdspb.New(kind) == nil) {
		p.spec, err = object(spec.GetValue())
	} else {
		p.spec, lost, err = flat(kind, spec)
	}
	if err != nil {
		return parcel{}, nil, fmt.Errorf("spec: %w", err)
	}
	if envelope.Status != nil {
		if p.status, err = object(envelope.Status.GetValue()); err != nil {
			return parcel{}, nil, fmt.Errorf("status: %w", err)
		}
	}
	return p, lost, nil
}

// flat opens the spec of a kind that crosses as protobuf.
func flat(kind string, spec *anypb.Any) (json.RawMessage, []string, error) {
	if spec == nil {
		return json.RawMessage("{}"), nil, nil
	}
	m, err := kdspb.FromAny(kind, spec)
	if err != nil {
		return nil, nil, err
	}
	return kdspb.ToJSON(m)
}

// object checks that bytes are a JSON object and takes the spaces out.
func object(b []byte) (json.RawMessage, error) {
	if len(b) == 0 {
		return json.RawMessage("{}"), nil
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if out.Len() == 0 || out.Bytes()[0] != '{' {
		return nil, fmt.Errorf("want a JSON object: %w", ErrProtocol)
	}
	return out.Bytes(), nil
}
