package derive

import (
	"bytes"
	"maps"

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
	want := map[api.ID]store.Record{}
	mesh, ok := api.Meshes.Named(snap, "", name)
	if ok {
		for _, row := range api.MeshRows(mesh, f.o.Site) {
			if !fromGlobal(snap, row) {
				want[row.Head().ID] = f.marked(row, MeshOwner)
			}
		}
	}
	return append(f.compare(snap, name, MeshOwner, meshKinds, want), f.initialIdentity(snap, mesh)...)
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

// marked is the record of a row that follows from another.
func (f *feeder) marked(row api.Row, owner string) store.Record {
	rec := store.RecordOf(row)
	k, _ := api.ByName(rec.Kind)
	labels := maps.Clone(rec.Labels)
	labels[api.LabelManagedBy] = owner
	rec.Labels, rec.Owner = api.ComputeLabels(k, rec.ID, labels, f.o.Site), owner
	return rec
}

// compare makes the rows of an owner in a mesh those that are wanted. What
// somebody else wrote stands in place of what is wanted.
func (f *feeder) compare(snap *db.Snapshot, mesh, owner string, kinds []api.AnyKind, want map[api.ID]store.Record) []store.Op {
	var ops []store.Op
	for _, k := range kinds {
		for have := range k.RowsLabelled(snap, mesh, map[string]string{api.LabelManagedBy: owner}) {
			m := have.Head()
			if m.Owner != owner || !m.Local() {
				continue
			}
			rec, wanted := want[m.ID]
			delete(want, m.ID)
			if stored := store.RecordOf(have); !wanted {
				ops = append(ops, store.Op{Record: stored, Delete: true, Expect: store.At(store.Revision(m.Revision))})
			} else if !rec.Equal(&stored) {
				ops = append(ops, *f.put(rec, true, m, owner))
			}
		}
	}
	for id, rec := range want {
		k, _ := api.ByName(id.Kind)
		if _, taken := k.Row(snap, id); !taken {
			ops = append(ops, *f.put(rec, false, nil, owner))
		}
	}
	return ops
}

// fromGlobal reports whether global made the same row.
func fromGlobal(snap *db.Snapshot, row api.Row) bool {
	id := row.Head().ID
	id.Zone = ""
	k, _ := api.ByName(id.Kind)
	have, ok := k.Row(snap, id)
	return ok && have.Head().Source == api.Global
}
