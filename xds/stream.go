package xds

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds/delta"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// order is make before break, as data (measured with Envoy 1.40): what refers
// to a thing waits until the thing is sent, and a thing goes only when nothing
// refers to it and connections had time to drain.
func order(drain time.Duration) *delta.Order {
	return &delta.Order{
		Kinds: []delta.Kind{
			{Type: string(wire.Cluster), EmptyMeansAll: true, Refreshes: string(wire.Endpoints), RefreshName: endpointsOf},
			{Type: string(wire.Endpoints)},
			{Type: string(wire.Secret)},
			{Type: string(wire.Listener), EmptyMeansAll: true, After: []string{string(wire.Cluster), string(wire.Endpoints)}},
			{Type: string(wire.Route), After: []string{string(wire.Cluster), string(wire.Endpoints)}},
		},
		Removals: []string{string(wire.Listener), string(wire.Route), string(wire.Cluster), string(wire.Endpoints), string(wire.Secret)},
		Drain:    drain, MaxBytes: 1 << 20, AnswerEmpty: true,
	}
}

// endpointsOf: clusters of services, which are named by a KRI, get their
// endpoints by discovery; the others carry theirs.
func endpointsOf(it delta.Item) string {
	if name := it.ItemName(); len(name) > 4 && name[:4] == "kri_" {
		return name
	}
	return ""
}

// stream is the conversation with one proxy.
type stream struct {
	s       *Server
	proxy   api.ID
	number  uint64
	since   time.Time
	node    *corev3.Node
	rpc     discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	wake    chan struct{}
	ctx     context.Context
	cancel  context.CancelCauseFunc
	release func()

	// Guarded by the server's lock.
	plan   *plan.Plan
	closed bool

	// mu guards what the engine's goroutine adds, and what others look at.
	mu       sync.Mutex
	dirty    [][]dirtyName
	rev      uint64
	stats    map[wire.Type]Counts
	rejected []delta.Rejection
	lacks    int
	reached  uint64

	session *delta.Session // of serve's goroutine alone
}

type dirtyName struct {
	typ  wire.Type
	name string
}

func newStream(s *Server, proxy api.ID, h *Hello, rpc discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) *stream {
	ctx, cancel := context.WithCancelCause(rpc.Context())
	return &stream{
		s: s, proxy: proxy, number: h.Stream, since: s.o.Now(), node: h.Node, rpc: rpc,
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel,
		stats:   map[wire.Type]Counts{},
		session: delta.New(order(s.o.Drain)),
	}
}

// mergeDirty is how many lists of dirty names may wait before they become one.
const mergeDirty = 16

// mark notes that names may have other resources now. The list is shared by the
// streams that it concerns and must not be changed. A stream that does not get
// to send keeps a set of names, not a list per round.
func (st *stream) mark(names []dirtyName) {
	if len(names) == 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.dirty = append(st.dirty, names); len(st.dirty) < mergeDirty {
		return
	}
	set := map[dirtyName]struct{}{}
	for _, names := range st.dirty {
		for _, d := range names {
			set[d] = struct{}{}
		}
	}
	st.dirty = [][]dirtyName{slices.Collect(maps.Keys(set))}
}

func (st *stream) target(rev uint64) {
	st.mu.Lock()
	st.rev = rev
	st.mu.Unlock()
}

func (st *stream) wakeUp() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// end lets serve return with the error.
func (st *stream) end(err error) { st.cancel(err) }

// serve answers requests and sends what is due.
func (st *stream) serve(first *discoveryv3.DeltaDiscoveryRequest) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	go func() { // ends with the stream: Recv fails when serve returns
		for {
			q, err := st.rpc.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- q:
			case <-st.ctx.Done():
				return
			}
		}
	}()
	var due <-chan time.Time
	var timer *time.Timer
	if err := st.take(first); err != nil {
		return err
	}
	for {
		next, err := st.send()
		if err != nil {
			return endOf(err)
		}
		if timer != nil {
			timer.Stop()
		}
		due, timer = nil, nil
		if !next.IsZero() {
			timer = time.NewTimer(next.Sub(st.s.o.Now()))
			due = timer.C
		}
		select {
		case q := <-requests:
			if err := st.take(q); err != nil {
				return err
			}
		case err := <-failed:
			return endOf(err)
		case <-st.wake:
		case <-due:
		case <-st.ctx.Done():
			if st.rpc.Context().Err() != nil {
				return nil
			}
			return context.Cause(st.ctx)
		}
	}
}

