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

	plan   planned // guarded by the server's publishing lock
	closed bool    // written under the server's lock and in its books, so that either suffices to read it

	// mu guards the session, which serve's goroutine drives, a round marks and
	// others look at.
	mu       sync.Mutex
	session  *delta.Session
	begun    bool // a round said what the proxy should have
	stats    map[wire.Type]Counts
	rejected []delta.Rejection
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

// mark notes what may have other resources now. The names are shared by the
// streams that they concern.
func (st *stream) mark(what []news) {
	st.mu.Lock()
	for _, n := range what {
		st.session.ChangedMany(string(n.typ), n.names)
	}
	st.mu.Unlock()
}

// target says that what was marked is all up to the revision.
func (st *stream) target(rev uint64) {
	st.mu.Lock()
	st.session.Target(rev)
	st.begun = true
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
		if st.answered(t, q.GetResponseNonce(), refusal) && refusal != "" {
			st.s.o.Log.Warn("proxy refused a resource", "proxy", st.proxy.Name, "mesh", st.proxy.Mesh, "type", t.Short(), "reason", refusal)
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.session.Subscribe(q.GetTypeUrl(), q.GetResourceNamesSubscribe(), q.GetResourceNamesUnsubscribe(), q.GetInitialResourceVersions())
}

// answered enters an answer, and reports whether there was such a question.
func (st *stream) answered(t wire.Type, nonce, refusal string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.session.Ack(string(t), nonce, refusal) {
		return false
	}
	c := st.stats[t]
	if refusal == "" {
		c.Acked++
	} else {
		c.Rejected++
	}
	st.stats[t] = c
	return true
}

// send sends what may be sent now, and returns when to look again.
func (st *stream) send() (time.Time, error) {
	for {
		m, again, begun := st.next()
		if !begun {
			return time.Time{}, nil // no plan yet
		}
		if m == nil {
			st.report()
			return again, nil
		}
		if err := st.rpc.SendMsg(st.response(m)); err != nil {
			return time.Time{}, err
		}
	}
}

// next puts a message together under the publishing lock: a round that is
// published in between would show in the content of some names and not yet in
// others.
func (st *stream) next() (m *delta.Message, again time.Time, begun bool) {
	st.s.mu.RLock()
	defer st.s.mu.RUnlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.begun {
		return nil, time.Time{}, false
	}
	if m, again = st.session.Next(st, st.s.o.Now()); m != nil {
		t := wire.Type(m.Type)
		c := st.stats[t]
		c.Sent++
		st.stats[t] = c
	}
	return m, again, true
}

// progress is whether the proxy lacks something, and whether it refuses something.
func (st *stream) progress() (behind, rejects bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return !st.session.Converged(), len(st.rejected) > 0
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
func (st *stream) report() {
	st.mu.Lock()
	rejected := st.session.Rejections()
	changed := !slices.Equal(rejected, st.rejected)
	st.rejected = rejected
	st.mu.Unlock()
	if st.s.settle(st) || changed {
		st.s.o.Report(st.status(false))
	}
}

func (st *stream) status(closed bool) Status {
	st.mu.Lock()
	defer st.mu.Unlock()
	return Status{
		Proxy: st.proxy, Stream: st.number, Connected: st.since, Closed: closed, Stats: maps.Clone(st.stats),
		Rejections: st.rejected, Behind: st.session.Behind(), Reached: st.session.Reached(), Node: st.node,
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

// Get implements delta.Source under the server's reading lock. What is the
// proxy's own wins.
func (st *stream) Get(typ, name string) (delta.Item, bool) {
	c := st.plan.own.part(wire.Type(typ)).get(name)
	if c == nil {
		c = st.plan.class.part(wire.Type(typ)).get(name)
	}
	if c == nil || c.res == nil {
		return nil, false
	}
	return c.res, true
}

// Names implements delta.Source under the server's reading lock.
func (st *stream) Names(typ string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, g := range []*group{st.plan.own, st.plan.class} {
			if p := g.part(wire.Type(typ)); p != nil {
				for _, name := range p.sorted {
					if !yield(name) {
						return
					}
				}
			}
		}
	}
}
