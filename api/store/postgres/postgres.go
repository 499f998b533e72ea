// Package postgres is the store that the instances of a control plane share: a
// PostgreSQL database (13 or newer).
//
// It owns the tables whose names begin with atoll_ and brings them up to date
// when it opens them. It is made by the assembly of a control plane, and by
// `atoll migrate`. It never waits for a database that is away: writes fail with
// [store.ErrUnavailable] until it is back, followers wait for it and go on where
// they were.
//
//	Apply ─▶ queue ─▶ BEGIN, lock, state and rows ─▶ store.Resolve ─▶ changes, rows, state, NOTIFY, COMMIT
//	                                                                         │ "look"
//	Follow ◀── changes after my revision; or all rows, if they are gone ◀────┘ (or the poll)
//
// # Why
//
// A sequence would count commits in the order in which they began, and a
// follower that asks for what is newer would miss one that took longer. Writers
// therefore take one lock, and count in a row: revisions are gapless and in the
// order of commits, and a follower that finds a gap knows that the change log
// was cut, and reads the rows anew. A lock costs concurrency; calls that wait
// for it are committed together, in two round trips and one fsync.
//
// NOTIFY may be lost (a pooler, a connection that broke), so it says only that
// there is something. What is there, and whether it continues what a follower
// has, the tables say.
//
// A database can be replaced by an older state of itself. A logical restore is
// seen at Open by the identity of cluster, database and table; any other by
// instances that know a newer revision, or another commit at the revision they
// know. Then a new epoch begins, with revisions above all that are known. Only a
// copy of the database's files that was put back while no instance ran cannot
// be told from the original: `atoll migrate up --new-epoch` says so.
//
// Listening needs a connection of its own, and a follower reads over the same.
// The alternative, one goroutine that reads for all followers into memory, would
// be a second log beside the table; a control plane has one follower.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/atoll-mesh/atoll/api/store"
)

const (
	// Format is the newest format of the tables that this program reads.
	Format = 1
	// reader is what a program that is too old for the tables is told to become.
	reader = "Atoll 0.1"
	// lock is the advisory lock of all who write: "atoll".
	lock = 0x61746f6c6c
	// channel is what followers listen to.
	channel = "atoll"
)

// ErrNewer: the tables belong to a newer program.
var ErrNewer = errors.New("written by a newer version")

// Store is an open database. It is a [store.Store].
type Store struct {
	o     Options
	pool  *pgxpool.Pool
	queue *store.Queue
	// life ends with Close.
	life context.Context
	end  context.CancelFunc

	mu    sync.Mutex
	epoch string // of what followers have
	seen  mark   // the newest commit that this instance knows of
}

// mark is a commit: the epoch, the revision, and when it was made, which tells
// it from another commit that took its revision after a restore.
type mark struct {
	epoch     string
	revision  store.Revision
	committed time.Time // zero if it is not known
}

// Open connects, migrates and returns the store. The context bounds the opening
// only.
//
// Errors: [store.ErrUnavailable], [ErrNewer], or what the database said, with
// what to do about it.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{o: o}
	s.queue = store.NewQueue(s.commitGroup)
	s.life, s.end = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.end()
		if s.pool != nil {
			s.pool.Close()
		}
		return nil, fmt.Errorf("opening the store %s: %w", &o, o.explain(err))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if s.pool, err = s.o.pool(); err != nil {
		return err
	}
	return s.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		if _, err := migrate(ctx, c.Conn(), s.o.Log); err != nil {
			return err
		}
		st, err := readState(ctx, c.Conn(), 0)
		if err != nil {
			return err
		}
		s.epoch = st.epoch
		s.saw(mark{epoch: st.epoch, revision: st.revision})
		return nil
	})
}

// Guarantees implements [store.Store].
func (s *Store) Guarantees() store.Guarantees {
	return store.Guarantees{Atomic: store.BatchAtomic, Order: store.GlobalOrder, Durable: true}
}

// Epoch implements [store.Store]. It changes while the store is open when the
// database went back to an older state; the next batch of Follow is a Reset then.
func (s *Store) Epoch() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Groups returns how many transactions were made for calls of Apply.
func (s *Store) Groups() uint64 { return s.queue.Groups() }

// Apply implements [store.Store]. After [store.ErrUnavailable] the operations
// were not stored, unless the error says that it is not known.
func (s *Store) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if err := store.Check(ops); err != nil {
		return 0, err // the database would refuse the whole group
	}
	return s.queue.Apply(ctx, ops)
}

// Close implements [store.Store]. It waits for the calls of Apply that are being
// written; those that wait for their turn get [store.ErrClosed].
func (s *Store) Close() error {
	s.end()
	if s.queue.Close() {
		s.pool.Close()
	}
	return nil
}

// saw notes a commit that this instance knows of now.
func (s *Store) saw(m mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.epoch != s.seen.epoch || m.revision >= s.seen.revision {
		s.seen = m
	}
}

func (s *Store) newest() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// state is the row of atoll_store.
type state struct {
	format   int
	reader   string
	epoch    string
	revision store.Revision
	// there is when the commit with the revision that was asked for was made, nil
	// if there is none or it is not in the change log any more.
	there *time.Time
}

// stateColumns need the revision that is asked for as $1.
const stateColumns = `s.format, s.reader, s.epoch, s.revision,
	(SELECT committed FROM atoll_changes WHERE revision = $1 LIMIT 1)`

func (st *state) into() []any {
	return []any{&st.format, &st.reader, &st.epoch, &st.revision, &st.there}
}

// known refuses the tables of a newer program.
func (st *state) known() error {
	if st.format > Format {
		return fmt.Errorf("%w: the tables have format %d, this program reads up to %d; %s reads them", ErrNewer, st.format, Format, st.reader)
	}
	return nil
}

// before reports whether the state is older than a commit that is known, or
// another history than it: the state must have been asked for its revision.
func (st *state) before(m mark) bool {
	return st.epoch == m.epoch && (st.revision < m.revision ||
		st.there != nil && !m.committed.IsZero() && !st.there.Equal(m.committed))
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readState(ctx context.Context, q querier, about store.Revision) (st state, err error) {
	err = q.QueryRow(ctx, "SELECT "+stateColumns+" FROM atoll_store s", about).Scan(st.into()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return st, errEmpty
	}
	if err != nil {
		return st, err
	}
	return st, st.known()
}

// errEmpty: somebody is restoring the tables, or has emptied them.
var errEmpty = errors.New("the table atoll_store is empty: restore the database from a backup, or drop the tables atoll_* to start empty")

// renew begins a new epoch if the database is still older than the commit that
// is known. Of several instances the first does it, the others find it done.
func (s *Store) renew(ctx context.Context, known mark) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockStatement, lock); err != nil {
			return err
		}
		st, err := readState(ctx, tx, known.revision)
		if err != nil || !st.before(known) {
			return err
		}
		epoch, at := s.renewal(&st, known)
		_, err = tx.Exec(ctx, `WITH s AS (UPDATE atoll_store SET epoch = $1, revision = $2) SELECT pg_notify('`+channel+`', '')`, epoch, at)
		return err
	})
}

// renewal is the epoch and the revision from which a history goes on that went
// back. No revision that this instance knows is used twice.
func (s *Store) renewal(st *state, known mark) (epoch string, at store.Revision) {
	s.o.Log.Warn("the database was restored to an older state: a new epoch begins",
		"store", s.o.String(), "revision", st.revision, "known", known.revision)
	return newEpoch(), max(st.revision, known.revision)
}
