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

// AwaitQueue returns when that many calls wait for their turn while others are
// at the file.
func (s *Store) AwaitQueue(calls int) {
	for {
		if waiting, busy := s.queue.Waiting(); waiting == calls && busy {
			return
		}
		runtime.Gosched()
	}
}
