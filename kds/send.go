package kds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/atoll-mesh/atoll/kds/delta"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// pipe is a stream seen from either end.
type pipe interface {
	Context() context.Context
	SendMsg(any) error
	RecvMsg(any) error
}

// Marks at the end of a nonce, between control planes of this project. Peers
// give a nonce back as it is.
const (
	// markMore: the first state of this kind goes on in the next message.
	markMore = "+"
	// markAll: with this message everything up to its revision is sent.
	markAll = "!"
)

// orders are the tables of a direction's sessions: for peers that know chunks,
// and for the others, whose first state is one message.
type orders struct{ cut, whole *delta.Order }

func newOrders(o Options, way direction) orders {
	whole := delta.Order{Together: true, AnswerEmpty: true, Extra: maxExtraKinds, Guilty: guilty}
	for _, k := range o.Kinds {
		if way.subscribed(k.Info()) {
			whole.Kinds = append(whole.Kinds, delta.Kind{Type: k.Info().Name})
		}
	}
	cut := whole
	cut.MaxBytes = chunk
	return orders{cut: &cut, whole: &whole}
}

// sender speaks for this control plane on one stream.
type sender struct {
	o        Options
	c        *catalog
	orders   orders
	out      pipe
	name     string // of this control plane, as control_plane.identifier
	own      string // the name that the peer's node must have; empty: any
	allow    func(*node) *view
	greeted  func(*node)                               // the peer's first request is here
	answered func(kind string, sent, ack, nack uint64) // for the books of the zone; may be nil
	kick     chan struct{}
	ended    chan struct{}
	endOnce  sync.Once
	endErr   error

	mu          sync.Mutex
	session     *delta.Session // nil until the first request
	view        *view
	peer        *node
	at          revision
	told        revision // newest one that the peer knows it has everything of
	subscribed  map[string]bool
	outstanding map[string]int // kind → what the message in flight holds
	spoken      string         // a kind whose first state is sent
	oversized   map[string]int // kinds that the peer cannot take → bytes
}

func newSender(o Options, c *catalog, ord orders, out pipe, name string, allow func(*node) *view) *sender {
	return &sender{
		o: o, c: c, orders: ord, out: out, name: name, allow: allow,
		kick: make(chan struct{}, 1), ended: make(chan struct{}),
		subscribed: map[string]bool{}, outstanding: map[string]int{}, oversized: map[string]int{},
	}
}

// end makes run return the error.
func (s *sender) end(err error) {
	s.endOnce.Do(func() {
		s.endErr = err
		close(s.ended)
	})
}

func (s *sender) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// mark notes what may have changed; the catalog calls it, for all streams with
// the same sorted keys.
func (s *sender) mark(changed map[string][]string, again []string, at revision) {
	s.mu.Lock()
	s.at = at
	if s.session != nil {
		for kind, keys := range changed {
			s.session.ChangedMany(kind, keys)
		}
		for _, kind := range again {
			s.session.ChangedAll(kind)
		}
		s.aim()
	}
	s.mu.Unlock()
	s.wake()
}

// aim tells the session its target once the peer has asked for all it wants;
// before that, "everything" would mean too little.
func (s *sender) aim() {
	if len(s.subscribed) >= s.peer.kinds {
		s.session.Target(s.at.counter)
	}
}

// run writes until the context, the stream or the peer ends. receive is called
// for every request by another goroutine; see pump.
func (s *sender) run(ctx context.Context) error {
	at := s.c.attach(s)
	defer s.c.detach(s)
	s.mu.Lock()
	if s.at.epoch == "" {
		s.at = at
	}
	s.mu.Unlock()
	failed := make(chan error, 1)
	go func() { failed <- s.pump() }()
	beat := time.NewTicker(s.o.Heartbeat)
	defer beat.Stop()
	soon := time.NewTimer(s.o.Heartbeat)
	defer soon.Stop()
	soon.Stop()
	awaited := false // soon runs; starting it anew would put it off for as long as rows change
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return s.endErr
		case err := <-failed:
			return err
		case <-s.kick:
			if err = s.flush(); err == nil && !awaited && s.untold() {
				soon.Reset(min(tellWithin, s.o.Heartbeat))
				awaited = true
			}
		case <-soon.C:
			awaited = false
			if s.untold() {
				err = s.beat()
			}
		case <-beat.C:
			err = s.beat()
		}
		if errors.Is(err, io.EOF) { // a client learns why its stream ended by reading
			select {
			case err = <-failed:
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(lastWord):
				err = errBroken
			}
		}
		if err != nil {
			return err
		}
	}
}

// pump reads the peer's requests.
func (s *sender) pump() error {
	for {
		req := &discovery.DeltaDiscoveryRequest{}
		if err := s.out.RecvMsg(req); err != nil {
			return err
		}
		if err := s.request(req); err != nil {
			return err
		}
		s.wake()
	}
}

// request takes one request: a subscription, an answer, or both.
func (s *sender) request(req *discovery.DeltaDiscoveryRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		s.peer = parseNode(req.GetNode())
		if s.own != "" && s.peer.id != s.own {
			return fmt.Errorf("%w: zone %s speaks as node %q", ErrRefused, s.own, s.peer.id)
		}
		s.view = s.allow(s.peer)
		order := s.orders.whole
		if s.peer.has(featureChunks) {
			order = s.orders.cut
		}
		s.session = delta.New(order)
		if s.greeted != nil {
			s.greeted(s.peer)
		}
	}
	kind := req.GetTypeUrl()
	if nonce := req.GetResponseNonce(); nonce != "" {
		nonce = strings.TrimRight(nonce, markMore+markAll)
		rejection := ""
		if e := req.GetErrorDetail(); e != nil {
			if rejection = e.GetMessage(); rejection == "" {
				rejection = "refused without a reason"
			}
		}
		if s.session.Ack(kind, nonce, rejection) {
			delete(s.outstanding, kind)
			if s.answered != nil {
				if rejection == "" {
					s.answered(kind, 0, 1, 0)
				} else {
					s.answered(kind, 0, 0, 1)
				}
			}
		}
	}
	if !s.subscribed[kind] && s.tooLarge(kind) {
		return nil
	}
	if err := s.session.Subscribe(kind, req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe(), req.GetInitialResourceVersions()); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	s.subscribed[kind] = true
	s.aim()
	return nil
}

