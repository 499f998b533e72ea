package kds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/kds/delta"
)

// receiver takes what a peer sends on one stream. It knows no transport:
// messages go in, answers come out, and rows are written in between.
type receiver struct {
	o     Options
	site  api.Site
	kinds []api.AnyKind
	inbox *inbox // of the peer, for all its streams
	self  node
	round uint64 // which stream of the peer this is

	begun map[string]bool // kinds whose first state is complete
	// firsts is what the first state of a kind consists of while it is not
	// complete: rows that the peer still has.
	firsts map[string]map[api.ID]struct{}
}

func newReceiver(o Options, site api.Site, way direction, in *inbox, self node) *receiver {
	r := &receiver{o: o, site: site, inbox: in, begun: map[string]bool{}, firsts: map[string]map[api.ID]struct{}{}}
	for _, k := range o.Kinds {
		if way.subscribed(k.Info()) {
			r.kinds = append(r.kinds, k)
		}
	}
	self.kinds = len(r.kinds)
	self.revision = in.applied()
	r.self = self
	r.round = in.begin()
	return r
}

func (r *receiver) kind(name string) (api.AnyKind, bool) {
	for _, k := range r.kinds {
		if k.Info().Name == name {
			return k, true
		}
	}
	return nil, false
}

// requests are the first requests of the stream: one per kind, with the
// versions of what is held from earlier.
func (r *receiver) requests() []*discovery.DeltaDiscoveryRequest {
	s := r.o.DB.Snapshot()
	out := make([]*discovery.DeltaDiscoveryRequest, 0, len(r.kinds))
	for i, k := range r.kinds {
		held := r.claims(s, k)
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: k.Info().Name, ResourceNamesSubscribe: []string{delta.All}, InitialResourceVersions: held}
		if i == 0 {
			req.Node = r.self.proto()
		} else {
			req.Node = plainNode(r.self.id)
		}
		out = append(out, req)
	}
	return out
}

// claims says which version of which row of the peer is here: as the peer gave
// it or, after a restart, encoded again, which gives the same if the peer is of
// this project. Other peers do not know these versions and send everything.
func (r *receiver) claims(s *db.Snapshot, k api.AnyKind) map[string]string {
	kind := k.Info().Name
	held := map[string]string{}
	first := map[api.ID]struct{}{}
	size := 0
	for row := range k.AllRows(s) {
		m := row.Head()
		if m.Source != r.inbox.peer {
			continue
		}
		name, version := r.inbox.version(kind, m.ID)
		if version == "" {
			res, lost, err := encode(k, parcel{name: api.SyncName(k, m.ID), mesh: m.Mesh, labels: m.Labels, spec: row.Raw()})
			if err != nil || len(lost) > 0 {
				continue // it will be sent again
			}
			name, version = res.Name, res.Version
		}
		held[name] = version
		first[m.ID] = struct{}{}
		size += len(name) + len(version) + 8
	}
	if size > r.o.MaxMessage/2 {
		held, first = nil, map[api.ID]struct{}{}
	}
	r.firsts[kind] = first
	return held
}

// take applies one response and returns the answer; nil if there is none to
// give. An error ends the stream.
func (r *receiver) take(ctx context.Context, resp *discovery.DeltaDiscoveryResponse) (*discovery.DeltaDiscoveryRequest, error) {
	kind, nonce := resp.GetTypeUrl(), resp.GetNonce()
	rev := parseRevision(resp.GetSystemVersionInfo())
	if nonce == "" { // a heartbeat
		r.inbox.heard(rev, true)
		return nil, nil
	}
	k, ok := r.kind(kind)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not taken from %s", ErrRefused, kind, r.inbox.peer)
	}
	r.inbox.heard(rev, false)
	b := r.sort(k, resp, rev.epoch != "")
	if !r.begun[kind] {
		r.complete(k, b, rev.epoch == "", !strings.Contains(nonce, markMore))
	}
	held := r.brake(k, b)
	if err := r.write(ctx, k, b); err != nil {
		return nil, err
	}
	r.inbox.settle(kind, b)
	if strings.Contains(nonce, markAll) {
		r.inbox.reached(rev)
	}
	answer := &discovery.DeltaDiscoveryRequest{Node: plainNode(r.self.id), TypeUrl: kind, ResponseNonce: nonce}
	if text := refusalText(b.refused, held); text != "" {
		answer.ErrorDetail = &status.Status{Message: text}
		answer.ResourceNamesSubscribe = []string{delta.All}
	}
	return answer, nil
}

