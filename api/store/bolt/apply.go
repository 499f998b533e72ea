package bolt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// call is one Apply that waits for its turn or its result.
type call struct {
	ops []store.Op
	// turn is closed when the call shall do the next group.
	turn chan struct{}
	// done is closed when the result is there.
	done chan struct{}
	rev  store.Revision
	err  error
}

// group is the most calls that share a transaction. It bounds how much must be
// written before the first of them hears of it.
const group = 1024

// Apply implements [store.Store]. After an error of the medium (no space, no
// longer writable) it is not known whether the operations were stored; followers
// then begin anew with what the file has.
func (s *Store) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c := &call{ops: ops, turn: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return 0, store.ErrClosed
	}
	s.queue = append(s.queue, c)
	if !s.busy {
		s.busy = true
		close(c.turn)
	}
	s.mu.Unlock()

	select {
	case <-c.turn:
		s.lead()
	case <-c.done:
		return c.rev, c.err
	case <-ctx.Done():
		if s.withdraw(c) {
			return 0, ctx.Err()
		}
	}
	<-c.done
	return c.rev, c.err
}

// withdraw takes a call out of the queue. It is too late when the call is part
// of a group already. A call whose turn it is passes the turn on.
func (s *Store) withdraw(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, c)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	select {
	case <-c.turn:
		s.pass()
	default:
	}
	return true
}

// pass gives the turn to the head of the queue. The lock is held.
func (s *Store) pass() {
	if s.gone {
		for _, c := range s.queue {
			c.err = store.ErrClosed
			close(c.done)
		}
		s.queue = nil
	}
	if len(s.queue) > 0 {
		close(s.queue[0].turn)
		return
	}
	s.busy = false
	s.idle.Broadcast()
}

// lead commits all calls that wait as one group, then passes the turn on.
func (s *Store) lead() {
	s.mu.Lock()
	n := min(len(s.queue), group)
	calls := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.groups++
	s.mu.Unlock()

	batches, err := s.commit(calls)
	if err != nil {
		// Also calls that wrote nothing, or failed, were judged by what the others
		// were about to write.
		for _, c := range calls {
			c.rev, c.err = 0, err
		}
		s.log.Gap()
	} else {
		s.log.Append(batches...)
	}
	for _, c := range calls {
		close(c.done)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// commit judges the calls in order, each on top of those before it, and writes
// what the successful ones change with one fsync.
func (s *Store) commit(calls []*call) (batches []store.Batch, err error) {
	tx, err := s.bolt.Begin(true)
	if err != nil {
		return nil, fmt.Errorf("writing the store %s: %w", s.path, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	defer s.caught("a page", &err)

	at, held := revision(tx), readCensus(tx)
	for _, c := range calls {
		var b store.Batch
		var old []store.Record
		b, c.err = store.Resolve(c.ops, at+1, func(id api.ID) (store.Record, bool, error) {
			r, ok, err := s.get(tx, id)
			if ok {
				old = append(old, r)
			}
			return r, ok, err
		})
		if c.err == nil && !b.Empty() {
			var values [][]byte
			if values, c.err = encodeAll(b.Puts); c.err == nil {
				if err := write(tx, &b, values); err != nil {
					return nil, fmt.Errorf("writing the store %s: %w", s.path, err)
				}
				held.replace(&b, old)
				at = b.Revision
				batches = append(batches, b)
			}
		}
		if c.err == nil {
			c.rev = at
		}
	}
	if len(batches) == 0 {
		return nil, nil
	}
	if err := errors.Join(putRevision(tx, at), held.put(tx)); err != nil {
		return nil, fmt.Errorf("writing the store %s: %w", s.path, err)
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("writing the store %s: %w", s.path, err)
	}
	return batches, nil
}

func encodeAll(puts []store.Record) ([][]byte, error) {
	values := make([][]byte, len(puts))
	for i := range puts {
		var err error
		if values[i], err = encode(&puts[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func write(tx *bbolt.Tx, b *store.Batch, values [][]byte) error {
	rows := tx.Bucket(bucketRows)
	for i := range b.Puts {
		kind, err := rows.CreateBucketIfNotExists([]byte(b.Puts[i].Kind))
		if err != nil {
			return err
		}
		if err := kind.Put(key(b.Puts[i].ID), values[i]); err != nil {
			return err
		}
	}
	for _, id := range b.Deletes {
		if err := rows.Bucket([]byte(id.Kind)).Delete(key(id)); err != nil {
			return err
		}
	}
	return nil
}
