package derive

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// workload compares the Workload of a name with the proxies that carry it: it is
// there while there is one.
func (f *feeder) workload(snap *db.Snapshot, w workload) *store.Op {
	if api.CheckName(w.name) != "" {
		return nil
	}
	id := api.LocalID(api.Workloads, w.mesh, "", w.name, f.o.Site)
	have, exists := api.Workloads.Get(snap, id)
	if exists && have.Owner != WorkloadOwner {
		return nil // a user's own
	}
	used := false
	for dp := range api.Dataplanes.Labelled(snap, w.mesh, map[string]string{api.LabelWorkload: w.name}) {
		used = used || dp.Local()
	}
	_, inMesh := api.Meshes.Named(snap, "", w.mesh)
	switch {
	case exists && !used:
		return &store.Op{Record: store.RecordOf(have), Delete: true, Expect: store.At(store.Revision(have.Revision))}
	case exists || !used || !inMesh:
		return nil
	}
	rec := store.RecordFor(api.Workloads, id, api.Workload{})
	rec.Labels = api.ComputeLabels(api.Workloads, id, map[string]string{api.LabelManagedBy: WorkloadOwner}, f.o.Site)
	return f.put(rec, false, nil, WorkloadOwner)
}
