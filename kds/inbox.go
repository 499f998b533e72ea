package kds

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// inbox is what is remembered of a peer between its streams.
type inbox struct {
	peer string
	log  *slog.Logger

	mu      sync.Mutex
	rows    map[string]map[api.ID]copied
	names   map[string]map[string]api.ID // kind → name on the wire
	counts  map[string]int               // rows of the peer; filled when asked for
	holds   map[string]*hold
	refused map[string]map[string]string
	lost    map[string][]string

	open     int    // streams
	round    uint64 // counts them
	lastData time.Time
	received revision
	done     revision // all up to here is applied
	restored bool
	told     revision // what the table says
}

// copied is how the peer calls a row, and in which version it is here.
type copied struct{ name, version string }

// hold is a removal that the brake holds.
type hold struct {
	ids   map[api.ID]struct{}
	of    int
	since time.Time
	round uint64
}

func newInbox(peer string, log *slog.Logger) *inbox {
	return &inbox{
		peer: peer, log: log,
		rows: map[string]map[api.ID]copied{}, names: map[string]map[string]api.ID{}, counts: map[string]int{},
		holds: map[string]*hold{}, refused: map[string]map[string]string{}, lost: map[string][]string{},
	}
}

func (in *inbox) begin() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open++
	in.round++
	clear(in.counts)
	return in.round
}

func (in *inbox) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open--
}

func (in *inbox) applied() revision {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.done
}

func (in *inbox) version(kind string, id api.ID) (name, version string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.rows[kind][id]
	return c.name, c.version
}

func (in *inbox) id(kind, key string) (api.ID, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	id, ok := in.names[kind][key]
	return id, ok
}

// count is how many rows of the kind came from the peer.
func (in *inbox) count(s *db.Snapshot, k api.AnyKind) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	kind := k.Info().Name
	n, known := in.counts[kind]
	if !known {
		for row := range k.AllRows(s) {
			if row.Head().Source == in.peer {
				n++
			}
		}
		in.counts[kind] = n
	}
	return n
}

// heard notes a message. A revision of another history, or an older one of the
// same, means that the peer was restored from a backup: what it sends counts,
// because it is what its operator wants, but nobody shall miss it.
func (in *inbox) heard(rev revision, complete bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lastData = time.Now()
	if rev.epoch == "" {
		return
	}
	back := in.received.epoch != "" && (rev.epoch != in.received.epoch || rev.counter < in.received.counter)
	if back {
		in.restored = true
		in.log.Warn("the peer has another history than the one known here: it was restored or replaced",
			"peer", in.peer, "known", in.received.String(), "now", rev.String())
	}
	in.received = rev
	if complete {
		in.done = rev
	}
}

func (in *inbox) reached(rev revision) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if rev.epoch != "" {
		in.done = rev
	}
}

func (in *inbox) understood(kind, key string, lost []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	name := kind + " " + key
	if len(lost) == 0 {
		delete(in.lost, name)
		return
	}
	if !slices.Equal(in.lost[name], lost) {
		in.log.Warn("fields of a peer's resource are not understood here and are lost", "peer", in.peer, "kind", kind, "name", key, "fields", lost)
	}
	in.lost[name] = lost
}

// settle notes what became of a message.
func (in *inbox) settle(kind string, b *batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.rows[kind] == nil {
		in.rows[kind], in.names[kind], in.refused[kind] = map[api.ID]copied{}, map[string]api.ID{}, map[string]string{}
	}
	for _, p := range b.puts {
		in.rows[kind][p.record.ID] = copied{name: p.wire, version: p.version}
		in.names[kind][p.wire] = p.record.ID
		delete(in.refused[kind], p.wire)
		if p.fresh {
			in.counts[kind]++
		}
	}
	for _, id := range b.deletes {
		c, known := in.rows[kind][id]
		if known {
			delete(in.names[kind], c.name)
			delete(in.lost, kind+" "+c.name)
		}
		delete(in.rows[kind], id)
		in.counts[kind]--
	}
	for _, key := range b.removed {
		delete(in.refused[kind], key)
	}
	maps.Copy(in.refused[kind], b.refused)
}

