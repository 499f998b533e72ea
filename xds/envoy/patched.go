package envoy

import (
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	jsonpatch "github.com/evanphx/json-patch/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// Added is what a patch adds that is a resource of its own: a cluster or a listener, changed by the patches after the
// first.
func Added(patches []ir.Patch) (proto.Message, error) {
	first := patches[0]
	parsed, err := ParsePatch(first.Target, first.Value, true)
	if err != nil {
		return nil, err
	}
	switch m := parsed.(type) {
	case *clusterv3.Cluster:
		return finish(new(work), m.Name, patches[1:], m)
	case *listenerv3.Listener:
		return finish(new(work), m.Name, patches[1:], m)
	}
	return nil, fmt.Errorf("%w: a %s is no resource of its own", ErrInvalid, first.Target)
}

// patch makes the changes that users want, the last step of every resource. What it leaves must pass Envoy's validation.
func (w *work) patch(m message, patches []ir.Patch) {
	if len(patches) == 0 {
		return
	}
	for _, p := range patches {
		if err := apply(m, p); err != nil {
			w.fail("%s of %s by %s: %w", p.Operation, p.Target, p.Policy, err)
			return
		}
	}
	if err := validateAll(m.ProtoReflect()); err != nil {
		w.fail("after the changes by %s: %w", patches[len(patches)-1].Policy, err)
	}
}

// apply leaves resources alone that the patch is not about.
func apply(m message, p ir.Patch) error {
	if _, known := patched(p.Target); !known {
		return fmt.Errorf("a patch cannot be of a %q", p.Target)
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		if p.Target == "cluster" {
			return change(m, p)
		}
	case *routev3.RouteConfiguration:
		if p.Target == "virtualHost" {
			return applyToHosts(m, p)
		}
	case *listenerv3.Listener:
		switch p.Target {
		case "listener":
			return change(m, p)
		case "networkFilter":
			for _, c := range chains(m) {
				var err error
				if c.Filters, err = applyToFilters(c.Filters, p); err != nil {
					return err
				}
			}
		case "httpFilter":
			return eachManager(m, func(h *hcmv3.HttpConnectionManager) (err error) {
				h.HttpFilters, err = applyToFilters(h.HttpFilters, p)
				return err
			})
		case "virtualHost":
			return eachManager(m, func(h *hcmv3.HttpConnectionManager) error {
				if c := h.GetRouteConfig(); c != nil {
					return applyToHosts(c, p)
				}
				return nil
			})
		}
	}
	return nil
}

func chains(l *listenerv3.Listener) []*listenerv3.FilterChain {
	if l.DefaultFilterChain == nil {
		return l.FilterChains
	}
	return append(slices.Clone(l.FilterChains), l.DefaultFilterChain)
}

// eachManager changes every HTTP connection manager of a listener.
func eachManager(l *listenerv3.Listener, f func(*hcmv3.HttpConnectionManager) error) error {
	for _, c := range chains(l) {
		for _, filter := range c.Filters {
			packed := filter.GetTypedConfig()
			if !packed.MessageIs((*hcmv3.HttpConnectionManager)(nil)) {
				continue
			}
			h := new(hcmv3.HttpConnectionManager)
			if err := packed.UnmarshalTo(h); err != nil {
				return err
			}
			if err := f(h); err != nil {
				return err
			}
			if err := anypb.MarshalFrom(packed, h, proto.MarshalOptions{Deterministic: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

func applyToHosts(c *routev3.RouteConfiguration, p ir.Patch) error {
	if p.Operation == "Add" {
		host, err := ParsePatch(p.Target, p.Value, true)
		if err == nil {
			c.VirtualHosts = append(c.VirtualHosts, host.(*routev3.VirtualHost))
		}
		return err
	}
	if p.Operation == "Remove" {
		c.VirtualHosts = slices.DeleteFunc(c.VirtualHosts, func(h *routev3.VirtualHost) bool { return p.Name == "" || h.Name == p.Name })
		return nil
	}
	for _, h := range c.VirtualHosts {
		if p.Name == "" || h.Name == p.Name {
			if err := change(h, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// filter is a network or an HTTP filter.
type filter interface {
	message
	GetName() string
	GetTypedConfig() *anypb.Any
}

func applyToFilters[F filter](list []F, p ir.Patch) ([]F, error) {
	matches := func(f F) bool { return p.Name == "" || f.GetName() == p.Name }
	switch p.Operation {
	case "Remove":
		return slices.DeleteFunc(list, matches), nil
	case "Patch":
		for _, f := range list {
			if matches(f) {
				if err := changeFilter(f, p); err != nil {
					return nil, err
				}
			}
		}
		return list, nil
	}
	parsed, err := ParsePatch(p.Target, p.Value, true)
	if err != nil {
		return nil, err
	}
	added := parsed.(F)
	switch p.Operation {
	case "AddFirst":
		return slices.Insert(list, 0, added), nil
	case "AddLast":
		return append(list, added), nil
	}
	// A filter that is not there has nothing before or behind it.
	i := slices.IndexFunc(list, matches)
	switch {
	case i < 0:
		return list, nil
	case p.Operation == "AddAfter":
		i++
	}
	return slices.Insert(list, i, added), nil
}

// changeFilter merges into what is inside typed_config, and applies JSON patches there.
func changeFilter(f filter, p ir.Patch) error {
	packed := f.GetTypedConfig()
	if len(p.JSONPatch) == 0 || packed == nil {
		return change(f, p)
	}
	inner, err := packed.UnmarshalNew()
	if err != nil {
		return err
	}
	if err := change(inner, p); err != nil {
		return err
	}
	return anypb.MarshalFrom(packed, inner, proto.MarshalOptions{Deterministic: true})
}

// change merges the value of a patch into m, or applies its JSON patch.
func change(m proto.Message, p ir.Patch) error {
	if len(p.JSONPatch) == 0 {
		value, err := ParsePatch(p.Target, p.Value, false)
		if err != nil {
			return err
		}
		return merge(m.ProtoReflect(), value.ProtoReflect())
	}
	operations, err := jsonpatch.DecodePatch(p.JSONPatch)
	if err != nil {
		return err
	}
	before, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	after, err := operations.ApplyWithOptions(before, &jsonpatch.ApplyOptions{EnsurePathExistsOnAdd: true, AccumulatedCopySizeLimit: 1 << 20})
	if err != nil {
		return err
	}
	changed := m.ProtoReflect().New()
	if err := protojson.Unmarshal(after, changed.Interface()); err != nil {
		return err
	}
	proto.Reset(m)
	proto.Merge(m, changed.Interface())
	return nil
}

// merge is proto.Merge, except that durations are replaced as a whole and that opaque parts of one type are merged inside.
func merge(into, from protoreflect.Message) (err error) {
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList():
			list := into.Mutable(f).List()
			for i := range v.List().Len() {
				list.Append(v.List().Get(i))
			}
		case f.IsMap():
			fields := into.Mutable(f).Map()
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				fields.Set(k, v)
				return true
			})
		case f.Message() == nil || !into.Has(f):
			into.Set(f, v)
		default:
			err = mergeMessage(into.Mutable(f).Message(), v.Message())
		}
		return err == nil
	})
	return err
}

func mergeMessage(into, from protoreflect.Message) error {
	switch have := into.Interface().(type) {
	case *durationpb.Duration:
		proto.Reset(have)
	case *anypb.Any:
		with := from.Interface().(*anypb.Any)
		if have.TypeUrl != with.TypeUrl {
			proto.Reset(have)
			break
		}
		inner, err := have.UnmarshalNew()
		if err != nil {
			return err
		}
		more, err := with.UnmarshalNew()
		if err != nil {
			return err
		}
		if err := merge(inner.ProtoReflect(), more.ProtoReflect()); err != nil {
			return err
		}
		return anypb.MarshalFrom(have, inner, proto.MarshalOptions{Deterministic: true})
	}
	return merge(into, from)
}