// tooLarge holds back a kind whose first state does not fit into the one
// message that the peer understands: an incomplete one would delete the rest.
func (s *sender) tooLarge(kind string) bool {
	if s.peer.has(featureChunks) {
		return false
	}
	total := 0
	for key := range s.view.Names(kind) {
		if item, ok := s.view.Get(kind, key); ok {
			total += item.Size()
		}
	}
	if total < s.o.MaxMessage-4096 {
		return false
	}
	if s.oversized[kind] == 0 {
		s.o.Log.Error("kind is too large for the peer and is not sent", "peer", s.peer.id, "kind", kind, "bytes", total, "limit", s.o.MaxMessage)
	}
	s.oversized[kind] = total
	return true
}

// flush sends all that may be sent now. The lock is not held while sending: a
// slow peer must not hold up the catalog.
func (s *sender) flush() error {
	for {
		s.mu.Lock()
		r := s.next()
		s.mu.Unlock()
		if r == nil {
			return nil
		}
		if err := s.out.SendMsg(r); err != nil {
			return err
		}
	}
}

func (s *sender) next() *wire.Response {
	if s.session == nil {
		return nil
	}
	m, _ := s.session.Next(s.view, time.Now())
	if m == nil {
		return nil
	}
	r := &wire.Response{TypeURL: m.Type, Nonce: m.Nonce, ControlPlane: s.name, Removed: m.Removed, Resources: make([]*wire.Resource, len(m.Items))}
	for i, item := range m.Items {
		r.Resources[i] = item.(*wire.Resource)
	}
	s.outstanding[m.Type] = max(1, len(m.Items)+len(m.Removed))
	if m.Last {
		s.spoken = m.Type
	}
	if s.answered != nil {
		s.answered(m.Type, 1, 0, 0)
	}
	if s.peer.has(featureRevisions) {
		r.SystemVersion = s.at.String()
		if s.allSent() {
			r.Nonce += markAll
			s.told = s.at
		}
	}
	if s.peer.has(featureChunks) && m.First && !m.Last {
		r.Nonce += markMore
	}
	return r
}

// allSent: everything that the peer should have is on its way.
func (s *sender) allSent() bool {
	if len(s.subscribed) < s.peer.kinds {
		return false
	}
	flying := 0
	for _, n := range s.outstanding {
		flying += n
	}
	return s.session.Behind() == flying
}

// tellWithin bounds how long a peer does not know that a new revision brought
// nothing for it. Without that, its proxies would seem to be behind.
const tellWithin = 50 * time.Millisecond

// untold reports whether the peer has everything of a revision and does not
// know it.
func (s *sender) untold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session != nil && s.spoken != "" && s.peer.has(featureRevisions) && s.told != s.at && s.allSent()
}

// beat is the proof of life. Its form, an empty response without a nonce for a
// kind that the peer has received, would do no harm to a peer that does not
// know it. Its revision says that everything up to it is sent.
func (s *sender) beat() error {
	s.mu.Lock()
	var r *wire.Response
	if s.session != nil && s.spoken != "" && s.peer.has(featureRevisions) {
		r = &wire.Response{TypeURL: s.spoken, ControlPlane: s.name}
		if s.allSent() {
			r.SystemVersion = s.at.String()
			s.told = s.at
		}
	}
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	return s.out.SendMsg(r)
}

// progress adds what this stream knows to the status of its peer.
func (s *sender) progress(st *Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return
	}
	st.Sent = s.session.Reached()
	st.Items += s.session.Stats().Items
	st.Behind = s.session.Behind()
	for _, r := range s.session.Rejections() {
		st.Rejected = append(st.Rejected, Rejection{Kind: r.Type, Name: r.Name, Reason: r.Error})
	}
	for kind, bytes := range s.oversized {
		st.Rejected = append(st.Rejected, Rejection{Kind: kind, Name: delta.All, Reason: fmt.Sprintf("%d bytes are more than the peer takes in one message", bytes)})
	}
	st.Rejected = append(st.Rejected, s.view.unsaid(s.subscribed)...)
	slices.SortFunc(st.Rejected, func(a, b Rejection) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
}

// refusals of Kuma's receivers: resource already exists: type="T" name="n" mesh="m".
var quoted = regexp.MustCompile(`type="[^"]*" name="([^"]*)" mesh="([^"]*)"`)

// guilty finds the blamed items in the text of a refusal: lines of the form
// NAME: reason, or Kuma's.
func guilty(text string, suspects []delta.Item) map[string]string {
	if strings.HasPrefix(text, heldPrefix) {
		return map[string]string{"": text} // no item is to blame: the removals are
	}
	if named := delta.Named(text, suspects); len(named) > 0 {
		return named
	}
	found := map[string]string{}
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		for _, item := range suspects {
			if name, mesh, _ := splitWireName(item.ItemName()); name == m[1] && mesh == m[2] {
				found[item.ItemName()] = text
			}
		}
	}
	return found
}
