// Package status enters what proxies said as rows: which are connected, what
// they hold or refuse, and how far the zone as a whole is.
//
// It owns three tables' rows of this instance: DataplaneInsight, Connection
// (removal; admission enters it) and Convergence. The discovery server reports
// here; REST, KDS and inspection read the rows. It never decides what a proxy
// gets: no plan reads these rows, except the few facts of a Connection.
//
//	xds.Status ─▶ Report ─▶ pending per proxy ─▶ Run ─▶ db: DataplaneInsight
//	xds.Convergence, Peers ──────────────────────────▶ db: Convergence ─▶ KDS ─▶ global
//
// # Why
//
// A thousand acknowledgements of one change are a thousand reports but few
// writes: reports of one stream replace each other, and counters are written at
// most once per interval. A proxy that connects again has two streams for a
// moment, and the older one ends after the newer has begun: what it says must
// not be taken for the newer one's. What matters at once (connected, gone, refused) is
// written at once. Convergence is one small row: that a revision is reached, or
// refused, is written at once; how many are still behind a few times a second,
// else each acknowledgement of a thousand would be a commit.
package status

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// Options of a [Feeder].
type Options struct {
	DB       *db.DB
	Site     api.Site
	Instance string
	// Converged asks the discovery server how far its proxies are.
	Converged func(sample int) xds.Convergence
	// Flush is the longest time that a proxy's counters stay unwritten.
	Flush time.Duration
	Now   func() time.Time
	Log   *slog.Logger
}

// Feeder enters reports. Report and Poke may be called from any goroutine.
type Feeder struct {
	o    Options
	wake chan struct{}

	mu      sync.Mutex
	pending map[stream]xds.Status
	urgent  map[stream]struct{} // those of pending that do not wait for the flush
	written map[stream]shown    // what the rows say
	marks   []mark              // in the order of the database's revisions
	gone    map[api.ID]struct{} // Dataplanes that were deleted
}

// stream is one connection of a proxy to this instance.
type stream struct {
	proxy  api.ID
	number uint64
}

// mark remembers which revisions of its sources the database reached when.
type mark struct {
	revision uint64 // of the database
	marks    map[string]api.Mark
}

const (
	// countsEvery is the shortest time between reports that tell counts only.
	countsEvery = 250 * time.Millisecond
	// laggards is how many proxies a report names.
	laggards = 5
)

// shown is what decides whether a report is written at once.
type shown struct {
	closed     bool
	listens    bool
	rejections int
}

func shownBy(s xds.Status) shown { return shown{s.Closed, listens(s), len(s.Rejections)} }

// New returns a feeder; Run does the work.
func New(o Options) *Feeder {
	return &Feeder{
		o: o, wake: make(chan struct{}, 1),
		pending: map[stream]xds.Status{}, urgent: map[stream]struct{}{}, written: map[stream]shown{}, gone: map[api.ID]struct{}{},
	}
}

// Report notes the newest status of a stream. It never blocks.
func (f *Feeder) Report(s xds.Status) {
	f.mu.Lock()
	id := stream{s.Proxy, s.Stream}
	f.pending[id] = s
	if was, ok := f.written[id]; ok && was == shownBy(s) && was.rejections == 0 {
		delete(f.urgent, id)
	} else {
		f.urgent[id] = struct{}{}
	}
	f.mu.Unlock()
	f.Poke()
}

// Poke says that something may have converged: after each round.
func (f *Feeder) Poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// commit notes which revisions of the sources a revision of the database holds,
// and which Dataplanes went: their insights go with them.
func (f *Feeder) commit(c db.Commit) {
	var m mark
	for _, ch := range c.Changes {
		if r, ok := ch.New.(*api.Revision); ok {
			if m.marks == nil {
				m.marks = map[string]api.Mark{}
			}
			m.marks[cmp.Or(r.Source, f.o.Site.Zone)] = r.Mark
		}
		if dp, ok := ch.Old.(*api.Object[api.Dataplane]); ok && dp != nil && ch.New == nil {
			f.mu.Lock()
			f.gone[dp.ID] = struct{}{}
			f.mu.Unlock()
			f.Poke()
		}
	}
	if m.marks == nil {
		return
	}
	m.revision = uint64(c.Snapshot.Revision())
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.marks); n >= marksLimit {
		last := f.marks[n-1]
		maps.Copy(last.marks, m.marks)
		m.marks = last.marks
		f.marks = f.marks[:n-1]
	}
	f.marks = append(f.marks, m)
}

