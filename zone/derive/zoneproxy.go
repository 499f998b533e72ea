package derive

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// fromZoneProxies compares the Dataplanes that the ZoneIngresses and ZoneEgresses
// of this zone stand for in a mesh with what there is.
func (f *feeder) fromZoneProxies(snap *db.Snapshot, mesh string) []store.Op {
	want := map[api.ID]store.Record{}
	if _, ok := api.Meshes.Named(snap, "", mesh); ok {
		for proxy := range api.ZoneProxies(snap, mesh) {
			rec := f.marked(api.ZoneProxyRow(proxy, mesh, f.o.Site), api.ZoneProxyOwner)
			if _, taken := want[rec.ID]; !taken {
				want[rec.ID] = rec
			}
		}
	}
	return f.compare(snap, mesh, api.ZoneProxyOwner, []api.AnyKind{api.Dataplanes}, want)
}

// markZoneProxy marks the meshes in which a ZoneIngress or ZoneEgress stands for
// something.
func (f *feeder) markZoneProxy(snap *db.Snapshot, label string) {
	if label != "" {
		f.meshes[label] = struct{}{}
		return
	}
	for m := range api.Meshes.All(snap) {
		f.meshes[m.Name] = struct{}{}
	}
}

// reached is where other zones reach the ingress; ok is false when they are not
// to: a ZoneIngress says where by itself, or says nothing.
func reached(snap *db.Snapshot, dp *api.Object[api.Dataplane], l api.ZoneListener) (at api.MeshZoneAddress, ok bool) {
	if dp.Owner != api.ZoneProxyOwner {
		return api.MeshZoneAddress{Address: l.Address, Port: int32(l.Port)}, true
	}
	if in, known := api.ZoneIngresses.Named(snap, "", dp.Name); known {
		at, ok = in.Spec.Advertised()
	}
	return at, ok
}
