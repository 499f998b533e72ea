package names

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/hostname"
	"github.com/atoll-mesh/atoll/api/store"
)

// Allocate gives each service a virtual address of its own until the context ends.
func Allocate(ctx context.Context, o Options) error {
	a := &allocator{
		Options: o, todo: newMarks(), due: map[api.ID]time.Time{}, waiting: map[string]map[api.ID]struct{}{}, full: map[string]bool{},
	}
	stop := o.DB.OnCommit(a.commit)
	defer stop()
	snap := o.DB.Snapshot()
	a.todo.add(servicesIn(snap)...)
	for v := range api.VirtualIPs.All(snap) {
		a.todo.add(api.ID(v.Spec.Service))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := a.turn(ctx)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(next.Sub(o.Now()), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.todo.wake:
		case <-timer.C:
		}
	}
}

const (
	// retryRace is the wait after another instance was faster: until what it wrote
	// has arrived. retryFault is that after the store failed.
	retryRace, retryFault = 20 * time.Millisecond, 5 * time.Second
	// batch bounds the operations of one write.
	batch = 256
)

type allocator struct {
	Options
	todo *marks

	// Of Allocate's goroutine alone.
	due     map[api.ID]time.Time           // services to be looked at again although nothing changed
	waiting map[string]map[api.ID]struct{} // services without an address, by kind
	full    map[string]bool                // kinds whose range had no address left
}

// freed is the mark that an address became free: who waits for one tries again.
var freed = api.ID{Kind: api.VirtualIPs.Name}

// commit notes which services came or went, and whose addresses changed.
func (a *allocator) commit(c db.Commit) {
	for _, ch := range c.Changes {
		if v, ok := ch.New.(*api.Object[api.VirtualIP]); ok {
			a.todo.add(api.ID(v.Spec.Service))
		} else if v, ok := ch.Old.(*api.Object[api.VirtualIP]); ok {
			a.todo.add(api.ID(v.Spec.Service), freed)
		} else if m, ok := headOf(ch, hostname.Kinds...); ok && (ch.Old == nil || ch.New == nil) {
			a.todo.add(m.ID)
		}
	}
}

