// Package delta is the server half of incremental discovery as a state machine.
//
// It owns the conversation with one peer: what the peer subscribed to, what it was sent, what it acknowledged or
// refused, and what may be sent next. Package xds speaks through it with Envoy, package kds with other control planes;
// the difference between them is an [Order], which is data.
//
// It never starts a goroutine, reads a clock, encodes or transports anything, and imports nothing of this project. A
// [Session] belongs to one stream; its owner must serialise all calls.
//
//	      Subscribe, Changed          Next                    Ack
//	peer ───────────────────▶ dirty ───────▶ unsent ─▶ in flight ─▶ held
//	                                   └───▶ gone   ─▶ in flight ─▶ forgotten
//	                                             a refusal: in flight ─▶ suspects ─▶ unsent again, or set aside
//
// # Why
//
// State, not events: a session that is behind has a set of names, never a queue of versions, so that a slow peer costs
// a bounded amount of memory and gets the newest state at once when it wakes up. go-control-plane's server was not
// taken because it counts "sent" as "has", hides refusals and scans all resources per watch.
//
// "Sent" and "held" are different things only while a message is in flight, and there is at most one per type.
// Therefore the session keeps one map of names per type, and the undo record lives in the flight: a converged session
// holds its plan and nothing else.
//
// What is to be sent is a list sorted by name, not a map: a change that concerns many sessions comes to them as one
// sorted list that they share ([Session.ChangedMany]), and a session that has nothing else to say walks along it once,
// into a message. Only what is marked one by one pays for a set of its own.
//
// Removals are a phase of their own ([Order.Removals]) because nothing may refer to what was just taken away. They wait
// by epochs rather than for silence, since with steady changes there is never silence.
package delta

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// ErrType refuses a subscription to a type that the session does not serve.
var ErrType = errors.New("type is not served")

// All is the name that subscribes to everything of a type.
const All = "*"

// Item is one named, versioned thing that can be sent. Items are immutable and shared between sessions; their dynamic
// type must be a pointer. Equal versions mean equal content. Versions are never empty.
type Item interface {
	ItemName() string
	ItemVersion() string
	Size() int // bytes on the wire
}

// Source is the newest state that this peer may see. Every change of what it returns must be told to the session with
// [Session.Changed] or [Session.ChangedAll]; the answers need only be consistent during one call of [Session.Next].
type Source interface {
	Get(typ, name string) (Item, bool)
	Names(typ string) iter.Seq[string]
}

// Order is the table that makes a dialect of discovery. The zero value plus Kinds is a usable one: types are
// independent, removals go last, nothing is cut.
type Order struct {
	Kinds []Kind // in the order in which they are sent
	// Removals lists types in the order in which their removals go; types that are not listed follow in the order of
	// Kinds. Between two types in this list the peer has acknowledged and Drain has passed.
	Removals []string
	// Together sends removals in the same message as additions instead, without waiting (control planes).
	Together bool
	// Drain is the time between the acknowledgement of everything that no longer refers to a thing and its removal.
	Drain time.Duration
	// MaxBytes cuts messages at this sum of item sizes (a single larger item still travels); 0 never cuts.
	MaxBytes int
	// AnswerEmpty answers a first subscription to all even if there is nothing to say.
	AnswerEmpty bool
	// Extra is how many types beyond Kinds a peer may subscribe to (control planes of other versions know other kinds).
	Extra int
	// Guilty finds in the text of a refusal which of the suspects it blames: name → reason. Nil means [Named].
	Guilty func(text string, suspects []Item) map[string]string
}

// Kind is one row of the table.
type Kind struct {
	Type string
	// EmptyMeansAll: a first request without names subscribes to everything (Envoy's CDS and LDS).
	EmptyMeansAll bool
	// After names types that items of this type may refer to. While one of them has something unsent (not:
	// unacknowledged) this type waits; while this type has a refused item, which may leave the peer with an older one,
	// nothing of those types is removed.
	After []string
	// Refreshes names a later type whose item of the same name must follow whenever an item of this type is sent, even
	// if equal: a changed EDS cluster stays warming until its endpoints are sent again (measured with Envoy 1.40).
	Refreshes string
	// RefreshName says which item is refreshed; "" is none. Nil means the same name.
	RefreshName func(Item) string
}

// Message is one response. Its slices must not be changed: the session keeps them until the answer.
type Message struct {
	Type    string
	Nonce   string // decimal, counts the messages of the stream from 1
	Items   []Item
	Removed []string
	First   bool // part of the first state of this type on this stream
	Last    bool // nothing of this type remains to be sent now; First and Last: the first state is complete
}

// Rejection is a version that the peer refused and that is set aside until another takes its place.
type Rejection struct {
	Type, Name string
	Version    string // empty: the refused thing was the removal of the name
	Error      string
}

