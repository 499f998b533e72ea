package xds

// Sizes is what a server holds.
type Sizes struct{ Streams, Behind, Rejected, Groups, Contents, Staged int }

// Sizes counts what the server holds.
func (s *Server) Sizes() Sizes {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.books.Lock()
	defer s.books.Unlock()
	groups := map[*group]struct{}{}
	for _, c := range s.contents {
		for p := range c.parts {
			for g := range p.groups {
				groups[g] = struct{}{}
			}
		}
	}
	for _, g := range s.classes {
		groups[g] = struct{}{}
	}
	return Sizes{
		Streams: len(s.streams), Behind: len(s.behind), Rejected: len(s.rejected), Groups: len(groups),
		Contents: len(s.contents), Staged: len(s.stagedContents) + len(s.stagedPlans),
	}
}