// turn does what is due and returns when there is more to do.
func (a *allocator) turn(ctx context.Context) (next time.Time) {
	ids, now := a.todo.take(), a.Now()
	if _, ok := ids[freed]; ok {
		delete(ids, freed)
		a.search(now)
	}
	for id, at := range a.due {
		if !now.Before(at) {
			ids[id] = struct{}{}
		}
	}
	snap, taken := a.DB.Snapshot(), map[api.ID]struct{}{}
	var ops []store.Op
	for _, id := range slices.SortedFunc(maps.Keys(ids), func(a, b api.ID) int { return cmp.Compare(a.String(), b.String()) }) {
		ops = append(ops, a.look(snap, id, taken, now)...)
	}
	for part := range slices.Chunk(ops, batch) {
		if wait := a.apply(ctx, part); wait > 0 {
			// What was not stored, and who found an address to be taken by it.
			a.search(now.Add(wait))
			for id := range ids {
				a.due[id] = now.Add(wait)
			}
			break
		}
	}
	a.tell()
	for _, at := range a.due {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// search lets services without an address look for one again.
func (a *allocator) search(at time.Time) {
	for _, ids := range a.waiting {
		for id := range ids {
			a.due[id] = at
		}
	}
	clear(a.full)
}

// look compares a service with its address. taken are addresses that this turn
// gives away.
func (a *allocator) look(snap *db.Snapshot, id api.ID, taken map[api.ID]struct{}, now time.Time) (ops []store.Op) {
	delete(a.due, id)
	delete(a.waiting[id.Kind], id)
	held := api.HeldBy(snap, id)
	for v := range api.VirtualIPsOf(snap, id) {
		if v != held { // nobody was ever told of it
			ops = append(ops, store.Op{Record: store.RecordOf(v), Delete: true, Expect: store.At(store.Revision(v.Revision))})
		}
	}
	wanted := a.wants(snap, id)
	switch {
	case held == nil && wanted:
		address, ok := a.free(snap, id, taken)
		if !ok {
			if a.waiting[id.Kind] == nil {
				a.waiting[id.Kind] = map[api.ID]struct{}{}
			}
			a.waiting[id.Kind][id] = struct{}{}
			break
		}
		row := api.VirtualIPID(address)
		taken[row] = struct{}{}
		rec := store.RecordFor(api.VirtualIPs, row, api.VirtualIP{Address: address.String(), Service: api.ServiceID(id)})
		rec.Created, rec.Modified = now, now
		ops = append(ops, store.Op{Record: rec, Expect: store.Absent})
	case held != nil && wanted == (held.Spec.Released != nil): // it went, or came back
		spec := held.Spec
		spec.Released = nil
		if !wanted {
			spec.Released = new(now.UTC())
		}
		rec := store.RecordFor(api.VirtualIPs, held.ID, spec)
		rec.Created, rec.Modified = held.Created, now
		ops = append(ops, store.Op{Record: rec, Expect: store.At(store.Revision(held.Revision))})
	case held != nil && !wanted:
		if at := held.Spec.Released.Add(a.ReuseAfter); now.Before(at) {
			a.due[id] = at
			break
		}
		ops = append(ops, store.Op{Record: store.RecordOf(held), Delete: true, Expect: store.At(store.Revision(held.Revision))})
	}
	return ops
}

// wants reports whether there is such a service, and it gets its address here.
func (a *allocator) wants(snap *db.Snapshot, id api.ID) bool {
	k, ok := api.ByName(id.Kind)
	if !ok || !a.Ranges[id.Kind].IsValid() {
		return false
	}
	row, ok := k.Row(snap, id)
	// A service of this Kubernetes cluster has the address that the cluster gave it.
	return ok && (a.Site.Env != "kubernetes" || id.Kind != api.MeshServices.Name || !row.Head().Local())
}

// free finds an address that nobody has, first where the service's ID says, so
// that instances and stores mostly agree without asking each other.
func (a *allocator) free(snap *db.Snapshot, id api.ID, taken map[api.ID]struct{}) (netip.Addr, bool) {
	if a.full[id.Kind] {
		return netip.Addr{}, false
	}
	p := a.Ranges[id.Kind]
	room := Room(p)
	first := xxhash.Sum64String(id.String())
	for i := range room {
		address := nth(p, 1+(first%room+i)%room)
		row := api.VirtualIPID(address)
		if _, ok := taken[row]; ok {
			continue
		}
		if _, ok := api.VirtualIPs.Get(snap, row); !ok {
			return address, true
		}
	}
	a.full[id.Kind] = true
	return netip.Addr{}, false
}

// Room is how many addresses a range has for services: all but the first and the
// last, which mean the range itself. Of a huge range not all are used.
func Room(p netip.Prefix) uint64 {
	bits := p.Addr().BitLen() - p.Bits()
	if !p.IsValid() || bits < 2 {
		return 0
	}
	return 1<<min(bits, 62) - 2
}

// nth is an address of the range; n is at most [Room].
func nth(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	address := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return address.Unmap()
	}
	return address
}

// apply stores operations, and returns how long to wait before another attempt;
// zero if they are stored.
func (a *allocator) apply(ctx context.Context, ops []store.Op) (wait time.Duration) {
	_, err := a.Apply(ctx, ops)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return retryRace
	case ctx.Err() == nil:
		a.Log.Error("virtual addresses cannot be stored", "error", err)
	}
	return retryFault
}

// tell enters for which kinds there are no addresses left.
func (a *allocator) tell() {
	snap := a.DB.Snapshot()
	var puts, gone []string
	for kind := range a.Ranges {
		_, told := api.Exhaustions.Get(snap, kind)
		switch waiting := len(a.waiting[kind]); {
		case waiting > 0 && !told:
			puts = append(puts, kind)
			a.Log.Error("no virtual address is left; services get one when others go, or from a larger range",
				"kind", kind, "range", a.Ranges[kind].String(), "without", waiting)
		case waiting == 0 && told:
			gone = append(gone, kind)
		}
	}
	if len(puts)+len(gone) == 0 {
		return
	}
	_, err := a.DB.Write(func(tx *db.Tx) error {
		for _, kind := range puts {
			api.Exhaustions.Put(tx, &api.Exhaustion{Kind: kind, CIDR: a.Ranges[kind].String()})
		}
		for _, kind := range gone {
			api.Exhaustions.Delete(tx, kind)
		}
		return nil
	})
	if err != nil {
		a.Log.Error("the lack of virtual addresses cannot be entered", "error", err)
	}
}