// batch is one message in the making.
type batch struct {
	puts    []put
	seen    map[api.ID]struct{} // rows that the message names, also refused ones
	deletes []api.ID
	refused map[string]string // name on the wire → reason
	removed []string          // names on the wire that are no more
	total   int               // rows of the peer before
}

type put struct {
	record  store.Record
	row     api.Row
	wire    string // name on the wire
	version string // empty: not to be claimed
	same    bool   // nothing to write
	fresh   bool   // the row is new here
}

// sort decides for every resource of a message what becomes of it.
func (r *receiver) sort(k api.AnyKind, resp *discovery.DeltaDiscoveryResponse, claimable bool) *batch {
	s := r.o.DB.Snapshot()
	b := &batch{seen: map[api.ID]struct{}{}, refused: map[string]string{}}
	named := map[string]bool{}
	rows := r.inbox.count(s, k)
	b.total = rows
	for _, res := range resp.GetResources() {
		key := res.GetName()
		named[key] = true
		p, lost, err := decode(k, res)
		if err != nil {
			if row, ok := r.lookup(s, k, key); ok {
				b.seen[row.Head().ID] = struct{}{}
			}
			b.refused[key] = err.Error()
			continue
		}
		record, reason, skip := r.admit(s, k, key, p)
		if skip {
			continue
		}
		if reason == "" {
			if _, twice := b.seen[record.ID]; twice {
				reason = "another resource in this message has the same identity"
			}
		}
		old, exists := k.Row(s, record.ID)
		if record.Name != "" {
			b.seen[record.ID] = struct{}{}
		}
		if reason != "" {
			b.refused[key] = reason
			continue
		}
		one := put{record: record, wire: key}
		if claimable {
			one.version = res.GetVersion()
		}
		if exists {
			before := store.RecordOf(old)
			one.same = record.Equal(&before)
		} else if rows++; rows > r.o.MaxRows {
			rows--
			b.refused[key] = fmt.Sprintf("more than %d rows of %s are not taken from one peer", r.o.MaxRows, k.Info().Name)
			continue
		}
		one.fresh = !exists
		if !one.same {
			if one.row, reason = r.check(k, record); reason != "" {
				b.refused[key] = reason
				continue
			}
		}
		r.inbox.understood(k.Info().Name, key, lost)
		b.puts = append(b.puts, one)
	}
	for _, key := range resp.GetRemovedResources() {
		if named[key] {
			continue
		}
		b.removed = append(b.removed, key)
		if row, ok := r.lookup(s, k, key); ok {
			b.deletes = append(b.deletes, row.Head().ID)
		}
	}
	return b
}

// admit makes the record of a resource, or says why not. skip: it is none of
// our business, and that is no fault.
func (r *receiver) admit(s *db.Snapshot, k api.AnyKind, key string, p parcel) (rec store.Record, reason string, skip bool) {
	info := k.Info()
	labels := p.labels
	if labels == nil {
		labels = map[string]string{}
	}
	if r.site.IsGlobal() {
		labels = maps.Clone(labels)
		labels[api.LabelOrigin], labels[api.LabelZone] = api.OriginZone, r.inbox.peer
		p.spec = confine(info.Name, p.spec, r.inbox.peer)
	} else if info.ZoneWritable() && info.Name != "Config" && labels[api.LabelOrigin] != api.OriginGlobal {
		return store.Record{}, "", true
	}
	id := api.CopyID(k, p.mesh, p.name, labels)
	if reason := checkID(k, id); reason != "" {
		return store.Record{}, reason, false
	}
	rec = store.Record{ID: id, Labels: labels, Source: r.inbox.peer, Spec: p.spec}
	if old, ok := k.Row(s, id); ok && !r.mine(k, old) {
		return rec, fmt.Sprintf("resource already exists: type=%q name=%q mesh=%q", info.Name, p.name, p.mesh), false
	}
	return rec, "", false
}

// mine says whether the peer may change or delete the row: its own always, and
// in a zone whatever only global may write.
func (r *receiver) mine(k api.AnyKind, row api.Row) bool {
	m := row.Head()
	if m.Source == r.inbox.peer {
		return true
	}
	return !r.site.IsGlobal() && m.Source == "" && r.globals(k, m)
}

// globals: rows that a zone under a global does not write itself.
func (r *receiver) globals(k api.AnyKind, m *api.Meta) bool {
	return !k.Info().ZoneWritable() || m.Kind == "Config" && m.Name == clusterID
}