// marksLimit bounds what is remembered while some proxy does not follow. Beyond
// it the newest marks are merged: they count once all of them are reached.
const marksLimit = 256

// begin notes what the database holds before the first commit that is heard of.
func (f *Feeder) begin(s *db.Snapshot) {
	m := f.known(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	later := slices.DeleteFunc(f.marks, func(o mark) bool { return o.revision <= m.revision })
	f.marks = append([]mark{m}, later...)
}

// known is the revisions of all sources in a snapshot.
func (f *Feeder) known(s *db.Snapshot) mark {
	m := mark{revision: uint64(s.Revision()), marks: map[string]api.Mark{}}
	for r := range api.Revisions.All(s) {
		m.marks[cmp.Or(r.Source, f.o.Site.Zone)] = r.Mark
	}
	return m
}

// Run enters reports until the context ends.
func (f *Feeder) Run(ctx context.Context) error {
	stop := f.o.DB.OnCommit(f.commit)
	defer stop()
	flush := time.NewTicker(f.o.Flush)
	defer flush.Stop()
	f.begin(f.o.DB.Snapshot())
	own := f.converge(&api.Convergence{})
	next := own // what is to be written of it; nil: nothing
	var rows []xds.Status
	var gone map[api.ID]struct{}
	var counts <-chan time.Time // runs while counts are unwritten
	for {
		if next != nil || len(rows)+len(gone) > 0 {
			if err := f.write(rows, gone, next); err != nil {
				f.o.Log.Error("the status of proxies cannot be entered", "error", err)
			}
		}
		all, late := false, false
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-flush.C:
			all = true
		case <-counts:
			late, counts = true, nil
		}
		rows, gone, next = f.due(all), f.departed(), nil
		refused := slices.ContainsFunc(rows, func(s xds.Status) bool { return len(s.Rejections) > 0 })
		switch u := f.urgency(own); {
		case u == urgent, refused, late && u == counted:
			own = f.converge(own)
			next, counts = own, nil
		case u == counted && counts == nil:
			counts = time.After(countsEvery)
		}
	}
}

// due takes the reports that are to be written now, streams in their order. It
// looks at no others: while a thousand proxies acknowledge, it runs a thousand
// times.
func (f *Feeder) due(all bool) []xds.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if all {
		for id := range f.pending {
			f.urgent[id] = struct{}{}
		}
	}
	if len(f.urgent) == 0 {
		return nil
	}
	out := make([]xds.Status, 0, len(f.urgent))
	for id := range f.urgent {
		s := f.pending[id]
		out = append(out, s)
		delete(f.pending, id)
		if s.Closed {
			delete(f.written, id)
		} else {
			f.written[id] = shownBy(s)
		}
	}
	clear(f.urgent)
	slices.SortFunc(out, func(a, b xds.Status) int { return cmp.Compare(a.Stream, b.Stream) })
	return out
}

// departed takes the Dataplanes that were deleted.
func (f *Feeder) departed() map[api.ID]struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.gone) == 0 {
		return nil
	}
	gone := f.gone
	f.gone = map[api.ID]struct{}{}
	return gone
}

// listens reports whether the proxy has taken listeners.
func listens(s xds.Status) bool { return s.Stats[wire.Listener].Acked > 0 }

// urgency says when a report of the instance is due.
type urgency int

const (
	unchanged urgency = iota
	counted           // counts have changed
	urgent            // a revision is reached, or something is refused
)

// urgency compares the discovery server with the last report. It asks for no
// sample of laggards: which of many are named is not a change.
func (f *Feeder) urgency(was *api.Convergence) urgency {
	c := f.o.Converged(0)
	switch {
	case f.reached(c) || c.Rejected != was.Rejected || c.Behind == 0 && was.Behind > 0:
		return urgent
	case c.Proxies != was.Proxies || c.Behind != was.Behind:
		return counted
	}
	return unchanged
}

// reached reports whether a mark is reached that was not reported.
func (f *Feeder) reached(c xds.Convergence) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.Behind == 0 && len(f.marks) > 0 && f.marks[0].revision <= c.Revision
}

