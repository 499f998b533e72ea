package xds

// Sizes is what a server holds.
type Sizes struct{ Streams, Behind, Rejected, Groups, Contents, Staged int }

// Sizes counts what the server holds.
func (s *Server) Sizes() Sizes {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Sizes{
		Streams: len(s.streams), Behind: len(s.behind), Rejected: len(s.rejected), Groups: len(s.groups),
		Contents: len(s.contents), Staged: len(s.stagedContents) + len(s.stagedPlans),
	}
}
