package delta

// Leftovers counts everything that a session holds beyond its plan, Plan the names in its plan.
func (s *Session) Leftovers() int {
	n := 0
	for _, c := range s.channels {
		n += c.marked() + c.unsent.n + len(c.gone) + len(c.suspects) + len(c.rejected)
		if c.dirty != nil || c.lists != nil || c.unsent.due != nil || c.suspects != nil || c.flight != nil {
			n++
		}
		for name := range c.maybe {
			_, refused := c.rejected[name]
			_, gone := c.gone[name]
			if !refused && !gone {
				n++
			}
		}
	}
	return n
}

func (s *Session) Plan() int {
	n := 0
	for _, c := range s.channels {
		n += len(c.slots)
	}
	return n
}
