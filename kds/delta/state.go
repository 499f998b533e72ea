package delta

import (
	"maps"
	"slices"
	"strings"
)

// Behind counts what the peer should have and has not acknowledged: names to look at, to send and in flight. It is 0
// exactly if the session is converged. Removals that wait for their drain time do not count (see [Session.Draining]):
// the peer lacks nothing because of them. Refused items do not count either (see [Session.Rejections]).
func (s *Session) Behind() int {
	n := 0
	for _, c := range s.channels {
		n += c.marked() + c.unsent.n
		if s.order.Together {
			n += len(c.gone)
		}
		if c.all || c.reply {
			n++
		}
		if c.flight != nil {
			n += max(1, len(c.flight.items)+len(c.flight.removed))
		}
	}
	return n
}

// Converged says that everything the peer should have is sent and answered.
func (s *Session) Converged() bool {
	for _, c := range s.channels {
		if !s.idle(c) {
			return false
		}
	}
	return true
}

// Draining counts removals that wait until nothing refers to the thing any more.
func (s *Session) Draining() int {
	n := 0
	if !s.order.Together {
		for _, c := range s.channels {
			n += len(c.gone)
		}
	}
	return n
}

// Target says that the state which the session was told of so far is that of this revision. It is called after
// [Session.Changed]; an older revision than before is ignored.
func (s *Session) Target(revision uint64) {
	s.target = max(s.target, revision)
	s.note()
}

// Reached is the newest target whose every item the peer has answered. With steady changes it follows the target at the
// distance of one exchange; it needs no moment of silence.
func (s *Session) Reached() uint64 { return s.reached }

// Stats returns the counters.
func (s *Session) Stats() Stats { return s.stats }

// Rejections lists what is set aside, in order of type and name.
func (s *Session) Rejections() []Rejection {
	var out []Rejection
	for _, c := range s.channels {
		if len(c.rejected) > 0 {
			out = append(out, slices.SortedFunc(maps.Values(c.rejected), func(a, b Rejection) int {
				return strings.Compare(a.Name, b.Name)
			})...)
		}
	}
	return out
}

// Held returns the version of each name that the peer acknowledged last (or said that it holds). What is in flight or
// refused does not appear. For inspection: it costs the whole plan.
func (s *Session) Held(typ string) map[string]string {
	held := map[string]string{}
	c := s.channel(typ)
	if c == nil {
		return held
	}
	for n, sl := range c.slots {
		if sl.item != nil {
			held[n] = sl.item.ItemVersion()
		}
	}
	if f := c.flight; f != nil {
		for i, it := range f.items {
			n := it.ItemName()
			if c.slots[n].item != it {
				continue
			}
			if delete(held, n); f.prev[i] != nil {
				held[n] = f.prev[i].ItemVersion()
			}
		}
		for i, n := range f.removed {
			if sl, ok := c.slots[n]; ok && !sl.anew && f.held[i] != nil {
				held[n] = f.held[i].ItemVersion()
			}
		}
	}
	return held
}

// Epochs answer "is everything acknowledged that was to be said at that moment?" while changes go on. Closing the open
// epoch starts the question. A type has passed it when it is idle, or when a message that left it nothing else to say
// was sent after the closing and acknowledged.

func (s *Session) close() uint64 {
	e := s.epoch
	s.epoch++
	return e
}

func (s *Session) passed(epoch uint64) bool {
	for _, c := range s.channels {
		if c.done < epoch && !s.idle(c) {
			return false
		}
	}
	return true
}

func (s *Session) idle(c *channel) bool {
	return c.flight == nil && c.marked() == 0 && !c.all && !c.reply && s.said(c)
}

// said: nothing that was looked at remains to be sent.
func (s *Session) said(c *channel) bool {
	return c.unsent.n == 0 && (!s.order.Together || len(c.gone) == 0)
}

// note moves Reached as far as the answers allow.
func (s *Session) note() {
	for s.reached < s.target {
		if s.markEpoch == 0 {
			s.markRev, s.markEpoch = s.target, s.close()
		}
		if !s.passed(s.markEpoch) {
			return
		}
		s.reached, s.markEpoch = s.markRev, 0
	}
}
