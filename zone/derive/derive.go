// Package derive keeps the rows that follow from others: in a Universal zone a
// MeshService and a Workload for each workload, a MeshZoneAddress for each zone
// ingress; and what a Mesh, a ZoneIngress or a ZoneEgress in the form of earlier
// releases stands for.
//
// It owns the rows marked with its Owners and touches no others: a service or an
// address that a user wrote by hand stays as it is, and stands in place of the
// derived one. Zones run it, and global for its Meshes; on Kubernetes zone/kube
// makes the services.
//
//	Dataplane changed ─▶ its workload is dirty ─▶ compare ─▶ store
//	Mesh changed ─▶ the mesh is dirty ─▶ compare ─▶ store
//	Dataplane, Connection of an ingress changed ─▶ its mesh is dirty ─▶ compare ─▶ store
//	ZoneIngress, ZoneEgress changed ─▶ its meshes are dirty ─▶ compare ─▶ store
//
// # Why
//
// Work follows the change: a commit names the workloads and meshes concerned,
// and only these are compared. Rows that come out equal are not written. There
// is no tick; the one clock is the grace after which a service that nobody
// serves any more is deleted.
package derive

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/zone/duty"
)

// Owners of derived rows, also the value of their label kuma.io/managed-by.
const (
	ServiceOwner  = "meshservice-generator"
	WorkloadOwner = "workload-generator"
	AddressOwner  = "meshzoneaddress-generator"
	MeshOwner     = "mesh-generator"
)

// Options of [Run].
type Options struct {
	DB    *db.DB
	Apply func(context.Context, []store.Op) (store.Revision, error)
	Site  api.Site
	// Grace is how long a service stays after its last proxy.
	Grace time.Duration
	Now   func() time.Time
	Log   *slog.Logger
}

type workload struct{ mesh, name string }

type feeder struct {
	o    Options
	duty *duty.Duty
	due  time.Time // when a grace ends, or a row is stored again; of Run's goroutine

	mu        sync.Mutex
	workloads map[workload]struct{}
	meshes    map[string]struct{}
}

// Run derives rows until the context ends.
func Run(ctx context.Context, o Options) error {
	f := &feeder{o: o, duty: duty.New(o.Now), workloads: map[workload]struct{}{}, meshes: map[string]struct{}{}}
	stop := o.DB.OnCommit(f.commit)
	defer stop()
	f.everything(o.DB.Snapshot())
	return f.duty.Run(ctx, f.turn)
}

// everything marks all that may have to be derived: at the start, and when the
// grace of some service is over.
func (f *feeder) everything(snap *db.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dp := range api.Dataplanes.All(snap) {
		f.mark(dp)
	}
	for svc := range api.MeshServices.All(snap) {
		if svc.Owner == ServiceOwner {
			f.workloads[workload{svc.Mesh, svc.Name}] = struct{}{}
		}
	}
	for w := range api.Workloads.All(snap) {
		if w.Owner == WorkloadOwner {
			f.workloads[workload{w.Mesh, w.Name}] = struct{}{}
		}
	}
	for a := range api.MeshZoneAddresses.All(snap) {
		f.meshes[a.Mesh] = struct{}{}
	}
	for _, k := range meshKinds {
		for row := range k.AllRows(snap) {
			if m := row.Head(); m.Owner == MeshOwner {
				f.meshes[m.Mesh] = struct{}{}
			}
		}
	}
	for m := range api.Meshes.All(snap) {
		f.meshes[m.Name] = struct{}{}
	}
}

func (f *feeder) mark(dp *api.Object[api.Dataplane]) {
	if dp == nil || !dp.Local() {
		return
	}
	if dp.Label(api.LabelWorkload) != "" {
		f.workloads[workload{dp.Mesh, dp.Label(api.LabelWorkload)}] = struct{}{}
	}
	if len(dp.Spec.Networking.Listeners) > 0 {
		f.meshes[dp.Mesh] = struct{}{}
	}
}

func (f *feeder) commit(c db.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ch := range c.Changes {
		for _, row := range []any{ch.Old, ch.New} {
			switch row := row.(type) {
			case *api.Object[api.Dataplane]:
				f.mark(row)
			case *api.Object[api.MeshService]:
				if row != nil && row.Local() {
					f.workloads[workload{row.Mesh, row.Name}] = struct{}{}
				}
			case *api.Object[api.Workload]:
				if row.Local() {
					f.workloads[workload{row.Mesh, row.Name}] = struct{}{}
				}
			case *api.Object[api.MeshZoneAddress]:
				if row != nil && row.Local() {
					f.meshes[row.Mesh] = struct{}{}
				}
			case *api.Object[api.Mesh]:
				f.meshes[row.Name] = struct{}{}
			case *api.Object[api.MeshIdentity]:
				f.meshes[row.Mesh] = struct{}{}
			case *api.Object[api.ZoneIngress]:
				f.markZoneProxy(c.Snapshot, row.Label(api.LabelMesh))
			case *api.Object[api.ZoneEgress]:
				f.markZoneProxy(c.Snapshot, row.Label(api.LabelMesh))
			case *api.Connection:
				if row != nil {
					f.meshes[row.Proxy.Mesh] = struct{}{}
				}
			}
		}
	}
	if len(f.workloads)+len(f.meshes) > 0 {
		f.duty.Poke()
	}
}

