// Package memory is a store that keeps records for as long as the process runs.
//
// It owns one [Database], which any number of handles ([Database.Open]) share,
// as the instances of a control plane share a PostgreSQL. It serves tests,
// demonstrations and `--store memory`. It never writes to a disk.
//
// # Why
//
// Tests of several instances need several stores over one history, each of
// which can be closed and opened again by itself. That is why the database and
// the handle are two things.
package memory

import (
	"context"
	"crypto/rand"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// Database holds records until nobody refers to it any more.
type Database struct {
	epoch string
	log   *store.Log

	mu   sync.Mutex
	at   store.Revision
	rows map[api.ID]store.Record
}

// New returns an empty database with an epoch of its own.
func New() *Database { return NewLimited(store.Limits{}) }

// NewLimited is New with another bound of the recent past.
func NewLimited(l store.Limits) *Database {
	return &Database{epoch: rand.Text(), log: store.NewLog(l), rows: map[api.ID]store.Record{}}
}

// Store is a handle on a database. It is a [store.Store].
type Store struct {
	data   *Database
	once   sync.Once
	closed chan struct{}
}

// Open returns a new handle. Closing it ends its own followers only.
func (d *Database) Open() *Store { return &Store{data: d, closed: make(chan struct{})} }

// Guarantees implements [store.Store].
func (s *Store) Guarantees() store.Guarantees {
	return store.Guarantees{Atomic: store.BatchAtomic, Order: store.GlobalOrder}
}

// Epoch implements [store.Store].
func (s *Store) Epoch() string { return s.data.epoch }

// Follow implements [store.Store].
func (s *Store) Follow(ctx context.Context) iter.Seq2[store.Batch, error] {
	return s.data.log.Follow(ctx, s.closed, s.data.all)
}

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case <-s.closed:
		return 0, store.ErrClosed
	default:
	}
	return s.data.apply(ops)
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (d *Database) apply(ops []store.Op) (store.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := store.Resolve(ops, d.at+1, func(id api.ID) (store.Record, bool, error) {
		r, ok := d.rows[id]
		return r, ok, nil
	})
	if err != nil || b.Empty() {
		return d.at, err
	}
	for _, r := range b.Puts {
		d.rows[r.ID] = r
	}
	for _, id := range b.Deletes {
		delete(d.rows, id)
	}
	d.at = b.Revision
	d.log.Append(b)
	return d.at, nil
}

func (d *Database) all() (store.Batch, error) {
	d.mu.Lock()
	b := store.Batch{Revision: d.at, Puts: slices.Collect(maps.Values(d.rows))}
	d.mu.Unlock()
	slices.SortFunc(b.Puts, store.ByID)
	return b, nil
}