// converge computes the instance's report from the server's state.
func (f *Feeder) converge(was *api.Convergence) *api.Convergence {
	c := f.o.Converged(laggards)
	next := &api.Convergence{Instance: f.o.Instance, Proxies: c.Proxies, Behind: c.Behind, Rejected: c.Rejected, Enforced: map[string]api.Mark{}}
	maps.Copy(next.Enforced, was.Enforced)
	for _, l := range c.Laggards {
		next.Laggards = append(next.Laggards, api.Laggard{Mesh: l.Proxy.Mesh, Name: l.Proxy.Name, Reason: l.Reason})
	}
	slices.SortFunc(next.Laggards, func(a, b api.Laggard) int {
		return cmp.Or(cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Name, b.Name))
	})
	if c.Behind == 0 {
		f.mu.Lock()
		n := 0
		for n < len(f.marks) && f.marks[n].revision <= c.Revision {
			maps.Copy(next.Enforced, f.marks[n].marks)
			n++
		}
		f.marks = slices.Delete(f.marks, 0, n)
		f.mu.Unlock()
	}
	return next
}

func (f *Feeder) write(list []xds.Status, gone map[api.ID]struct{}, own *api.Convergence) error {
	_, err := f.o.DB.Write(func(tx *db.Tx) error {
		for id := range gone {
			if _, back := api.Dataplanes.Get(tx, id); !back {
				id.Kind = api.DataplaneInsights.Name
				api.DataplaneInsights.Remove(tx, id)
			}
		}
		for _, s := range list {
			if j, ok := api.Joinings.Get(tx, s.Proxy.Key()); ok && j.Stream == s.Stream && (s.Closed || listens(s)) {
				api.Joinings.Delete(tx, s.Proxy.Key())
			}
			if s.Closed {
				if c, ok := api.Connections.Get(tx, s.Proxy.Key()); ok && c.Instance == f.o.Instance && c.Stream == s.Stream {
					api.Connections.Delete(tx, s.Proxy.Key())
				}
			}
			if row := f.insight(tx, s); row != nil {
				api.DataplaneInsights.PutObject(tx, row)
			}
		}
		if own == nil {
			return nil
		}
		id := api.ID{Kind: api.Convergences.Name, Zone: f.o.Site.Zone, Name: f.o.Instance}
		m := api.Meta{ID: id, Core: id.Name, Instance: f.o.Instance, Modified: f.o.Now()}
		if have, ok := api.Convergences.Get(tx, id); ok {
			m.Created = have.Created
		} else {
			m.Created = m.Modified
		}
		m.Labels = api.ComputeLabels(api.Convergences, id, nil, f.o.Site)
		api.Convergences.PutObject(tx, api.Convergences.New(m, *own))
		return nil
	})
	return err
}

// insight is the row of a proxy after a report; nil when its Dataplane is gone.
func (f *Feeder) insight(tx *db.Tx, s xds.Status) *api.Object[api.DataplaneInsight] {
	dp, ok := api.Dataplanes.Get(tx, s.Proxy)
	id := s.Proxy
	id.Kind = api.DataplaneInsights.Name
	if !ok {
		api.DataplaneInsights.Remove(tx, id)
		return nil
	}
	var spec api.DataplaneInsight
	m := api.Meta{ID: id, Core: dp.Core, Labels: dp.Labels, Instance: f.o.Instance, Created: s.Connected, Modified: f.o.Now()}
	if have, ok := api.DataplaneInsights.Get(tx, id); ok {
		spec, m.Created = have.Spec, have.Created
		spec.Subscriptions = slices.Clone(spec.Subscriptions)
	}
	sub := f.subscription(s)
	known := slices.ContainsFunc(spec.Subscriptions, func(o api.DataplaneSubscription) bool { return o.ID == sub.ID })
	spec.Subscriptions = subscribed(spec.Subscriptions, sub)
	if s.Closed && online(spec.Subscriptions) {
		return api.DataplaneInsights.New(m, spec) // the rest of the row is the newer stream's
	}
	if md := s.Node.GetMetadata(); md != nil && !known { // what a stream says of its proxy, it says once
		if raw, err := protojson.Marshal(md); err == nil {
			spec.Metadata = raw
		}
	}
	spec.Rejected, spec.Conditions = nil, nil
	for _, r := range s.Rejections {
		spec.Rejected = append(spec.Rejected, api.RejectedResource{Type: wire.Type(r.Type).Short(), Name: r.Name, Version: r.Version, Reason: r.Error})
		spec.Conditions = append(spec.Conditions, api.Condition{
			Type: "ResourcesAccepted", Status: "False", Reason: "Rejected",
			Message: wire.Type(r.Type).Short() + " " + r.Name + ": " + r.Error,
		})
	}
	if leaf, ok := api.Leaves.Get(tx, s.Proxy.Key()); ok {
		spec.MTLS = mtls(spec.MTLS, leaf)
	}
	return api.DataplaneInsights.New(m, spec)
}