// hold notes a removal that is too large and reports whether it must wait.
func (in *inbox) hold(kind string, ids []api.ID, of int, round uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if h := in.holds[kind]; h != nil && h.round < round {
		again := true
		for _, id := range ids {
			_, was := h.ids[id]
			again = again && was
		}
		if again {
			delete(in.holds, kind)
			return false
		}
	}
	h := &hold{ids: map[api.ID]struct{}{}, of: of, since: time.Now(), round: round}
	for _, id := range ids {
		h.ids[id] = struct{}{}
	}
	in.holds[kind] = h
	return true
}

// unhold: the peer named the row again, so it is not to be removed.
func (in *inbox) unhold(kind string, id api.ID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if h := in.holds[kind]; h != nil {
		delete(h.ids, id)
		if len(h.ids) == 0 {
			delete(in.holds, kind)
		}
	}
}

// confirm deletes what is held of a kind.
func (in *inbox) confirm(ctx context.Context, o Options, kind string) error {
	in.mu.Lock()
	h := in.holds[kind]
	delete(in.holds, kind)
	in.mu.Unlock()
	if h == nil {
		return fmt.Errorf("%s of %s: %w", kind, in.peer, ErrNothingHeld)
	}
	ops := make([]store.Op, 0, len(h.ids))
	for id := range h.ids {
		ops = append(ops, store.Op{Record: store.Record{ID: id}, Delete: true})
	}
	if _, err := o.Feeder.Apply(ctx, ops); err != nil {
		in.mu.Lock()
		in.holds[kind] = h
		in.mu.Unlock()
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for id := range h.ids {
		delete(in.names[kind], in.rows[kind][id].name)
		delete(in.rows[kind], id)
	}
	delete(in.counts, kind)
	return nil
}

// publish brings the revision that is reached into the database, after the rows
// that it speaks of.
func (in *inbox) publish(d *db.DB) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.done == in.told {
		return
	}
	in.told = in.done
	r := &api.Revision{Source: in.peer, Mark: api.Mark{Epoch: in.done.epoch, Counter: in.done.counter}}
	_, err := d.Write(func(tx *db.Tx) error {
		api.Revisions.Put(tx, r)
		return nil
	})
	if err != nil { // only the function above could fail
		panic("kds: " + err.Error())
	}
}

func (in *inbox) status() Status {
	in.mu.Lock()
	defer in.mu.Unlock()
	st := Status{
		Peer: in.peer, Connected: in.open > 0, LastData: in.lastData,
		Epoch: in.received.epoch, Received: in.received.counter, Restored: in.restored,
	}
	if in.done.epoch == in.received.epoch {
		st.Applied = in.done.counter
	}
	for kind, names := range in.refused {
		for name, reason := range names {
			st.Refused = append(st.Refused, Rejection{Kind: kind, Name: name, Reason: reason})
		}
	}
	slices.SortFunc(st.Refused, func(a, b Rejection) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
	for kind, h := range in.holds {
		st.Held = append(st.Held, Held{Kind: kind, Rows: len(h.ids), Of: h.of, Since: h.since})
	}
	slices.SortFunc(st.Held, func(a, b Held) int { return strings.Compare(a.Kind, b.Kind) })
	if len(in.lost) > 0 {
		st.NotUnderstood = maps.Clone(in.lost)
	}
	return st
}

// confine makes a zone's Dataplane speak for that zone only: the tag of a
// gateway may name no other.
func confine(kind string, spec json.RawMessage, zone string) json.RawMessage {
	if kind != api.Dataplanes.Name {
		return spec
	}
	var tree map[string]any
	if json.Unmarshal(spec, &tree) != nil {
		return spec // refused later, with the reason
	}
	networking, _ := tree["networking"].(map[string]any)
	gateway, _ := networking["gateway"].(map[string]any)
	tags, _ := gateway["tags"].(map[string]any)
	if was, ok := tags[api.LabelZone]; !ok || was == zone {
		return spec
	}
	tags[api.LabelZone] = zone
	out, err := json.Marshal(tree)
	if err != nil {
		return spec // it was decoded a moment ago
	}
	return out
}

func plainNode(id string) *core.Node { return &core.Node{Id: id} }
