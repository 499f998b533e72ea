// Package bolt is the embedded store: one file, one process, no set-up.
//
// It owns the file while it is open, and nobody else may open it then. It is
// made by the assembly of a control plane. It never answers with less than was
// stored: a file that is damaged, of a newer format, or held by another process
// is an error at Open that names the file and says what to do.
//
//	info     format, reader, epoch, revision, census
//	rows/    a bucket per kind: mesh, zone, namespace, name ─▶ record with its checksum
//
// # Why
//
// bbolt gives what is hard: atomic batches, fsync, a file that survives a kill
// at any moment. It is pure Go and needs no service beside it.
//
// One fsync costs milliseconds, so calls of Apply that arrive while one is
// written are committed together by the next; each keeps its own revision and
// its own result. The caller at the head of the queue does the work, and so the
// store has no goroutine.
//
// Changes are not written a second time into a log on disk: followers that keep
// up read the recent past from memory ([store.Log]), the others read the rows.
//
// bbolt trusts its file, so damage would be a crash, or records that are silently
// missing. Open therefore judges every page, the checksum of every record, and a
// census of which records there should be, before it lets bbolt write.
//
// A file that does not exist is created under another name and put into place
// when it is complete. So an empty or short file at the path is never the
// remains of a start that was cut off, but damage.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

var (
	bucketInfo  = []byte("info")
	bucketRows  = []byte("rows")
	keyFormat   = []byte("format")
	keyReader   = []byte("reader")
	keyEpoch    = []byte("epoch")
	keyRevision = []byte("revision")
	keyCensus   = []byte("census")
)

// Store is a file that is open. It is a [store.Store].
type Store struct {
	path   string
	bolt   *bbolt.DB
	epoch  string
	log    *store.Log
	closed chan struct{}
	queue  *store.Queue
	once   sync.Once
}

// Guarantees implements [store.Store].
func (s *Store) Guarantees() store.Guarantees {
	return store.Guarantees{Atomic: store.BatchAtomic, Order: store.GlobalOrder, Durable: true}
}

// Epoch implements [store.Store].
func (s *Store) Epoch() string { return s.epoch }

// Groups returns how many transactions have been made for calls of Apply.
func (s *Store) Groups() uint64 { return s.queue.Groups() }

// Close implements [store.Store]. It waits for the calls of Apply that are being
// written; those that wait for their turn get [store.ErrClosed].
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closed) })
	if !s.queue.Close() {
		return nil
	}
	if err := s.bolt.Close(); err != nil {
		return fmt.Errorf("closing the store %s: %w", s.path, err)
	}
	return nil
}

// Follow implements [store.Store].
func (s *Store) Follow(ctx context.Context) iter.Seq2[store.Batch, error] {
	return s.log.Follow(ctx, s.closed, s.all)
}

// all reads everything in one transaction. It ends before anybody works on the
// result, because an open transaction keeps pages from being used again.
func (s *Store) all() (b store.Batch, err error) {
	tx, err := s.bolt.Begin(false)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return b, store.ErrClosed
	}
	if err != nil {
		return b, fmt.Errorf("reading the store %s: %w", s.path, err)
	}
	defer tx.Rollback() //nolint:errcheck // of a read: nothing to lose
	defer s.caught("a page", &err)
	b.Reset = true
	b.Revision = revision(tx)
	b.Puts, err = s.records(tx)
	return b, err
}

func (s *Store) records(tx *bbolt.Tx) ([]store.Record, error) {
	var out []store.Record
	rows := tx.Bucket(bucketRows)
	err := rows.ForEachBucket(func(kind []byte) error {
		return rows.Bucket(kind).ForEach(func(k, v []byte) error {
			r, err := decode(string(kind), k, v)
			if err != nil {
				return s.damaged(string(kind), k, err)
			}
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

func (s *Store) get(tx *bbolt.Tx, id api.ID) (store.Record, bool, error) {
	b := tx.Bucket(bucketRows).Bucket([]byte(id.Kind))
	if b == nil {
		return store.Record{}, false, nil
	}
	k := key(id)
	v := b.Get(k)
	if v == nil {
		return store.Record{}, false, nil
	}
	r, err := decode(id.Kind, k, v)
	if err != nil {
		return store.Record{}, false, s.damaged(id.Kind, k, err)
	}
	return r, true, nil
}

func (s *Store) damaged(kind string, k []byte, err error) error {
	return &store.Corrupt{Path: s.path, What: fmt.Sprintf("the record %s %q cannot be read", kind, k), Err: err}
}

// caught turns the panic with which bbolt meets a page that is none into an
// error.
func (s *Store) caught(what string, err *error) {
	if p := recover(); p != nil {
		*err = &store.Corrupt{Path: s.path, What: what + " cannot be read", Err: fmt.Errorf("%v", p)}
	}
}

func revision(tx *bbolt.Tx) store.Revision {
	return store.Revision(binary.BigEndian.Uint64(tx.Bucket(bucketInfo).Get(keyRevision)))
}

func putRevision(tx *bbolt.Tx, r store.Revision) error {
	return tx.Bucket(bucketInfo).Put(keyRevision, binary.BigEndian.AppendUint64(nil, uint64(r)))
}