// Stats are exact counters since the session began.
type Stats struct {
	Messages, Items, Removed, Bytes uint64 // sent; Bytes are item sizes
	Acks, Nacks, Stale              uint64 // answers; Stale ones carried an unknown nonce and were ignored
	Looks                           uint64 // names compared with the source: the work done
}

// Session is the conversation with one peer on one stream. Not safe for concurrent use.
type Session struct {
	order    *Order
	channels []*channel // order of sending
	removals []*channel // order of removing
	extra    int
	nonce    uint64
	epoch    uint64 // the open epoch; see close
	sweep    sweep

	target, reached    uint64
	markRev, markEpoch uint64
	stats              Stats
}

// channel is the state of one type.
type channel struct {
	Kind
	after      []*channel
	namedBy    []*channel // those whose after has this one
	refreshes  *channel
	refreshers []*channel

	opened   bool // the peer has sent a request
	wild     bool
	all      bool // look at everything
	reply    bool // an answer is owed even if empty
	complete bool // the first state is sent

	slots  map[string]slot     // the plan: what the peer has, or is being sent, and what it asked for by name
	dirty  map[string]struct{} // names to compare with the source
	lists  [][]string          // more of them, each sorted; shared with other sessions
	unsent unsent              // names to send
	gone   map[string]uint64   // held names to remove, with the epoch in which they went

	suspects [][]Item // groups to send again, last first
	rejected map[string]Rejection
	maybe    map[string]struct{} // names that the peer may have a version of that came with a refused message
	flight   *flight
	done     uint64 // everything up to this epoch is acknowledged
}

// slot is what the session knows about one name. For a wildcard it exists while something was sent.
type slot struct {
	item   Item // newest one sent or claimed; nil: none
	named  bool // subscribed by name
	owed   bool // send it (or say that it does not exist) even if equal
	unsure bool // a refused message left open which version the peer uses
	anew   bool // subscribed to while a message was in flight; what the peer held before, it dropped
}

// flight is the message that awaits its answer, with what is needed to undo it.
type flight struct {
	nonce   string
	items   []Item
	prev    []Item // what the peer held before, by position in items
	removed []string
	held    []Item              // by position in removed
	epoch   uint64              // not 0: the type had nothing else to say when this epoch was the newest closed one
	anew    bool                // there are slots that are anew
	awaits  map[string]struct{} // names of the refreshed type that the peer will subscribe to because of this message
}

// claim stands for an item that the peer said it holds, until it is compared.
type claim struct{ name, version string }

func (c *claim) ItemName() string    { return c.name }
func (c *claim) ItemVersion() string { return c.version }
func (c *claim) Size() int           { return 0 }

// New returns the session of a new stream. It panics if the table names types that it does not have. The table is not
// copied and must not be changed.
func New(order *Order) *Session {
	s := &Session{order: order, epoch: 1}
	for _, k := range order.Kinds {
		s.channels = append(s.channels, &channel{Kind: k})
	}
	for _, c := range s.channels {
		for _, t := range c.After {
			a := s.must(t)
			c.after, a.namedBy = append(c.after, a), append(a.namedBy, c)
		}
		if c.Refreshes != "" {
			c.refreshes = s.must(c.Refreshes)
			c.refreshes.refreshers = append(c.refreshes.refreshers, c)
		}
	}
	for _, t := range order.Removals {
		s.removals = append(s.removals, s.must(t))
	}
	for _, c := range s.channels {
		if !slices.Contains(s.removals, c) {
			s.removals = append(s.removals, c)
		}
	}
	return s
}

func (s *Session) must(typ string) *channel {
	if c := s.channel(typ); c != nil {
		return c
	}
	panic(fmt.Sprintf("delta: the order names type %q and has no such kind", typ))
}

func (s *Session) channel(typ string) *channel {
	for _, c := range s.channels {
		if c.Type == typ {
			return c
		}
	}
	return nil
}

// Subscribe takes a request of the peer: names to add and to drop ([All] is everything) and the versions that it holds
// from an earlier stream. It is called for every request, also one that only answers, because the first one of a type
// may mean everything without saying so.
//
// What the peer holds in the version of the source is not sent. A name that is added without a held version is sent
// even if it was sent before: the peer may have dropped it meanwhile (DeltaDiscoveryRequest.resource_names_subscribe).
func (s *Session) Subscribe(typ string, add, drop []string, have map[string]string) error {
	c := s.channel(typ)
	if c == nil {
		if s.extra >= s.order.Extra {
			return fmt.Errorf("%q: %w", typ, ErrType)
		}
		c = &channel{Kind: Kind{Type: typ}}
		s.extra++
		s.channels, s.removals = append(s.channels, c), append(s.removals, c)
	}
	if !c.opened && c.EmptyMeansAll && len(add) == 0 {
		s.subscribeAll(c)
	}
	c.opened = true
	for _, n := range add {
		if n == All {
			s.subscribeAll(c)
		} else {
			v, held := have[n]
			c.subscribe(n, v, held)
		}
	}
	if c.wild {
		for n, v := range have {
			if _, known := c.slots[n]; !known {
				c.put(n, slot{item: &claim{n, v}})
				c.mark(n)
			}
		}
	}
	for _, n := range drop {
		if n == All {
			c.unsubscribeAll()
		} else {
			c.unsubscribe(n)
		}
	}
	return nil
}

