package bolt

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// Apply implements [store.Store]. After an error of the medium (no space, no
// longer writable) it is not known whether the operations were stored; followers
// then begin anew with what the file has.
func (s *Store) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	return s.queue.Apply(ctx, ops)
}

// commitGroup commits calls together and tells the followers.
func (s *Store) commitGroup(calls []*store.Call) {
	batches, err := s.commit(calls)
	if err != nil {
		// Also calls that wrote nothing, or failed, were judged by what the others
		// were about to write.
		for _, c := range calls {
			c.Revision, c.Err = 0, err
		}
		s.log.Gap()
		return
	}
	s.log.Append(batches...)
}

// commit judges the calls in order, each on top of those before it, and writes
// what the successful ones change with one fsync.
func (s *Store) commit(calls []*store.Call) (batches []store.Batch, err error) {
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
		b, c.Err = store.Resolve(c.Ops, at+1, func(id api.ID) (store.Record, bool, error) {
			r, ok, err := s.get(tx, id)
			if ok {
				old = append(old, r)
			}
			return r, ok, err
		})
		if c.Err == nil && !b.Empty() {
			var values [][]byte
			if values, c.Err = encodeAll(b.Puts); c.Err == nil {
				if err := write(tx, &b, values); err != nil {
					return nil, fmt.Errorf("writing the store %s: %w", s.path, err)
				}
				held.replace(&b, old)
				at = b.Revision
				batches = append(batches, b)
			}
		}
		if c.Err == nil {
			c.Revision = at
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