// take enters one request: an answer, a subscription, or both.
func (st *stream) take(q *discoveryv3.DeltaDiscoveryRequest) error {
	t := wire.Type(q.GetTypeUrl())
	if q.GetResponseNonce() != "" {
		refusal := ""
		if e := q.GetErrorDetail(); e != nil {
			if refusal = e.GetMessage(); refusal == "" {
				refusal = "refused without a reason"
			}
		}
		if st.session.Ack(q.GetTypeUrl(), q.GetResponseNonce(), refusal) {
			st.mu.Lock()
			c := st.stats[t]
			if refusal == "" {
				c.Acked++
			} else {
				c.Rejected++
			}
			st.stats[t] = c
			st.mu.Unlock()
			if refusal != "" {
				st.s.o.Log.Warn("proxy refused a resource", "proxy", st.proxy.Name, "mesh", st.proxy.Mesh, "type", t.Short(), "reason", refusal)
			}
		}
	}
	return st.session.Subscribe(q.GetTypeUrl(), q.GetResourceNamesSubscribe(), q.GetResourceNamesUnsubscribe(), q.GetInitialResourceVersions())
}

// send sends what may be sent now, and returns when to look again.
func (st *stream) send() (time.Time, error) {
	for {
		m, rev, next := st.next()
		if rev == 0 {
			return time.Time{}, nil // no plan yet
		}
		if m == nil {
			st.report(rev)
			return next, nil
		}
		if err := st.rpc.SendMsg(st.response(m)); err != nil {
			return time.Time{}, err
		}
		st.mu.Lock()
		c := st.stats[wire.Type(m.Type)]
		c.Sent++
		st.stats[wire.Type(m.Type)] = c
		st.mu.Unlock()
	}
}

// next takes what is dirty and puts a message together under the publishing
// lock: a round that is published in between would show in the content of some
// names and not yet in others.
func (st *stream) next() (m *delta.Message, rev uint64, again time.Time) {
	st.s.mu.RLock()
	defer st.s.mu.RUnlock()
	st.mu.Lock()
	rev = st.rev
	for _, names := range st.dirty {
		for _, d := range names {
			st.session.Changed(string(d.typ), d.name)
		}
	}
	st.dirty = nil
	st.mu.Unlock()
	if rev == 0 {
		return nil, 0, time.Time{}
	}
	st.session.Target(rev)
	m, again = st.session.Next(st, st.s.o.Now())
	return m, rev, again
}

// waiting reports whether something was published since the stream looked, at
// the revision.
func (st *stream) waiting(rev uint64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.rev != rev || len(st.dirty) > 0
}

func (st *stream) response(m *delta.Message) *wire.Response {
	r := &wire.Response{TypeURL: m.Type, Nonce: m.Nonce, ControlPlane: st.s.o.Instance, Removed: m.Removed}
	r.Resources = make([]*wire.Resource, len(m.Items))
	for i, it := range m.Items {
		r.Resources[i] = it.(*wire.Resource)
	}
	return r
}

// report tells the server, and through it the zone, how far the proxy is.
func (st *stream) report(rev uint64) {
	rejected := st.session.Rejections()
	st.mu.Lock()
	changed := len(rejected) != len(st.rejected)
	for i := 0; !changed && i < len(rejected); i++ {
		changed = rejected[i] != st.rejected[i]
	}
	st.rejected, st.lacks, st.reached = rejected, st.session.Behind(), st.session.Reached()
	st.mu.Unlock()
	if st.s.settle(st, rev, !st.session.Converged(), len(rejected) > 0) || changed {
		st.s.o.Report(st.status(false))
	}
}

func (st *stream) status(closed bool) Status {
	st.mu.Lock()
	defer st.mu.Unlock()
	stats := make(map[wire.Type]Counts, len(st.stats))
	for t, c := range st.stats {
		stats[t] = c
	}
	return Status{
		Proxy: st.proxy, Stream: st.number, Connected: st.since, Closed: closed, Stats: stats,
		Rejections: st.rejected, Behind: st.lacks, Reached: st.reached, Node: st.node,
	}
}

func (st *stream) refusal() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.rejected) == 0 {
		return ""
	}
	r := st.rejected[0]
	return "refuses " + wire.Type(r.Type).Short() + " " + r.Name + ": " + r.Error
}

// Get implements delta.Source under the server's reading lock.
func (st *stream) Get(typ, name string) (delta.Item, bool) {
	if st.plan == nil {
		return nil, false
	}
	c := st.s.groups[st.plan.Own].get(wire.Type(typ), name)
	if c == nil {
		c = st.s.groups[st.plan.Class].get(wire.Type(typ), name)
	}
	if c == nil || c.res == nil {
		return nil, false
	}
	return c.res, true
}

// Names implements delta.Source under the server's reading lock.
func (st *stream) Names(typ string) iter.Seq[string] {
	return func(yield func(string) bool) {
		st.plan.All(wire.Type(typ), func(name string, _ plan.Ref) bool { return yield(name) })
	}
}
