package derive_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/zone/derive"
)

// rows lists the rows of the mesh that a Mesh can stand for, with their owners.
func (i *instance) rows() string {
	synctest.Wait()
	var out []string
	for _, k := range []api.AnyKind{api.MeshIdentities, api.MeshTLSes, api.MeshPassthroughs} {
		for row := range k.Rows(i.db.Snapshot(), "default") {
			m := row.Head()
			out = append(out, fmt.Sprintf("%s/%s(%s%s)", k.Info().Name, m.Name, m.Owner, m.Source))
		}
	}
	return strings.Join(out, " ")
}

const permissive = `
type: Mesh
name: default
mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin, mode: PERMISSIVE}]}
networking: {outbound: {passthrough: false}}`

func TestMeshOfEarlierReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		if got := i.rows(); got != "" {
			t.Fatalf("a plain mesh stands for %s", got)
		}
		initial := api.InitialIdentity("default", site)
		if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: store.RecordOf(initial)}}); err != nil {
			t.Fatal(err)
		}
		i.put(permissive)
		if got, want := i.rows(), "MeshIdentity/mtls-ca-1(mesh-generator) MeshTLS/mtls-ca-1(mesh-generator) MeshPassthrough/networking-outbound(mesh-generator)"; got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		mid, _ := api.MeshIdentities.Get(i.db.Snapshot(), api.LocalID(api.MeshIdentities, "default", "", "mtls-ca-1", site))
		if mid.Label(api.LabelManagedBy) != derive.MeshOwner || mid.Label(api.LabelOrigin) != api.OriginZone {
			t.Errorf("labels %v", mid.Labels)
		}
		at := i.revision()
		time.Sleep(time.Second)
		i.put(dataplane("cart-1", "cart", 8080))
		if n := i.revision() - at; n != 3 {
			t.Errorf("%d writes for a proxy, want its own, a service and a workload", n)
		}
		// Another backend, strict.
		i.put("type: Mesh\nname: default\nmtls: {enabledBackend: own, backends: [{name: own, type: provided, conf: {cert: {secret: c}, key: {secret: k}}}]}")
		if got, want := i.rows(), "MeshIdentity/mtls-own(mesh-generator)"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		i.put(mesh)
		if got := i.rows(); got != "" {
			t.Errorf("without mtls: %s", got)
		}
	})
}

// Whoever wrote an identity of that name keeps it, and an initial identity that
// was changed is somebody's own.
func TestRowsOfOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put("type: MeshIdentity\nmesh: default\nname: mtls-ca-1\nspec: {}")
		i.put("type: MeshIdentity\nmesh: default\nname: default\nspec: {}")
		i.put(permissive)
		if got := i.rows(); !strings.HasPrefix(got, "MeshIdentity/default() MeshIdentity/mtls-ca-1() MeshTLS") {
			t.Errorf("%s", got)
		}
	})
}

// What global made of the same Mesh takes the place of the zone's own.
func TestGlobalGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(permissive)
		rec := store.RecordFor(api.MeshIdentities, api.ID{Mesh: "default", Name: "mtls-ca-1"}, api.MeshIdentity{})
		rec.Source = api.Global
		if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: rec}}); err != nil {
			t.Fatal(err)
		}
		if got := i.rows(); !strings.HasPrefix(got, "MeshIdentity/mtls-ca-1(global) MeshTLS") {
			t.Errorf("%s", got)
		}
		if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: rec, Delete: true}}); err != nil {
			t.Fatal(err)
		}
		if got := i.rows(); !strings.HasPrefix(got, "MeshIdentity/mtls-ca-1(mesh-generator)") {
			t.Errorf("global's is gone: %s", got)
		}
	})
}

func TestWorkloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		workloads := func() string {
			synctest.Wait()
			out := ""
			for w := range api.Workloads.In(i.db.Snapshot(), "default") {
				out += fmt.Sprintf("%s=%s(%s) ", w.Name, w.Owner, w.Label(api.LabelManagedBy))
			}
			return out
		}
		i.put("type: Workload\nmesh: default\nname: own\nspec: {}")
		i.put(dataplane("own-1", "own", 80))
		i.put(dataplane("cart-1", "cart", 80))
		i.put(dataplane("cart-2", "cart", 80))
		// A gateway has no inbound, and a workload all the same.
		i.put("type: Dataplane\nmesh: default\nname: gw\nlabels: {kuma.io/workload: gate.way}\nnetworking: {address: 10.0.0.1, gateway: {}}")
		if got, want := workloads(), "cart=workload-generator(workload-generator) gate.way=workload-generator(workload-generator) own=() "; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		i.drop(api.Dataplanes, "cart-1")
		i.drop(api.Dataplanes, "own-1")
		i.drop(api.Dataplanes, "gw")
		if got, want := workloads(), "cart=workload-generator(workload-generator) own=() "; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		i.drop(api.Dataplanes, "cart-2")
		if got := workloads(); got != "own=() " {
			t.Errorf("unused: %s", got)
		}
	})
}
