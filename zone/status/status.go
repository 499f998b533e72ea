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
// writes: reports of one proxy replace each other, and counters are written at
// most once per interval. What matters at once (connected, gone, refused) is
// written at once. Convergence is one small row, so it follows every round.
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
	pending map[api.ID]xds.Status
	marks   []mark

	written map[api.ID]shown // of Run's goroutine: what the row says
}

// mark remembers which revisions of its sources the database reached when.
type mark struct {
	revision uint64 // of the database
	marks    map[string]api.Mark
}

// shown is what decides whether a report is written at once.
type shown struct {
	stream     uint64
	closed     bool
	listens    bool
	rejections int
}

// New returns a feeder; Run does the work.
func New(o Options) *Feeder {
	return &Feeder{o: o, wake: make(chan struct{}, 1), pending: map[api.ID]xds.Status{}, written: map[api.ID]shown{}}
}

// Report notes the newest status of a stream. It never blocks.
func (f *Feeder) Report(s xds.Status) {
	f.mu.Lock()
	if have, ok := f.pending[s.Proxy]; !ok || have.Stream <= s.Stream {
		f.pending[s.Proxy] = s
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

// commit notes which revisions of the sources a revision of the database holds.
func (f *Feeder) commit(c db.Commit) {
	var m mark
	for _, ch := range c.Changes {
		if r, ok := ch.New.(*api.Revision); ok {
			if m.marks == nil {
				m.marks = map[string]api.Mark{}
			}
			m.marks[cmp.Or(r.Source, f.o.Site.Zone)] = r.Mark
		}
	}
	if m.marks == nil {
		return
	}
	m.revision = uint64(c.Snapshot.Revision())
	f.mu.Lock()
	f.marks = append(f.marks, m)
	f.mu.Unlock()
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
	var own api.Convergence
	own.Instance = f.o.Instance
	f.mu.Lock()
	f.marks = append(f.marks, f.known(f.o.DB.Snapshot()))
	f.mu.Unlock()
	first := true
	for {
		all := false
		if !first {
			select {
			case <-ctx.Done():
				return nil
			case <-f.wake:
			case <-flush.C:
				all = true
			}
		}
		rows := f.due(all)
		next, changed := f.converge(own)
		if changed || first {
			own, first = next, false
		} else if len(rows) == 0 {
			continue
		}
		if err := f.write(rows, own); err != nil {
			f.o.Log.Error("the status of proxies cannot be entered", "error", err)
		}
	}
}

// due takes the reports that are to be written now.
func (f *Feeder) due(all bool) []xds.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []xds.Status
	for id, s := range f.pending {
		was, ok := f.written[id]
		now := shown{s.Stream, s.Closed, listens(s), len(s.Rejections)}
		if !all && ok && was == now && now.rejections == 0 {
			continue
		}
		out = append(out, s)
		delete(f.pending, id)
		if s.Closed {
			delete(f.written, id)
		} else {
			f.written[id] = now
		}
	}
	return out
}

// listens reports whether the proxy has taken listeners.
func listens(s xds.Status) bool { return s.Stats[wire.Listener].Acked > 0 }

// converge computes the zone's report from the server's state.
func (f *Feeder) converge(was api.Convergence) (api.Convergence, bool) {
	c := f.o.Converged(5)
	next := api.Convergence{Instance: f.o.Instance, Proxies: c.Proxies, Behind: c.Behind, Rejected: c.Rejected, Enforced: map[string]api.Mark{}}
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
		for _, m := range f.marks {
			if m.revision > c.Revision {
				break
			}
			maps.Copy(next.Enforced, m.marks)
			n++
		}
		f.marks = slices.Delete(f.marks, 0, n)
		f.mu.Unlock()
	}
	return next, !equalReports(was, next)
}

func equalReports(a, b api.Convergence) bool {
	return a.Instance == b.Instance && a.Proxies == b.Proxies && a.Behind == b.Behind && a.Rejected == b.Rejected &&
		maps.Equal(a.Enforced, b.Enforced) && slices.Equal(a.Laggards, b.Laggards)
}

func (f *Feeder) write(list []xds.Status, own api.Convergence) error {
	_, err := f.o.DB.Write(func(tx *db.Tx) error {
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
		id := api.ID{Kind: "Convergence", Zone: f.o.Site.Zone, Name: f.o.Instance}
		m := api.Meta{ID: id, Core: id.Name, Instance: f.o.Instance, Modified: f.o.Now()}
		if have, ok := api.Convergences.Get(tx, id); ok {
			m.Created = have.Created
		} else {
			m.Created = m.Modified
		}
		m.Labels = api.ComputeLabels(api.Convergences, id, nil, f.o.Site)
		api.Convergences.PutObject(tx, api.Convergences.New(m, own))
		return nil
	})
	return err
}

// insight is the row of a proxy after a report; nil when its Dataplane is gone.
func (f *Feeder) insight(tx *db.Tx, s xds.Status) *api.Object[api.DataplaneInsight] {
	dp, ok := api.Dataplanes.Get(tx, s.Proxy)
	id := s.Proxy
	id.Kind = "DataplaneInsight"
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
	last := len(spec.Subscriptions) - 1
	if last >= 0 && spec.Subscriptions[last].ID == sub.ID {
		spec.Subscriptions[last] = sub
	} else {
		for i := range spec.Subscriptions {
			if spec.Subscriptions[i].DisconnectTime == nil {
				spec.Subscriptions[i].DisconnectTime = &s.Connected
			}
		}
		spec.Subscriptions = append(spec.Subscriptions, sub)
		spec.Subscriptions = spec.Subscriptions[max(0, len(spec.Subscriptions)-subscriptionLimit):]
	}
	if md := s.Node.GetMetadata(); md != nil {
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