// turn derives what is marked, and returns when the next grace ends.
func (f *feeder) turn(ctx context.Context) time.Time {
	if !f.due.IsZero() && !f.o.Now().Before(f.due) {
		f.due = time.Time{}
		f.everything(f.o.DB.Snapshot())
	}
	f.mu.Lock()
	workloads, meshes := f.workloads, f.meshes
	f.workloads, f.meshes = map[workload]struct{}{}, map[string]struct{}{}
	f.mu.Unlock()
	snap := f.o.DB.Snapshot()
	var ops []store.Op
	for w := range workloads {
		op, due := f.service(snap, w)
		if op != nil {
			ops = append(ops, *op)
		}
		if op := f.workload(snap, w); op != nil {
			ops = append(ops, *op)
		}
		f.due = duty.Earlier(f.due, due)
	}
	for mesh := range meshes {
		ops = append(ops, f.addresses(snap, mesh)...)
		ops = append(ops, f.fromMesh(snap, mesh)...)
		ops = append(ops, f.fromZoneProxies(snap, mesh)...)
	}
	// One batch per row: a row that somebody changed meanwhile fails alone, and
	// that change has marked it again.
	for _, op := range ops {
		if _, err := f.o.Apply(ctx, []store.Op{op}); err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			f.o.Log.Error("a derived row cannot be stored", "row", op.Record.ID.String(), "error", err)
			f.due = duty.Earlier(f.due, f.o.Now().Add(retryAfter))
		}
	}
	return f.due
}

// retryAfter is the wait after the store refused a row.
const retryAfter = 5 * time.Second

// service compares the service of a workload with its proxies.
func (f *feeder) service(snap *db.Snapshot, w workload) (*store.Op, time.Time) {
	if api.CheckDNSLabel(w.name) != "" {
		return nil, time.Time{} // cannot be the name of a service
	}
	id := api.LocalID(api.MeshServices, w.mesh, "", w.name, f.o.Site)
	have, exists := api.MeshServices.Get(snap, id)
	if exists && have.Owner != ServiceOwner {
		return nil, time.Time{} // a user's own
	}
	if _, ok := api.Meshes.Named(snap, "", w.mesh); !ok {
		return nil, time.Time{}
	}
	proxies := f.proxies(snap, w)
	if len(proxies) == 0 {
		return f.forsaken(have, exists)
	}
	ports := portsOf(proxies, have)
	spec := api.MeshService{Ports: ports}
	spec.Selector.DataplaneLabels = &api.LabelSelector{MatchLabels: map[string]string{api.LabelWorkload: w.name}}
	rec := store.RecordFor(api.MeshServices, id, spec)
	rec.Labels = api.ComputeLabels(api.MeshServices, id, map[string]string{api.LabelManagedBy: ServiceOwner}, f.o.Site)
	rec.Owner = ServiceOwner
	if exists {
		if stored := store.RecordOf(have); rec.Equal(&stored) {
			return nil, time.Time{}
		}
	}
	return f.put(rec, exists, metaOf(have), ServiceOwner), time.Time{}
}

