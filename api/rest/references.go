package rest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// What rows mean to each other: a Mesh and what is in it, a Zone and what came
// from it.

// withMesh are the rows that a new Mesh comes with: the key that signs the
// tokens of its proxies, and the initial policies.
func (s *server) withMesh(snap *db.Snapshot, row api.Row, now time.Time) ([]store.Op, error) {
	mesh := row.Head().Name
	var records []store.Record
	if s.issues(auth.DataplaneToken) {
		key, err := auth.SigningKeyRecord(auth.DataplaneToken, mesh, 1, s.Site, now)
		if err != nil {
			return nil, err
		}
		records = append(records, key)
	}
	if o, ok := row.(*api.Object[api.Mesh]); ok {
		for _, initial := range api.InitialRows(o, s.Site) {
			record := store.RecordOf(initial)
			record.Created, record.Modified = now, now
			records = append(records, record)
		}
	}
	var ops []store.Op
	for _, record := range records {
		if k, ok := api.ByName(record.Kind); ok {
			if _, exists := k.Row(snap, record.ID); exists {
				continue // left by a creation that failed halfway
			}
		}
		ops = append(ops, store.Op{Record: record, Expect: store.Absent})
	}
	return ops, nil
}

// nameTaken warns of a ZoneIngress or ZoneEgress that has the name of another
// proxy: they are Dataplanes, and the other one stands in its place.
func nameTaken(r db.Reader, k api.AnyKind, row api.Row) []string {
	var out []string
	m := row.Head()
	if !slices.Contains(api.ZoneProxyKinds(), k) {
		return nil
	}
	for mesh := range api.Meshes.All(r) {
		in := m.Label(api.LabelMesh)
		if (in == "" || in == mesh.Name) && api.ZoneProxyTaken(r, m.Kind, mesh.Name, m.Name) {
			out = append(out, fmt.Sprintf("no effect in mesh %q, where another proxy is called %q: Dataplane, ZoneIngress and ZoneEgress share their names", mesh.Name, m.Name))
		}
	}
	return out
}

// alsoDeleted are the deletions that go with that of the row; an error if
// something depends on it. The right to delete the row is the right to all of
// them: a mesh cannot be without what is in it, and one that somebody may delete
// in part only could not be deleted by those whose it is.
func (s *server) alsoDeleted(snap *db.Snapshot, row api.Row) ([]store.Op, error) {
	switch head := row.Head(); head.Kind {
	case api.Meshes.Name:
		for dp := range api.Dataplanes.In(snap, head.Name) {
			if of, ok := api.ZoneProxyOf(snap, dp); ok && of.Head().Label(api.LabelMesh) == "" {
				continue // it stands in whichever meshes there are
			}
			return nil, invalid(api.Fault{Field: "mesh", Reason: "unable to delete mesh, there are still some dataplanes attached"})
		}
		return s.inMesh(snap, head.Name), nil
	case api.Zones.Name:
		if zoneOnline(snap, head.Name) {
			return nil, invalid(api.Fault{Field: "zone", Reason: "unable to delete Zone, Zone CP is still connected, please shut it down first"})
		}
		return s.fromZone(snap, head.Name), nil
	}
	return nil, nil
}

// inMesh are the deletions of the local rows of a mesh. Copies belong to the
// control planes that wrote them: those delete them, and then they go here.
func (s *server) inMesh(snap *db.Snapshot, mesh string) []store.Op {
	var ops []store.Op
	for _, k := range api.Kinds {
		if info := k.Info(); info.Scope != api.MeshScope || info.Memory {
			continue
		}
		for row := range k.Rows(snap, mesh) {
			if row.Head().Local() {
				ops = append(ops, s.deletion(row))
			}
		}
	}
	for _, c := range s.Feeder.Conditions() {
		k, ok := api.ByName(c.ID.Kind)
		if !ok || c.Err == nil || c.ID != api.LocalID(k, mesh, "", c.ID.Name, s.Site) {
			continue
		}
		if _, shown := k.Row(snap, c.ID); !shown { // else it is among those above
			ops = append(ops, store.Op{Record: store.Record{ID: c.ID}, Delete: true, Expect: store.At(c.Revision)})
		}
	}
	return ops
}

// fromZone are the deletions of the copies that a zone sent.
func (s *server) fromZone(snap *db.Snapshot, zone string) []store.Op {
	var ops []store.Op
	for _, k := range api.Kinds {
		if k.Info().Memory {
			continue
		}
		for row := range k.AllRows(snap) {
			if row.Head().Source == zone {
				ops = append(ops, s.deletion(row))
			}
		}
	}
	return ops
}

// deleteLeftovers deletes what was written into a mesh while it was deleted.
func (s *server) deleteLeftovers(ctx context.Context, mesh string) error {
	_, err := s.write(ctx, func(snap *db.Snapshot) ([]store.Op, store.Revision, error) {
		if _, again := api.Meshes.Named(snap, "", mesh); again {
			return nil, 0, nil
		}
		return s.inMesh(snap, mesh), 0, nil
	})
	if moved(err) {
		return nil // whoever was faster deletes or owns it
	}
	return err
}

// zoneOnline reports whether the zone is connected to this global.
func zoneOnline(r db.Reader, zone string) bool {
	insight, ok := api.ZoneInsights.Named(r, "", zone)
	if !ok {
		return false
	}
	for _, sub := range insight.Spec.Subscriptions {
		if sub.Online() {
			return true
		}
	}
	return false
}
