package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// configBody is what a proxy would be sent: resources by type and name.
type configBody struct {
	XDS  tree        `json:"xds"`
	Diff []operation `json:"diff,omitzero"`
	// Failures are resources that cannot be made: a proxy keeps what it had.
	Failures []string `json:"failures,omitempty"`
}

type tree = map[string]any

func (s *inspector) configEndpoint() rest.Endpoint {
	return rest.Endpoint{
		Pattern: itemPath(api.Dataplanes.Plural) + "_config", Handle: s.config,
		Grant: func(a auth.Access) auth.Grant { return a.ViewConfigDump }, Action: api.ActionViewConfigDump,
		Doc: doc[configBody]("What a proxy would be sent now", shadowParam,
			openapi.Param{Name: "include", Doc: "diff: what would change if shadow policies were in force, as a JSON patch, too."}),
	}
}

// config is what the proxy would be sent now, and what would change if the
// policies that are marked as shadow were in force.
func (s *inspector) config(w http.ResponseWriter, r *http.Request) error {
	if s.site.IsGlobal() {
		return &rest.Problem{Status: http.StatusMethodNotAllowed, Title: "Method not Allowed", Detail: "Not allowed on global CP"}
	}
	shadow, err := flag(r, "shadow")
	if err != nil {
		return err
	}
	diff, err := includes(r, "diff")
	if err != nil {
		return err
	}
	snap := s.db.Snapshot()
	dp, err := dataplane(snap, r, titleConfig)
	if err != nil {
		return err
	}
	if _, ok := api.DataplaneInsights.RowNamed(snap, dp.Mesh, dp.Core); !ok {
		return rest.NotFound(titleConfig)
	}
	body, err := s.configOf(r.Context(), dp.ID, shadow, diff)
	if err != nil {
		return err
	}
	rest.WriteJSON(w, http.StatusOK, body)
	return nil
}

// configOf makes one answer at a time: it is the costliest there is, and open
// to everybody unless an operator says otherwise.
func (s *inspector) configOf(ctx context.Context, proxy api.ID, shadow, diff bool) (body configBody, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return body, ctx.Err()
	}
	now := s.db.Snapshot()
	then := now
	if shadow || diff {
		if now, then, err = s.inForce(proxy.Mesh); err != nil {
			return body, err
		}
	}
	at, other := now, then
	if shadow {
		at, other = then, now
	}
	if body.XDS, body.Failures, err = resources(at, proxy); err != nil || !diff {
		return body, err
	}
	with, _, err := resources(other, proxy)
	if err != nil {
		return body, err
	}
	if shadow {
		body.Diff = difference(with, body.XDS)
	} else {
		body.Diff = difference(body.XDS, with)
	}
	return body, nil
}

// inForce returns the state of the database, and the one in which the shadow
// policies of a mesh are in force. The latter is never published. Writers wait
// for one pass over the policies of the mesh, and for those in the shadow, of
// which there are few, to be entered.
func (s *inspector) inForce(mesh string) (now, then *db.Snapshot, err error) {
	return s.db.Suppose(func(tx *db.Tx) error {
		for _, k := range policyKinds() {
			for _, row := range slices.Collect(k.Rows(tx, mesh)) {
				m := *row.Head()
				if m.Label(api.LabelEffect) != "shadow" {
					continue
				}
				m.Labels = without(m.Labels, api.LabelEffect)
				var report api.Report
				k.Put(tx, k.Decode(m, row.Raw(), false, &report)) // it was decoded before
			}
		}
		return nil
	})
}

func without(labels map[string]string, name string) map[string]string {
	out := make(map[string]string, len(labels))
	for key, value := range labels {
		if key != name {
			out[key] = value
		}
	}
	return out
}

// resources is all that the proxy gets, as JSON. The engine lives as long as
// the call: it costs the plan of one proxy.
func resources(snap *db.Snapshot, proxy api.ID) (tree, []string, error) {
	e := incr.New(snap, incr.WithWorkers(1))
	p, err := incr.Peek(e, plan.Proxy.Ref(proxy))
	if err != nil {
		return nil, nil, fmt.Errorf("plan of %s: %w", proxy, err)
	}
	out := tree{}
	var failures []string
	for _, t := range wire.Types() {
		named := tree{}
		p.All(t, func(name string, ref plan.Ref) bool {
			res, failed := incr.Peek(e, ref)
			if failed != nil {
				failures = append(failures, fmt.Sprintf("%s %s: %v", t.Short(), name, failed))
			}
			if failed == nil && res != nil {
				var one any
				one, failed = shown(res)
				named[name] = one
				err = errors.Join(err, failed)
			}
			return true
		})
		if len(named) > 0 {
			out[string(t)] = named
		}
	}
	slices.Sort(failures)
	return out, failures, err
}

// shown is a resource as JSON, without what must not be seen.
func shown(res *wire.Resource) (any, error) {
	m, err := res.Message()
	if err != nil {
		return nil, err
	}
	if err := redact(m.ProtoReflect()); err != nil {
		return nil, fmt.Errorf("%s %s: %w", res.Type.Short(), res.Name, err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", res.Type.Short(), res.Name, err)
	}
	var out any
	err = json.Unmarshal(text, &out)
	return out, err
}

// redacted stands for the bytes of keys, as in Envoy's own dump.
const redacted = "[redacted]"

// redact replaces the texts and bytes of fields that Envoy marks as sensitive
// (udpa.annotations.sensitive): who may look at a configuration need not be
// trusted with keys.
func redact(m protoreflect.Message) error { return hide(m, false) }

func hide(m protoreflect.Message, sensitive bool) (err error) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return hidePacked(packed, sensitive)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		secret := sensitive || proto.GetExtension(f.Options(), annotations.E_Sensitive).(bool)
		switch {
		case f.IsMap():
			v.Map().Range(func(key protoreflect.MapKey, one protoreflect.Value) bool {
				if f.MapValue().Message() != nil {
					err = hide(one.Message(), secret)
				} else if secret {
					v.Map().Set(key, hidden(f.MapValue(), one))
				}
				return err == nil
			})
		case f.IsList():
			for i := range v.List().Len() {
				if f.Message() != nil {
					err = errors.Join(err, hide(v.List().Get(i).Message(), secret))
				} else if secret {
					v.List().Set(i, hidden(f, v.List().Get(i)))
				}
			}
		case f.Message() != nil:
			err = hide(v.Message(), secret)
		case secret:
			m.Set(f, hidden(f, v))
		}
		return err == nil
	})
	return err
}

func hidePacked(packed *anypb.Any, sensitive bool) error {
	inner, err := packed.UnmarshalNew()
	if err != nil {
		return err
	}
	if err := hide(inner.ProtoReflect(), sensitive); err != nil {
		return err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(inner)
	packed.Value = body
	return err
}

func hidden(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(redacted)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(redacted))
	}
	return v
}
