package kds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/atoll-mesh/atoll/api"
)

// ErrAnswer: a zone could not answer what it was asked; it says why.
var ErrAnswer = errors.New("the zone could not answer")

const (
	maxOpen = 32  // questions to one zone about one thing that wait for their answers
	maxLate = 256 // answers to one zone's questions that nobody waits for any more
)

// asking is one stream on which a zone is asked.
type asking struct {
	out   chan proto.Message
	ended chan struct{} // closed with the stream

	mu   sync.Mutex
	open map[string]chan reply // by the ID of the request
	late []string              // IDs whose asker is gone: their answers are dropped
}

type reply struct {
	body  []byte
	fault string
}

// expect enters a question that is about to be sent.
func (a *asking) expect(id string) (<-chan reply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= maxOpen {
		return nil, fmt.Errorf("%w: %d questions to it are open", ErrAnswer, len(a.open))
	}
	to := make(chan reply, 1)
	a.open[id] = to
	return to, nil
}

// giveUp ends the wait for an answer, which may still come.
func (a *asking) giveUp(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.open[id]; ok {
		delete(a.open, id)
		a.late = append(a.late[max(0, len(a.late)+1-maxLate):], id)
	}
}

// take hands an answer to who waits for it; false if nobody ever asked.
func (a *asking) take(id string, r reply) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to, ok := a.open[id]; ok {
		delete(a.open, id)
		to <- r
		return true
	}
	if i := slices.Index(a.late, id); i >= 0 {
		a.late = slices.Delete(a.late, i, i+1)
		return true
	}
	return false
}

// StreamXDSConfigs, StreamStats and StreamClusters ask a zone.
func (s *Server) StreamXDSConfigs(stream grpc.ServerStream) error { return s.ask(stream, calls[0]) }

// StreamStats is as [Server.StreamXDSConfigs].
func (s *Server) StreamStats(stream grpc.ServerStream) error { return s.ask(stream, calls[1]) }

// StreamClusters is as [Server.StreamXDSConfigs].
func (s *Server) StreamClusters(stream grpc.ServerStream) error { return s.ask(stream, calls[2]) }

// ask holds a stream of questions until it ends. A newer one of the same zone
// takes its place for what is asked from then on.
func (s *Server) ask(stream grpc.ServerStream, c call) error {
	return s.serve(stream, func(ctx context.Context, who caller, z *zone) error {
		a := &asking{out: make(chan proto.Message), ended: make(chan struct{}), open: map[string]chan reply{}}
		s.mu.Lock()
		z.asking[c.about] = a
		s.mu.Unlock()
		z.book.stream(c.stream)
		z.book.flush(s.statusOf(who.zone, z))
		defer func() {
			s.mu.Lock()
			if z.asking[c.about] == a {
				delete(z.asking, c.about)
			}
			s.mu.Unlock()
			close(a.ended)
		}()
		failed := make(chan error, 1)
		go func() { failed <- a.receive(stream, c) }() // ends with the stream
		for {
			select {
			case m := <-a.out:
				if err := stream.SendMsg(m); err != nil {
					return err
				}
			case err := <-failed:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

func (a *asking) receive(stream grpc.ServerStream, c call) error {
	for {
		m := c.answered()
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		if !a.take(m.GetRequestId(), reply{c.bodyOf(m), m.GetError()}) {
			return fmt.Errorf("%w: could not mark the response as received: no request %.80q is open", ErrProtocol, m.GetRequestId())
		}
	}
}

// Ask asks the zone of a Dataplane about its Envoy, and waits for the answer as
// long as the context lasts. Errors are [api.ErrNotConnected], [ErrAnswer] and that
// of the context.
func (s *Server) Ask(ctx context.Context, proxy *api.Object[api.Dataplane], q api.Question) ([]byte, error) {
	name, err := s.nameInZone(proxy)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var a *asking
	if z := s.zones[proxy.Zone]; z != nil {
		a = z.asking[q.About]
	}
	s.mu.Unlock()
	away := fmt.Errorf("zone %s: stream to execute %s operations is not yet connected: %w", proxy.Zone, q.About, api.ErrNotConnected)
	if a == nil {
		return nil, away
	}
	to := address{id: uuid.NewString(), mesh: proxy.Mesh, name: name}
	answer, err := a.expect(to.id)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", proxy.Zone, err)
	}
	defer a.giveUp(to.id)
	i := slices.IndexFunc(calls[:], func(c call) bool { return c.about == q.About })
	select {
	case a.out <- calls[i].request(to, q):
	case <-a.ended:
		return nil, away
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-answer:
		if r.fault != "" {
			return nil, fmt.Errorf("zone %s: %w: %s", proxy.Zone, ErrAnswer, r.fault)
		}
		return r.body, nil
	case <-a.ended:
		return nil, fmt.Errorf("zone %s: the connection ended before it answered: %w", proxy.Zone, api.ErrNotConnected)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// nameInZone is the name under which the zone's own API knows a Dataplane: on
// Kubernetes with its namespace.
func (s *Server) nameInZone(proxy *api.Object[api.Dataplane]) (string, error) {
	var last api.ZoneSubscription
	if insight, ok := api.ZoneInsights.Named(s.o.DB.Snapshot(), "", proxy.Zone); ok && len(insight.Spec.Subscriptions) > 0 {
		last = insight.Spec.Subscriptions[len(insight.Spec.Subscriptions)-1]
	}
	if !last.Online() {
		return "", fmt.Errorf("zone %s is offline: %w", proxy.Zone, api.ErrNotConnected)
	}
	var config struct {
		Store struct{ Type string }
	}
	if err := json.Unmarshal([]byte(last.Config), &config); err == nil && config.Store.Type == "kubernetes" {
		return proxy.Name + "." + proxy.Label(api.LabelNamespace), nil
	}
	return proxy.Name, nil // also where the zone does not say what it runs on
}
