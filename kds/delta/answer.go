package delta

import "strings"

// Ack takes the peer's answer to a message: rejection is empty for an acknowledgement, else the text of the refusal
// (the caller gives one to a refusal without text). It returns false for a nonce that is not in flight; such an answer
// changes nothing.
//
// A refusal concerns a whole message. Items that its text names are set aside; the rest is sent again without them. If
// it names none, the items are sent again in halves until the guilty ones stand alone, at most two messages per item.
func (s *Session) Ack(typ, nonce, rejection string) bool {
	c := s.channel(typ)
	if c == nil || c.flight == nil || c.flight.nonce != nonce {
		s.stats.Stale++
		return false
	}
	f := c.flight
	c.flight = nil
	if rejection == "" {
		s.stats.Acks++
		c.accept(f)
	} else {
		s.stats.Nacks++
		c.refuse(f, rejection, s.order.Guilty)
	}
	s.note()
	return true
}

func (c *channel) accept(f *flight) {
	c.done = max(c.done, f.epoch)
	if f.anew || len(c.maybe) > 0 {
		for _, it := range f.items {
			n := it.ItemName()
			delete(c.maybe, n)
			if sl := c.slots[n]; sl.anew && sl.item == nil { // asked for anew before it came: the peer has it
				sl.item = it
				c.slots[n] = sl
			}
		}
	}
	for _, n := range f.removed {
		delete(c.maybe, n)
		if sl, ok := c.slots[n]; ok && sl == (slot{}) {
			delete(c.slots, n)
		}
	}
	if len(f.removed) > 0 {
		// What was refused may be welcome now: two listeners cannot have one address, whatever their names.
		for n := range c.rejected {
			delete(c.rejected, n)
			c.mark(n)
		}
	}
}

func (c *channel) refuse(f *flight, text string, guilty func(string, []Item) map[string]string) {
	for i, it := range f.items {
		n := it.ItemName()
		sl, ok := c.slots[n]
		if !ok {
			continue // the peer dropped it
		}
		if sl.item == it { // else the peer asked for it anew
			sl.item, sl.unsure = f.prev[i], true
			c.slots[n] = sl
		}
		c.mark(n)
	}
	for i, n := range f.removed {
		sl, ok := c.slots[n]
		if !ok || sl.item != nil || sl.anew {
			continue
		}
		sl.item, sl.unsure = f.held[i], true
		c.slots[n] = sl
		if sl.owed || c.unsent.find(n) != nil || len(f.items) > 0 {
			c.mark(n) // it is asked for or back, or the items are to blame as far as we know
		} else {
			c.setAside(n, "", text)
		}
	}
	switch named := blame(text, f.items, guilty); {
	case len(named) > 0:
		var rest []Item
		for _, it := range f.items {
			if reason, yes := named[it.ItemName()]; yes {
				c.setAside(it.ItemName(), it.ItemVersion(), reason)
			} else {
				rest = append(rest, it)
			}
		}
		c.suspect(rest)
	case len(f.items) == 1 && len(f.removed) == 0:
		c.setAside(f.items[0].ItemName(), f.items[0].ItemVersion(), text)
	case len(f.items) == 1:
		c.suspect(f.items)
	default:
		first, second := split(text, f.items)
		c.suspect(second)
		c.suspect(first)
	}
}

func (c *channel) setAside(name, version, reason string) {
	if _, ok := c.slots[name]; !ok {
		return // unsubscribed while in flight
	}
	if c.rejected == nil {
		c.rejected = map[string]Rejection{}
	}
	c.rejected[name] = Rejection{Type: c.Type, Name: name, Version: version, Error: reason}
}

// suspect has a group of a refused message sent again. The peer may have applied it nevertheless, as Envoy does with the
// innocents.
func (c *channel) suspect(group []Item) {
	if len(group) == 0 {
		return
	}
	c.suspects = append(c.suspects, group)
	for _, it := range group {
		if _, ok := c.slots[it.ItemName()]; ok {
			if c.maybe == nil {
				c.maybe = map[string]struct{}{}
			}
			c.maybe[it.ItemName()] = struct{}{}
		}
	}
}

// probe puts the next group of suspects into the message. Names that changed since are no suspects any more.
func (s *Session) probe(c *channel, m *Message, f *flight) bool {
	for len(c.suspects) > 0 && len(m.Items) == 0 {
		last := len(c.suspects) - 1
		group := c.suspects[last]
		c.suspects = c.suspects[:last]
		for _, it := range group {
			if d := c.unsent.find(it.ItemName()); d != nil && d.item != nil && same(d.item, it) {
				s.take(c, m, f, d)
			}
		}
	}
	return len(m.Items) > 0
}

func blame(text string, items []Item, guilty func(string, []Item) map[string]string) map[string]string {
	if guilty == nil {
		guilty = Named
	}
	return guilty(text, items)
}

// Named finds items that Envoy's text of a refusal blames, with the reason of each:
//
//	Error adding/updating listener(s) NAME: reason\nNAME: reason\n
//	Error adding/updating cluster(s) NAME: reason, NAME: reason
//
// A name counts only in these positions, so that a name which merely occurs in another's reason stays innocent.
func Named(text string, items []Item) map[string]string {
	starts := map[string]int{}
	for _, it := range items {
		n := it.ItemName()
		for at := index(text, n, 0); at >= 0; at = index(text, n, at+1) {
			if b := text[:at]; b == "" || strings.HasSuffix(b, "(s) ") || strings.HasSuffix(b, "\n") || strings.HasSuffix(b, ", ") {
				starts[n] = at
				break
			}
		}
	}
	found := map[string]string{}
	for n, at := range starts {
		end := len(text)
		for _, other := range starts {
			if other > at {
				end = min(end, other)
			}
		}
		reason, _, _ := strings.Cut(text[at+len(n)+2:end], "\n")
		found[n] = strings.TrimSuffix(reason, ", ")
	}
	return found
}

// index of the name as the beginning of a reason, from a position on; -1 if there is none.
func index(text, name string, from int) int {
	if i := strings.Index(text[from:], name+": "); i >= 0 {
		return from + i
	}
	return -1
}

// split parts suspects for the next two tries: those that the text quotes from the others, else halves.
func split(text string, items []Item) (first, second []Item) {
	for _, it := range items {
		if n := it.ItemName(); strings.Contains(text, "'"+n+"'") || strings.Contains(text, `"`+n+`"`) {
			first = append(first, it)
		} else {
			second = append(second, it)
		}
	}
	if len(first) > 0 && len(second) > 0 {
		return first, second
	}
	half := len(items) / 2
	return items[:half], items[half:]
}
