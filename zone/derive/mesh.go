package derive

import (
	"bytes"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// meshKinds are the kinds of rows that a Mesh may stand for.
var meshKinds = []api.AnyKind{api.MeshIdentities, api.MeshTLSes, api.MeshPassthroughs}

// fromMesh compares what a Mesh stands for with what there is. A zone whose
// global does the same uses what global made: global's row takes the place of
// its own, and goes on with the same authority, whose Secrets have its name.
func (f *feeder) fromMesh(snap *db.Snapshot, name string) []store.Op {
	want := map[api.ID]api.Row{}
	mesh, ok := api.Meshes.Named(snap, "", name)
	if ok {
		for _, row := range api.MeshRows(mesh, f.o.Site) {
			if !fromGlobal(snap, row) {
				want[row.Head().ID] = row
			}
		}
	}
	var ops []store.Op
	for _, k := range meshKinds {
		for have := range k.Rows(snap, name) {
			m := have.Head()
			if m.Owner != MeshOwner || !m.Local() {
				continue
			}
			row, wanted := want[m.ID]
			delete(want, m.ID)
			switch {
			case !wanted:
				ops = append(ops, store.Op{Record: store.RecordOf(have), Delete: true, Expect: store.At(store.Revision(m.Revision))})
			case !bytes.Equal(row.Raw(), have.Raw()):
				ops = append(ops, *f.put(f.meshRecord(row), true, m, MeshOwner))
			}
		}
	}
	for id, row := range want {
		k, _ := api.ByName(id.Kind)
		if _, taken := k.Row(snap, id); !taken { // else somebody's own, which stands in its place
			ops = append(ops, *f.put(f.meshRecord(row), false, nil, MeshOwner))
		}
	}
	return append(ops, f.initialIdentity(snap, mesh)...)
}

// initialIdentity takes back the identity that a mesh began with, if nobody has
// changed it and the mesh speaks of identities itself now: both select all
// proxies, and only one can be meant.
func (f *feeder) initialIdentity(snap *db.Snapshot, mesh *api.Object[api.Mesh]) []store.Op {
	if mesh == nil || mesh.Spec.MTLS == nil || mesh.Spec.MTLS.EnabledBackend == "" {
		return nil
	}
	initial := api.InitialIdentity(mesh.Name, f.o.Site)
	have, ok := api.MeshIdentities.Get(snap, initial.ID)
	if !ok || !have.Local() || !bytes.Equal(have.Raw(), initial.Raw()) {
		return nil
	}
	return []store.Op{{Record: store.RecordOf(have), Delete: true, Expect: store.At(store.Revision(have.Revision))}}
}

func (f *feeder) meshRecord(row api.Row) store.Record {
	rec := store.RecordOf(row)
	k, _ := api.ByName(rec.Kind)
	rec.Labels = api.ComputeLabels(k, rec.ID, map[string]string{api.LabelManagedBy: MeshOwner}, f.o.Site)
	return rec
}

// fromGlobal reports whether global made the same row.
func fromGlobal(snap *db.Snapshot, row api.Row) bool {
	id := row.Head().ID
	id.Zone = ""
	k, _ := api.ByName(id.Kind)
	have, ok := k.Row(snap, id)
	return ok && have.Head().Source == api.Global
}
