package delta

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// Next returns the next message that may be sent now, or nil, and the time at which to ask again although nothing
// happened (zero: none). It is to be called until it returns nil, after every Subscribe, Changed, Ack and when the time
// has come. It costs the names that were marked since the last call, which are merged into those that still wait, and
// the names in the message.
func (s *Session) Next(src Source, now time.Time) (*Message, time.Time) {
	for _, c := range s.channels {
		s.lookAll(c, src)
	}
	s.note() // what was marked may have been equal
	s.advance(now)
	for _, c := range s.channels {
		if m := s.send(c, src); m != nil {
			return m, s.wake()
		}
	}
	return nil, s.wake()
}

// lookAll compares every marked name with the source.
func (s *Session) lookAll(c *channel, src Source) {
	if names := c.collect(src); len(names) > 0 {
		c.unsent.merge(names, func(name string, pending bool) (Item, bool) { return s.look(c, src, name, pending) })
	}
	c.tidy()
}

// collect takes the marked names, sorted and distinct.
func (c *channel) collect(src Source) []string {
	all, dirty, lists := c.all, c.dirty, c.lists
	c.all, c.dirty, c.lists = false, nil, nil
	if !all && len(dirty) == 0 {
		switch len(lists) {
		case 0:
			return nil
		case 1: // shared, so it must not be sorted in place
			return lists[0]
		}
	}
	var names []string
	if all {
		names = slices.AppendSeq(make([]string, 0, len(c.slots)), maps.Keys(c.slots))
		if c.wild {
			names = slices.AppendSeq(names, src.Names(c.Type))
		}
	}
	names = slices.AppendSeq(names, maps.Keys(dirty))
	for _, list := range lists {
		names = append(names, list...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// tidy lets go of what a burst left behind: maps do not shrink by themselves.
func (c *channel) tidy() {
	if c.unsent.n == 0 {
		c.unsent, c.suspects = unsent{}, nil
	}
	if len(c.gone) == 0 {
		c.gone = nil
	}
	if len(c.rejected) == 0 {
		c.rejected = nil
	}
	if len(c.maybe) == 0 {
		c.maybe = nil
	}
}

// look decides what a name needs: to be sent (nil: to be told that it does not exist), to be removed, or nothing.
// Pending says that it was due already.
func (s *Session) look(c *channel, src Source, name string, pending bool) (it Item, send bool) {
	sl := c.slots[name]
	if !c.wild && !sl.named {
		return nil, false
	}
	s.stats.Looks++
	cur, ok := src.Get(c.Type, name)
	if !ok {
		delete(c.rejected, name)
		switch {
		case sl.owed: // the peer waits for an answer, so even what it held goes at once
			delete(c.gone, name)
			return nil, true
		case sl.item != nil || sl.unsure:
			if c.gone == nil {
				c.gone = map[string]uint64{}
			}
			if _, already := c.gone[name]; already {
				break
			}
			c.gone[name] = s.epoch
			if len(c.after) > 0 && (pending || sl.unsure || c.flight != nil) {
				// A sweep under way may rely on an update of this referrer that now never comes: the peer lets go of
				// what it names only with this removal, so it belongs to any sweep, before what it names.
				c.gone[name] = 0
			}
		}
		return nil, false
	}
	delete(c.gone, name)
	if r, set := c.rejected[name]; set {
		if r.Version == cur.ItemVersion() && !sl.owed { // whoever waits for an answer gets it, and may refuse it again
			return nil, false
		}
		delete(c.rejected, name)
	}
	if sl.item == nil || sl.owed || sl.unsure || !same(sl.item, cur) {
		return cur, true
	}
	if sl.item != cur { // a claim, or an equal one made anew: hold the shared one
		sl.item = cur
		c.slots[name] = sl
	}
	return nil, false
}

func same(a, b Item) bool { return a == b || a.ItemVersion() == b.ItemVersion() }

// blocked: something that an item of this type may name is not on its way yet.
func (c *channel) blocked() bool {
	for _, a := range c.after {
		if a.unsent.n > 0 || a.marked() > 0 {
			return true
		}
		for _, r := range a.refreshers {
			if r.flight != nil && len(r.flight.awaits) > 0 {
				return true
			}
		}
	}
	return false
}

// pinned: a refusal left the peer with an older item that may still name things of this type.
func (c *channel) pinned() bool {
	for _, by := range c.namedBy {
		for n := range by.rejected {
			if _, maybe := by.maybe[n]; maybe || by.slots[n].item != nil {
				return true
			}
		}
	}
	return false
}

// send makes the next message of one type.
func (s *Session) send(c *channel, src Source) *Message {
	if c.flight != nil {
		return nil
	}
	sweeping := s.sweep.phase == removing && s.sweep.of == c
	if c.unsent.n == 0 && !c.reply && !sweeping && !(s.order.Together && len(c.gone) > 0) {
		return nil
	}
	m := &Message{Type: c.Type, First: !c.complete}
	f := &flight{}
	room := s.order.MaxBytes
	if room <= 0 {
		room = math.MaxInt
	}
	probing, blocked := false, c.blocked()
	if !blocked {
		if probing = s.probe(c, m, f); !probing {
			room = s.fresh(c, m, f, room)
		}
	}
	if (s.order.Together && c.unsent.n == 0 && !probing) || (sweeping && !probing) {
		s.remove(c, m, f, room)
	}
	if len(m.Items) == 0 && len(m.Removed) == 0 && (!c.reply || blocked) {
		return nil
	}
	if !blocked {
		c.reply = false
	}
	if c.refreshes != nil {
		s.refresh(c, f, src, m.Items)
	}
	c.tidy()
	if s.said(c) {
		f.epoch, m.Last, c.complete = s.epoch-1, true, true
	} else if m.First {
		c.reply = c.wild && s.order.AnswerEmpty // the last part must come even if what it would bring vanishes
	}
	s.nonce++
	m.Nonce = strconv.FormatUint(s.nonce, 10)
	f.nonce, f.items = m.Nonce, m.Items
	c.flight = f
	s.stats.Messages++
	s.stats.Items += uint64(len(m.Items))
	s.stats.Removed += uint64(len(m.Removed))
	if sweeping && len(f.removed) > 0 {
		s.sweep.phase, s.sweep.nonce = answering, f.nonce
	}
	return m
}

// fresh takes what is due in order until the message is full, and returns what room is left.
func (s *Session) fresh(c *channel, m *Message, f *flight, room int) int {
	n := c.unsent.fit(room, true)
	if n == 0 {
		return room
	}
	m.Items, f.prev = make([]Item, 0, n), make([]Item, 0, n)
	for range n {
		d := c.unsent.front()
		room = max(0, room-d.size())
		s.take(c, m, f, d)
	}
	if c.unsent.n > 0 {
		return 0
	}
	return room
}

// take moves one name from unsent into the message.
func (s *Session) take(c *channel, m *Message, f *flight, d *due) {
	name, it := d.name, d.item
	c.unsent.take(d)
	sl := c.slots[name]
	sl.owed, sl.anew = false, false
	if it == nil {
		m.Removed = append(m.Removed, name)
		switch {
		case sl.item != nil || sl.unsure:
			f.removed, f.held = append(f.removed, name), append(f.held, sl.item)
			c.put(name, slot{named: sl.named})
		case sl.named:
			c.put(name, sl)
		default:
			delete(c.slots, name)
		}
		return
	}
	m.Items, f.prev = append(m.Items, it), append(f.prev, sl.item)
	sl.item, sl.unsure = it, false
	c.put(name, sl)
	s.stats.Bytes += uint64(it.Size())
}

// refresh sees to it that the items of the refreshed type follow those of a message: by force if the peer has
// subscribed to them, else by holding back what may name them until the peer, which has just been told of them, does so.
func (s *Session) refresh(c *channel, f *flight, src Source, items []Item) {
	r := c.refreshes
	var again []string
	for _, it := range items {
		name := it.ItemName()
		if c.RefreshName != nil {
			name = c.RefreshName(it)
		}
		if name == "" {
			continue
		}
		if sl, ok := r.slots[name]; ok {
			if again == nil {
				again = make([]string, 0, len(items))
			}
			again = append(again, name)
			sl.owed = true
			r.slots[name] = sl
		} else if _, exists := src.Get(r.Type, name); exists && !r.wild {
			if f.awaits == nil {
				f.awaits = map[string]struct{}{}
			}
			f.awaits[name] = struct{}{}
		}
	}
	if len(again) > 0 {
		slices.Sort(again)
		r.lists = append(r.lists, slices.Compact(again))
	}
}

// remove adds the removals that are due.
func (s *Session) remove(c *channel, m *Message, f *flight, room int) {
	var names []string
	for n, epoch := range c.gone {
		if s.order.Together || epoch <= s.sweep.epoch {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if len(n) > room && len(m.Items)+len(m.Removed) > 0 {
			break
		}
		room = max(0, room-len(n))
		delete(c.gone, n)
		sl := c.slots[n]
		m.Removed = append(m.Removed, n)
		f.removed, f.held = append(f.removed, n), append(f.held, sl.item)
		c.put(n, slot{named: sl.named})
	}
}

// sweep is the one round of removals that is under way. Names that go meanwhile belong to the next round, so that a
// round always ends.
//
//	idle ─ something is gone ─▶ settling ─ epoch passed ─▶ draining ─ time passed ─▶ removing ─ sent ─▶ answering ─┐
//	  ▲                            ▲                                                                               │
//	  └────── nothing left ◀───────┴──────────────────────────── another type left ◀───────────────────────────────┘
type sweep struct {
	phase   phase
	epoch   uint64 // names that went until the end of this one
	barrier uint64 // settled when this epoch has passed
	due     time.Time
	of      *channel
	nonce   string
}

type phase uint8

const (
	idle phase = iota
	settling
	draining
	removing
	answering
)

// advance moves the sweep as far as answers and time allow.
func (s *Session) advance(now time.Time) {
	if s.order.Together {
		return
	}
	w := &s.sweep
	for {
		switch w.phase {
		case idle:
			if s.removable(math.MaxUint64) == nil {
				return
			}
			w.phase, w.epoch = settling, s.close()
			w.barrier = w.epoch
		case settling:
			if !s.passed(w.barrier) {
				return
			}
			w.phase, w.due = draining, now.Add(s.order.Drain)
		case draining:
			if now.Before(w.due) {
				return
			}
			w.phase = removing
		case removing:
			if w.of = s.removable(w.epoch); w.of != nil {
				return
			}
			*w = sweep{}
		case answering:
			if f := w.of.flight; f != nil && f.nonce == w.nonce {
				return
			}
			switch next := s.removable(w.epoch); next {
			case nil:
				*w = sweep{}
			case w.of: // the message was cut
				w.phase = removing
			default:
				w.phase, w.barrier = settling, s.close()
			}
		}
	}
}

// removable is the first type, in the order of removals, that has something gone since before the end of the epoch.
func (s *Session) removable(epoch uint64) *channel {
	for _, c := range s.removals {
		if len(c.gone) == 0 || c.pinned() {
			continue
		}
		for _, e := range c.gone {
			if e <= epoch {
				return c
			}
		}
	}
	return nil
}

func (s *Session) wake() time.Time {
	if s.sweep.phase == draining {
		return s.sweep.due
	}
	return time.Time{}
}