// checkID refuses identities that could be taken for another's.
func checkID(k api.AnyKind, id api.ID) string {
	if reason := api.CheckName(id.Name); reason != "" {
		return "name: " + reason
	}
	if k.Info().Scope == api.GlobalScope {
		if id.Mesh != "" {
			return "mesh: must be empty"
		}
	} else if reason := api.CheckMeshName(id.Mesh); reason != "" {
		return "mesh: " + reason
	}
	if id.Zone != "" {
		if reason := api.CheckDNSLabel(id.Zone); reason != "" {
			return "label kuma.io/zone: " + reason
		}
	}
	if id.Namespace != "" {
		if reason := api.CheckName(id.Namespace); reason != "" {
			return "label k8s.kuma.io/namespace: " + reason
		}
	}
	return ""
}

// check judges the spec as the kind does.
func (r *receiver) check(k api.AnyKind, rec store.Record) (api.Row, string) {
	m := api.Meta{ID: rec.ID, Labels: rec.Labels, Source: rec.Source}
	m.Core = api.CoreName(k, &m)
	var report api.Report
	row := k.Decode(m, rec.Spec, false, &report)
	if err := report.Err(); err != nil {
		return nil, err.Error()
	}
	return row, ""
}

// lookup finds the peer's row of a name on the wire.
func (r *receiver) lookup(s *db.Snapshot, k api.AnyKind, key string) (api.Row, bool) {
	name, mesh, ok := splitWireName(key)
	if !ok {
		return nil, false
	}
	if row, ok := k.RowNamed(s, mesh, name); ok && r.mine(k, row) {
		return row, true
	}
	if id, ok := r.inbox.id(k.Info().Name, key); ok {
		if row, ok := k.Row(s, id); ok && r.mine(k, row) {
			return row, true
		}
	}
	return nil, false
}

// complete treats a message of the first state. Once the state is whole, every
// row of the peer that is not in it is gone.
func (r *receiver) complete(k api.AnyKind, b *batch, foreign, last bool) {
	kind := k.Info().Name
	first := r.firsts[kind]
	if first == nil || foreign { // a peer that does not know claims sends all it has
		first = map[api.ID]struct{}{}
		r.firsts[kind] = first
	}
	maps.Copy(first, b.seen)
	for _, id := range b.deletes {
		delete(first, id)
	}
	if !last {
		return
	}
	r.begun[kind] = true
	delete(r.firsts, kind)
	gone := map[api.ID]struct{}{}
	for _, id := range b.deletes {
		gone[id] = struct{}{}
	}
	for row := range k.AllRows(r.o.DB.Snapshot()) {
		id := row.Head().ID
		_, has := first[id]
		if _, already := gone[id]; !has && !already && r.mine(k, row) {
			b.deletes = append(b.deletes, id)
		}
	}
}

// brake takes the deletions out of the batch if there are too many to be
// believed at once, and says so.
func (r *receiver) brake(k api.AnyKind, b *batch) string {
	kind := k.Info().Name
	for id := range b.seen {
		r.inbox.unhold(kind, id)
	}
	n := len(b.deletes)
	if k.Info().Memory || n < r.o.Brake.Rows || float64(n) <= r.o.Brake.Share*float64(b.total) {
		return ""
	}
	if !r.inbox.hold(kind, b.deletes, b.total, r.round) {
		return "" // the peer said the same on an earlier connection
	}
	b.deletes = nil
	r.o.Log.Warn("a removal of many rows is held until it is repeated on another connection or confirmed",
		"peer", r.inbox.peer, "kind", kind, "rows", n, "of", b.total)
	return heldText(kind, n, b.total)
}

func heldText(kind string, rows, of int) string {
	return fmt.Sprintf("%s%d of %d rows of %s would be removed; repeat it on another connection, or confirm it here", heldPrefix, rows, of, kind)
}

// heldPrefix begins the refusal of a removal that the brake holds.
const heldPrefix = "held: "