func (s *Session) subscribeAll(c *channel) {
	if !c.wild { // control planes repeat it with every refusal
		c.wild, c.all, c.reply = true, true, s.order.AnswerEmpty
	}
}

func (c *channel) subscribe(name, version string, held bool) {
	sl, known := c.slots[name]
	if !known && c.flight != nil {
		sl.anew, c.flight.anew = true, true
	}
	awaited := false
	for _, r := range c.refreshers {
		if r.flight != nil {
			_, yes := r.flight.awaits[name]
			awaited = awaited || yes
			delete(r.flight.awaits, name) // from here on it is unsent, which closes the same gate
		}
	}
	if held && sl.item == nil && !sl.named {
		sl.item, sl.owed = &claim{name, version}, awaited
	} else {
		sl.owed = true
		delete(c.rejected, name)
	}
	sl.named = true
	c.put(name, sl)
	c.mark(name)
}

func (c *channel) unsubscribe(name string) {
	sl, ok := c.slots[name]
	switch {
	case !ok || !sl.named:
	case c.wild: // the peer cannot know whether the name is still covered: it must be told
		sl.named, sl.owed = false, true
		c.put(name, sl)
		c.mark(name)
	default:
		c.forget(name)
	}
}

func (c *channel) unsubscribeAll() {
	c.wild, c.reply = false, false
	for n, sl := range c.slots {
		if !sl.named {
			c.forget(n)
		}
	}
	for _, d := range c.unsent.due { // never sent, so without a slot
		if !c.slots[d.name].named {
			c.forget(d.name)
		}
	}
	c.fold()
	for n := range c.dirty {
		if !c.slots[n].named {
			c.forget(n)
		}
	}
	for n := range c.rejected {
		if !c.slots[n].named {
			c.forget(n)
		}
	}
}

func (c *channel) forget(name string) {
	delete(c.slots, name)
	delete(c.dirty, name)
	c.unsent.drop(name)
	delete(c.gone, name)
	delete(c.rejected, name)
	delete(c.maybe, name)
}

func (c *channel) put(name string, sl slot) {
	if c.slots == nil {
		c.slots = map[string]slot{}
	}
	c.slots[name] = sl
}

func (c *channel) mark(name string) {
	if c.dirty == nil {
		c.dirty = map[string]struct{}{}
	}
	c.dirty[name] = struct{}{}
}

// Changed notes that the item may be different now, be there, or be gone. It costs one map write, or nothing if the
// peer has not subscribed to it.
func (s *Session) Changed(typ, name string) {
	c := s.channel(typ)
	if c == nil || !c.opened {
		return
	}
	if !c.wild {
		if _, ok := c.slots[name]; !ok {
			return
		}
	}
	c.mark(name)
}

// maxLists is how many shared lists may wait for [Session.Next] before they become one set: a session that is behind
// holds names, not a list per round.
const maxLists = 8

// ChangedMany is [Session.Changed] for names that many sessions are told of at once. They must be sorted and distinct,
// and must not be changed afterwards: the session keeps the list. It costs one append; which of the names the peer has
// subscribed to shows in the next [Session.Next], and until then all of them count as behind.
func (s *Session) ChangedMany(typ string, names []string) {
	c := s.channel(typ)
	if c == nil || !c.opened || len(names) == 0 {
		return
	}
	if c.lists = append(c.lists, names); len(c.lists) > maxLists {
		c.fold()
	}
}

// fold makes the lists part of the set.
func (c *channel) fold() {
	for _, names := range c.lists {
		for _, n := range names {
			c.mark(n)
		}
	}
	c.lists = nil
}

// marked counts the names to compare with the source; a name in several lists counts as often.
func (c *channel) marked() int {
	n := len(c.dirty)
	for _, names := range c.lists {
		n += len(names)
	}
	return n
}

// ChangedAll notes that anything of the type may be different now. The next [Session.Next] compares all that the peer
// subscribed to.
func (s *Session) ChangedAll(typ string) {
	if c := s.channel(typ); c != nil && c.opened {
		c.all = true
	}
}
