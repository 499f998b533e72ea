package bolt

import "runtime"

// Hold keeps the file from being written until release is called.
func (s *Store) Hold() (release func()) {
	tx, err := s.bolt.Begin(true)
	if err != nil {
		panic(err)
	}
	return func() { tx.Rollback() } //nolint:errcheck // nothing was written
}

// AwaitQueue returns when that many calls wait for their turn, and groups
// calls are at the file.
func (s *Store) AwaitQueue(calls int, groups int) {
	for {
		s.mu.Lock()
		ok := len(s.queue) == calls && s.busy == (groups > 0)
		s.mu.Unlock()
		if ok {
			return
		}
		runtime.Gosched()
	}
}