// write applies the batch: in one transaction, or row by row if the store
// refuses it, so that one bad row does not stop the others.
func (r *receiver) write(ctx context.Context, k api.AnyKind, b *batch) error {
	if k.Info().Memory {
		return r.report(k, b)
	}
	var ops []store.Op
	now := time.Now()
	for i := range b.puts {
		if !b.puts[i].same {
			b.puts[i].record.Modified = now
			if old, ok := k.Row(r.o.DB.Snapshot(), b.puts[i].record.ID); ok {
				b.puts[i].record.Created = old.Head().Created
			} else {
				b.puts[i].record.Created = now
			}
			ops = append(ops, store.Op{Record: b.puts[i].record})
		}
	}
	for _, id := range b.deletes {
		ops = append(ops, store.Op{Record: store.Record{ID: id}, Delete: true})
	}
	if len(ops) == 0 {
		return nil
	}
	_, err := r.o.Feeder.Apply(ctx, ops)
	if err == nil || !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrInvalid) {
		return err
	}
	for _, op := range ops {
		_, err := r.o.Feeder.Apply(ctx, []store.Op{op})
		switch {
		case err == nil:
		case errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrInvalid):
			b.fail(op.Record.ID, err)
		default:
			return err
		}
	}
	return nil
}

// fail moves a row that the store did not take to the refused ones.
func (b *batch) fail(id api.ID, err error) {
	b.puts = slices.DeleteFunc(b.puts, func(p put) bool {
		if p.record.ID == id {
			b.refused[p.wire] = err.Error()
			return true
		}
		return false
	})
	b.deletes = slices.DeleteFunc(b.deletes, func(d api.ID) bool { return d == id })
}

// report writes kinds that are not durable (what the peer's proxies and the peer
// itself report) straight into the database. Besides the cost: if each report
// made a revision of the store, reporting what revision was reached would never
// come to rest.
func (r *receiver) report(k api.AnyKind, b *batch) error {
	_, err := r.o.DB.Write(func(tx *db.Tx) error {
		for _, p := range b.puts {
			if p.row != nil {
				p.row.Head().Modified = time.Now() // not in the database yet
				k.Put(tx, p.row)
			}
		}
		for _, id := range b.deletes {
			k.Delete(tx, id)
		}
		return nil
	})
	return err
}

// refusalText is the message of a NACK: one line per resource.
func refusalText(refused map[string]string, held string) string {
	if len(refused) == 0 {
		return held
	}
	lines := []string{"user error"}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		lines = append(lines, name+": "+strings.ReplaceAll(refused[name], "\n", " "))
	}
	if held != "" {
		lines = append(lines, held)
	}
	return strings.Join(lines, "\n")
}

// lastWord is how long an ended stream may take to say why. It says so at once,
// except that gRPC may have begun the call anew on another connection while it
// refused a message on the first: then there is nothing to wait for.
const lastWord = time.Second

var errBroken = errors.New("the stream broke")

// serve runs the receiver on a stream until the context, the stream or the peer
// ends. A message is read only when the one before is written and answered.
func (r *receiver) serve(ctx context.Context, p pipe) error {
	defer r.inbox.end()
	messages, failed := make(chan *discovery.DeltaDiscoveryResponse), make(chan error, 1)
	go func() {
		for {
			m := &discovery.DeltaDiscoveryResponse{}
			if err := p.RecvMsg(m); err != nil {
				failed <- err
				return
			}
			select {
			case messages <- m:
			case <-p.Context().Done(): // the next read says why
			}
		}
	}()
	send := func(req *discovery.DeltaDiscoveryRequest) error {
		err := p.SendMsg(req)
		if !errors.Is(err, io.EOF) {
			return err
		}
		for end := time.After(lastWord); ; { // a client learns why its stream ended by reading
			select {
			case <-messages:
			case err := <-failed:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-end:
				return errBroken
			}
		}
	}
	for _, req := range r.requests() {
		if err := send(req); err != nil {
			return err
		}
	}
	// The peer beats at its own interval; who is configured to beat faster must
	// not expect that of others.
	patience := 3 * max(r.o.Heartbeat, defaultHeartbeat)
	silence := time.NewTimer(patience)
	defer silence.Stop()
	silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			return err
		case <-silence.C:
			return fmt.Errorf("%w since %v", ErrSilent, patience)
		case m := <-messages:
			answer, err := r.take(ctx, m)
			if err != nil {
				return err
			}
			if m.GetSystemVersionInfo() != "" || m.GetNonce() == "" {
				silence.Reset(patience)
			}
			if answer != nil {
				if e := answer.ErrorDetail; e != nil {
					r.o.Log.Warn("some of what a peer sent was refused", slog.String("peer", r.inbox.peer),
						slog.String("kind", m.GetTypeUrl()), slog.String("reason", e.Message))
				}
				if err := send(answer); err != nil {
					return err
				}
			}
			r.inbox.publish(r.o.DB)
		}
	}
}
