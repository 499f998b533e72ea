package plan_test

import (
	"fmt"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

const backend = "kri_msvc_default_east__backend_80"

// callers is a mesh in which proxies of different labels call one service.
func callers(t *testing.T, names ...string) *world {
	w := newWorld(t)
	w.documents(t, "east", "type: MeshService\nmesh: default\nname: backend\nspec:\n  ports: [{port: 80, appProtocol: http}]\n")
	for i, name := range names {
		w.documents(t, "east", fmt.Sprintf(
			"type: Dataplane\nmesh: default\nname: %s\nlabels: {app: %s}\nnetworking:\n  address: 10.0.0.%d\n  outbound: [{port: 10001, backendRef: {kind: MeshService, name: backend, port: 80}}]\n", name, name, i+1))
	}
	return w
}

// follow returns an engine and what takes it to the newest state.
func (w *world) follow(t *testing.T) (*incr.Engine, func() incr.Round) {
	e := incr.New(w.db.Snapshot(), incr.WithWorkers(1))
	var touched []db.Touch
	t.Cleanup(w.db.OnCommit(func(c db.Commit) { touched = append(touched, c.Touched...) }))
	return e, func() incr.Round {
		now := touched
		touched = nil
		return e.Advance(w.db.Snapshot(), now)
	}
}

// named is the resource that a proxy's plan names.
func named(t *testing.T, e *incr.Engine, proxy string, typ wire.Type, name string) plan.Ref {
	t.Helper()
	p, err := incr.Peek(e, plan.Proxy.Ref(api.LocalID(api.Dataplanes, "default", "", proxy, east)))
	if err != nil {
		t.Fatal(err)
	}
	ref, ok := p.Get(typ, name)
	if !ok {
		t.Fatalf("%s has no %s %s", proxy, typ.Short(), name)
	}
	return ref
}

func must(t *testing.T, e *incr.Engine, ref plan.Ref) *wire.Resource {
	t.Helper()
	res, err := incr.Peek(e, ref)
	if err != nil || res == nil {
		t.Fatal(res, err)
	}
	return res
}

// TestEqualVariantsAreOne: callers that different policies select get one resource, encoded once, when the policies come
// to the same; and what a caller names stays while the policies change.
func TestEqualVariantsAreOne(t *testing.T) {
	w := callers(t, "a", "b", "c")
	timeout := func(app, span string) {
		w.documents(t, "global", "type: MeshTimeout\nmesh: default\nname: "+app+"\nspec:\n  targetRef: {kind: Dataplane, labels: {app: "+app+"}}\n  to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: "+span+", http: {requestTimeout: "+span+"}}}]\n")
	}
	timeout("a", "3s")
	timeout("b", "3s")
	e, next := w.follow(t)
	for _, typ := range []wire.Type{wire.Cluster, wire.Route} {
		a, b, c := named(t, e, "a", typ, backend), named(t, e, "b", typ, backend), named(t, e, "c", typ, backend)
		if must(t, e, a) != must(t, e, b) {
			t.Errorf("%s: equal variants are two", typ.Short())
		}
		if must(t, e, a).Version == must(t, e, c).Version {
			t.Errorf("%s: the policy made no difference", typ.Short())
		}
	}
	if ran := e.Stats().Ran; ran["encode.cluster"] != 2 || ran["encode.routes"] != 2 {
		t.Errorf("two variants were encoded %d and %d times", ran["encode.cluster"], ran["encode.routes"])
	}
	a := named(t, e, "a", wire.Cluster, backend)
	before := must(t, e, a)
	timeout("a", "4s")
	next()
	if named(t, e, "a", wire.Cluster, backend) != a {
		t.Error("the policy changed what the proxy names")
	}
	if must(t, e, a).Version == before.Version {
		t.Error("the policy did not change the content")
	}
	if b := must(t, e, named(t, e, "b", wire.Cluster, backend)); b != before {
		t.Error("a policy for others changed the content")
	}
}

// TestLastGoodVariant: routes that Envoy would refuse leave the last good ones in place, and say so, until they are mended.
func TestLastGoodVariant(t *testing.T) {
	w := callers(t, "a")
	route := func(header string) {
		w.documents(t, "global", fmt.Sprintf("type: MeshHTTPRoute\nmesh: default\nname: r\nspec:\n  to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}}, rules: [{matches: [{path: {type: PathPrefix, value: /}}], default: {filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: %q}]}}]}}]}]\n", header))
	}
	route("one")
	e, next := w.follow(t)
	ref := named(t, e, "a", wire.Route, backend)
	release := incr.Hold(e, ref, func(*wire.Resource, error) {})
	defer release()
	good := must(t, e, ref)
	route("two\nlines")
	if failures := next().Failures; len(failures) != 1 || failures[0].Query != "routes" {
		t.Errorf("failures %v", failures)
	}
	if res, err := incr.Peek(e, ref); res != good || err == nil {
		t.Errorf("%v, %v in place of the last good routes and why", res, err)
	}
	route("three")
	if mended := next().Mended; len(mended) != 1 {
		t.Errorf("mended %v", mended)
	}
	if must(t, e, ref).Version == good.Version {
		t.Error("mended routes are not in use")
	}
}
