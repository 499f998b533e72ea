package delta_test

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/kds/delta"
)

const (
	cds = "cds"
	eds = "eds"
	sds = "sds"
	lds = "lds"
	rds = "rds"
)

const drain = 5 * time.Second

// envoyOrder is the table that package xds uses, with short type names.
func envoyOrder() *delta.Order {
	return &delta.Order{
		Kinds: []delta.Kind{
			{Type: cds, EmptyMeansAll: true, Refreshes: eds},
			{Type: eds},
			{Type: sds},
			{Type: lds, EmptyMeansAll: true, After: []string{cds, eds}},
			{Type: rds, After: []string{cds, eds}},
		},
		Removals:    []string{lds, rds, cds, eds, sds},
		Drain:       drain,
		MaxBytes:    1 << 20,
		AnswerEmpty: true,
	}
}

type item struct {
	name, version string
	size          int
	refs          []string // clusters that it names
	bad           bool     // the peer refuses it
}

func (i *item) ItemName() string    { return i.name }
func (i *item) ItemVersion() string { return i.version }
func (i *item) Size() int           { return i.size }

// world is a source.
type world map[string]map[string]*item

func (w world) Get(typ, name string) (delta.Item, bool) {
	i, ok := w[typ][name]
	if !ok {
		return nil, false
	}
	return i, true
}

func (w world) Names(typ string) iter.Seq[string] { return maps.Keys(w[typ]) }

func (w world) put(typ string, i *item) *item {
	if w[typ] == nil {
		w[typ] = map[string]*item{}
	}
	if i.size == 0 {
		i.size = 100
	}
	w[typ][i.name] = i
	return i
}

// peer applies messages as Envoy does: every changed cluster subscribes to its endpoints, and the answer to a message
// with clusters waits until endpoints have come for each of them.
type peer struct {
	has     map[string]map[string]*item
	subs    map[string]map[string]bool // by name
	pending map[string]*delta.Message
	warming map[string]bool      // clusters of the pending message that lack endpoints
	names   bool                 // refusals name the guilty
	partial bool                 // innocents of a refused message are applied
	quit    map[string]time.Time // cluster → since when nothing names it
}

func newPeer() *peer {
	p := &peer{has: map[string]map[string]*item{}, subs: map[string]map[string]bool{}, pending: map[string]*delta.Message{},
		warming: map[string]bool{}, quit: map[string]time.Time{}}
	for _, t := range []string{cds, eds, sds, lds, rds} {
		p.has[t], p.subs[t] = map[string]*item{}, map[string]bool{}
	}
	return p
}

// connect sends the first requests of a stream.
func (p *peer) connect(s *delta.Session) {
	p.pending, p.warming = map[string]*delta.Message{}, map[string]bool{}
	for _, t := range []string{cds, eds, lds, rds} {
		have := map[string]string{}
		for n, i := range p.has[t] {
			have[n] = i.version
		}
		if err := s.Subscribe(t, slices.Sorted(maps.Keys(p.subs[t])), nil, have); err != nil {
			panic(err)
		}
	}
}

func (p *peer) subscribe(s *delta.Session, typ, name string) {
	p.subs[typ][name] = true
	if err := s.Subscribe(typ, []string{name}, nil, nil); err != nil {
		panic(err)
	}
}

func (p *peer) unsubscribe(s *delta.Session, typ, name string) {
	delete(p.subs[typ], name)
	delete(p.has[typ], name)
	if err := s.Subscribe(typ, nil, []string{name}, nil); err != nil {
		panic(err)
	}
}

func (p *peer) receive(s *delta.Session, m *delta.Message) {
	if p.pending[m.Type] != nil {
		panic("two messages of a type in flight")
	}
	p.pending[m.Type] = m
	if m.Type == cds {
		for _, x := range m.Items {
			if i := x.(*item); !i.bad {
				p.warming[i.name] = true
				if !p.subs[eds][i.name] {
					p.subscribe(s, eds, i.name)
				}
			}
		}
	}
	if m.Type == eds {
		for _, x := range m.Items {
			delete(p.warming, x.ItemName())
		}
		for _, n := range m.Removed {
			delete(p.warming, n)
		}
	}
}

// answer applies and answers the pending message of a type, if Envoy would by now.
func (p *peer) answer(s *delta.Session, typ string, now time.Time) bool {
	m := p.pending[typ]
	if m == nil || typ == cds && len(p.warming) > 0 {
		return false
	}
	delete(p.pending, typ)
	var text strings.Builder
	for _, x := range m.Items {
		if x.(*item).bad {
			fmt.Fprintf(&text, "%s: no good\n", x.ItemName())
		}
	}
	for _, x := range m.Items {
		i := x.(*item)
		if covered := typ == cds || typ == lds || p.subs[typ][i.name]; !i.bad && covered && (text.Len() == 0 || p.partial) {
			p.apply(typ, i, now)
		}
	}
	if text.Len() == 0 || p.partial {
		for _, n := range m.Removed {
			if p.has[typ][n] != nil {
				p.drop(s, typ, n, now)
			}
		}
	}
	reason := text.String()
	if reason != "" {
		if reason = "Error adding/updating thing(s) " + reason; !p.names {
			reason = "something is wrong"
		}
	}
	if !s.Ack(typ, m.Nonce, reason) {
		panic("answer not known")
	}
	return true
}

func (p *peer) apply(typ string, i *item, now time.Time) {
	before := p.named()
	p.has[typ][i.name] = i
	p.left(before, now)
}

func (p *peer) drop(s *delta.Session, typ, name string, now time.Time) {
	before := p.named()
	delete(p.has[typ], name)
	p.left(before, now)
	if typ == cds && p.subs[eds][name] {
		p.unsubscribe(s, eds, name)
	}
}

// named are the clusters that what the peer holds refers to.
func (p *peer) named() map[string]bool {
	out := map[string]bool{}
	for _, t := range []string{lds, rds} {
		for _, i := range p.has[t] {
			for _, c := range i.refs {
				out[c] = true
			}
		}
	}
	return out
}

func (p *peer) left(before map[string]bool, now time.Time) {
	after := p.named()
	for c := range before {
		if !after[c] {
			p.quit[c] = now
		}
	}
}