// proxies lists the local Dataplanes of a workload, oldest first.
func (f *feeder) proxies(snap *db.Snapshot, w workload) []*api.Object[api.Dataplane] {
	var out []*api.Object[api.Dataplane]
	for dp := range api.Dataplanes.Labelled(snap, w.mesh, map[string]string{api.LabelWorkload: w.name}) {
		if dp.Local() && len(dp.Spec.Networking.Inbound) > 0 {
			out = append(out, dp)
		}
	}
	slices.SortFunc(out, func(a, b *api.Object[api.Dataplane]) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// portsOf: all proxies must agree on the ports. While they do not, those that
// the service has stay as long as some proxy has them, else the oldest decides.
func portsOf(proxies []*api.Object[api.Dataplane], have *api.Object[api.MeshService]) []api.MeshServicePort {
	first := portsOfOne(proxies[0])
	agreed := true
	for _, dp := range proxies[1:] {
		agreed = agreed && equalPorts(first, portsOfOne(dp))
	}
	if agreed || have == nil {
		return first
	}
	for _, dp := range proxies {
		if equalPorts(have.Spec.Ports, portsOfOne(dp)) {
			return have.Spec.Ports
		}
	}
	return first
}

func portsOfOne(dp *api.Object[api.Dataplane]) []api.MeshServicePort {
	var ports []api.MeshServicePort
	for _, in := range dp.Spec.Networking.Inbound {
		port := int32(in.Port)
		if slices.ContainsFunc(ports, func(p api.MeshServicePort) bool { return p.Port == port }) {
			continue
		}
		target := api.IntOrStringOf(int(port))
		ports = append(ports, api.MeshServicePort{
			Name: cmp.Or(in.Name, strconv.Itoa(int(port))), Port: port, TargetPort: &target, AppProtocol: in.AppProtocol(),
		})
	}
	return ports
}

func equalPorts(a, b []api.MeshServicePort) bool {
	return slices.EqualFunc(a, b, func(a, b api.MeshServicePort) bool {
		return a.Name == b.Name && a.Port == b.Port && a.AppProtocol == b.AppProtocol
	})
}

// forsaken: a service without proxies is marked, and deleted after the grace.
func (f *feeder) forsaken(have *api.Object[api.MeshService], exists bool) (*store.Op, time.Time) {
	if !exists {
		return nil, time.Time{}
	}
	expect := store.At(store.Revision(have.Revision))
	since, err := time.Parse(time.RFC3339, have.Label(api.LabelGraceSince))
	if err != nil {
		rec := store.RecordOf(have)
		rec.Labels = api.ComputeLabels(api.MeshServices, have.ID, map[string]string{
			api.LabelManagedBy: ServiceOwner, api.LabelGraceSince: f.o.Now().UTC().Format(time.RFC3339),
		}, f.o.Site)
		rec.Modified = f.o.Now()
		return &store.Op{Record: rec, Expect: expect}, f.o.Now().Add(f.o.Grace)
	}
	if due := since.Add(f.o.Grace); f.o.Now().Before(due) {
		return nil, due
	}
	return &store.Op{Record: store.RecordOf(have), Delete: true, Expect: expect}, time.Time{}
}

// addresses compares the addresses of this zone with its connected ingresses.
func (f *feeder) addresses(snap *db.Snapshot, mesh string) []store.Op {
	want := map[string]api.MeshZoneAddress{}
	for dp := range api.Dataplanes.Labelled(snap, mesh, map[string]string{api.LabelIngress: "enabled"}) {
		if !dp.Local() {
			continue
		}
		_, connected := api.Connections.Get(snap, dp.ID.Key())
		for i, l := range dp.Spec.Networking.Listeners {
			at, ok := reached(snap, dp, l)
			if l.Type != "ZoneIngress" || l.State == "NotReady" || !ok {
				continue
			}
			name := dp.Name
			if i > 0 {
				name += "-" + strconv.Itoa(int(l.Port))
			}
			if _, published := api.MeshZoneAddresses.Get(snap, api.LocalID(api.MeshZoneAddresses, mesh, "", name, f.o.Site)); !connected && !published {
				continue // it is announced when it can be reached; losing sight of it changes nothing
			}
			want[name] = at
		}
	}
	var mine []*api.Object[api.MeshZoneAddress]
	for a := range api.MeshZoneAddresses.In(snap, mesh) {
		if !a.Local() {
			continue
		}
		if a.Owner != AddressOwner {
			want = nil // written by hand: it stands for the whole zone
		} else {
			mine = append(mine, a)
		}
	}
	var ops []store.Op
	for _, a := range mine {
		if _, ok := want[a.Name]; !ok {
			ops = append(ops, store.Op{Record: store.RecordOf(a), Delete: true, Expect: store.At(store.Revision(a.Revision))})
		}
	}
	for name, spec := range want {
		id := api.LocalID(api.MeshZoneAddresses, mesh, "", name, f.o.Site)
		rec := store.RecordFor(api.MeshZoneAddresses, id, spec)
		rec.Labels = api.ComputeLabels(api.MeshZoneAddresses, id, map[string]string{api.LabelManagedBy: AddressOwner}, f.o.Site)
		have, exists := api.MeshZoneAddresses.Get(snap, id)
		if exists && have.Spec == spec {
			continue
		}
		ops = append(ops, *f.put(rec, exists, metaOf(have), AddressOwner))
	}
	return ops
}

func metaOf[S any](o *api.Object[S]) *api.Meta {
	if o == nil {
		return nil
	}
	return &o.Meta
}

// put creates or replaces a derived row.
func (f *feeder) put(rec store.Record, exists bool, have *api.Meta, owner string) *store.Op {
	rec.Owner, rec.Created, rec.Modified = owner, f.o.Now(), f.o.Now()
	if !exists {
		return &store.Op{Record: rec, Expect: store.Absent}
	}
	rec.Created = have.Created
	return &store.Op{Record: rec, Expect: store.At(store.Revision(have.Revision))}
}
