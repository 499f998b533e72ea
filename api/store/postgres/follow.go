package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/atoll-mesh/atoll/api/store"
)

const (
	// window is how many commits a follower reads at once.
	window = 256
	// firstPause and lastPause bound the time between attempts to reach a database
	// that is away.
	firstPause, lastPause = 50 * time.Millisecond, 5 * time.Second
)

// Follow implements [store.Store]. A database that is away ends no follower: it
// goes on where it was when the database is back. What ends it are [ErrNewer]
// and a [*store.Corrupt].
func (s *Store) Follow(ctx context.Context) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		f := follower{Store: s}
		defer f.hangUp()
		for {
			batches, err := f.next(ctx)
			switch {
			case s.life.Err() != nil:
				yield(store.Batch{}, store.ErrClosed)
				return
			case ctx.Err() != nil:
				return
			case err != nil:
				yield(store.Batch{}, fmt.Errorf("following the store %s: %w", &s.o, err))
				return
			}
			for _, b := range batches {
				if ctx.Err() != nil {
					break // the next turn says why
				}
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

// follower is one call of Follow.
type follower struct {
	*Store
	conn   *pgx.Conn // listens; nil if there is none
	forget func() bool
	// at is the newest commit that was read; zero before the first.
	at mark
	// failures counts attempts since the database was last heard of.
	failures int
}

// next returns the next batches, once there are any.
func (f *follower) next(ctx context.Context) ([]store.Batch, error) {
	for {
		batches, err := f.look(ctx)
		if err == nil {
			f.heard()
			if len(batches) > 0 {
				return batches, nil
			}
			err = f.listen(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrNewer), errors.As(err, new(*store.Corrupt)):
			return nil, err
		case err != nil:
			f.hangUp()
			f.pause(ctx, err)
		}
	}
}

// look connects if need be and reads what is newer. No batch and no error mean
// that nothing is.
func (f *follower) look(ctx context.Context) ([]store.Batch, error) {
	if f.conn == nil {
		if err := f.dial(ctx); err != nil {
			return nil, err
		}
	}
	if f.at.epoch == "" {
		return f.all(ctx)
	}
	batches, gone, err := f.changes(ctx)
	if err == nil && gone {
		return f.all(ctx)
	}
	return batches, err
}

func (f *follower) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.o.ConnectTimeout+f.o.TransactionTimeout)
	defer cancel()
	c, err := f.o.connect(ctx)
	if err != nil {
		return err
	}
	// A follower that nobody asks for a batch holds no connection after Close.
	f.conn, f.forget = c, context.AfterFunc(f.life, func() { c.PgConn().Conn().Close() })
	// First to listen, then to look: so nothing falls between.
	_, err = c.Exec(ctx, "LISTEN "+channel)
	return err
}

// listen waits until somebody says that there is something newer, or the poll is
// due.
func (f *follower) listen(ctx context.Context) error {
	due, cancel := context.WithTimeout(ctx, f.o.Poll)
	defer cancel()
	for {
		n, err := f.conn.WaitForNotification(due)
		if err != nil && due.Err() != nil && pgconn.Timeout(err) {
			return nil // the connection stays usable
		}
		if err != nil || !f.at.hinted(n.Payload) {
			return err
		}
	}
}

// Both queries yield the state in every row, and columns that are empty if
// there is no record. A single statement sees a single state of the database.
var (
	selectChanges = "SELECT " + stateColumns + `, coalesce(r.revision, 0), coalesce(r.deleted, false), r.committed, ` + nullable +
		` FROM ` + one + ` s LEFT JOIN atoll_changes r ON r.revision > $1 AND r.revision <= $1 + $2 ORDER BY r.revision`
	selectAll = "SELECT " + strings.Replace(stateColumns, "$1", "s.revision", 1) + `, coalesce(r.revision, 0), false, NULL::timestamptz, ` + nullable +
		` FROM ` + one + ` s LEFT JOIN atoll_rows r ON true ORDER BY r.kind, r.mesh, r.zone, r.namespace, r.name`
)

// one tells the planner that there is one row, before any statistics do.
const one = "(SELECT * FROM atoll_store LIMIT 1)"

const nullable = `coalesce(r.kind, ''), coalesce(r.mesh, ''), coalesce(r.zone, ''), coalesce(r.namespace, ''), coalesce(r.name, ''),
	coalesce(r.revision, 0), coalesce(r.created, ''), coalesce(r.modified, ''), coalesce(r.source, ''), coalesce(r.owner, ''), r.labels, r.spec`

// changed is a row of either query.
type changed struct {
	revision  store.Revision // 0: there is no record
	deleted   bool
	committed *time.Time
	scanned
}

// errSilent: the database said nothing for as long as a transaction may take.
var errSilent = errors.New("nothing was heard of the database")

// read runs a query, and calls each for every record in it. It may take as long
// as records keep coming: how many there are, and how fast the link is, say
// nothing of whether the database is there.
func (f *follower) read(ctx context.Context, each func(*changed) error, sql string, args ...any) (st state, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(f.o.TransactionTimeout, func() {
		cancel(fmt.Errorf("%w for %s", errSilent, f.o.TransactionTimeout))
	})
	defer silent.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, errSilent) {
			err = cause
		}
	}()
	rows, err := f.conn.Query(ctx, sql, args...)
	if err != nil {
		return st, err
	}
	defer rows.Close()
	some := false
	for rows.Next() {
		silent.Reset(f.o.TransactionTimeout)
		var c changed
		if err := rows.Scan(append(append(st.into(), &c.revision, &c.deleted, &c.committed), c.into()...)...); err != nil {
			return st, err
		}
		if err := st.known(); err != nil {
			return st, err
		}
		some = true
		if c.revision == 0 {
			continue
		}
		if err := each(&c); err != nil {
			return st, err
		}
	}
	if err := rows.Err(); err != nil {
		return st, err
	}
	if !some {
		return st, errEmpty
	}
	return st, nil
}

// all reads everything.
func (f *follower) all(ctx context.Context) ([]store.Batch, error) {
	b := store.Batch{Reset: true}
	st, err := f.read(ctx, func(c *changed) error {
		r, err := c.record(&f.o)
		b.Puts = append(b.Puts, r)
		return err
	}, selectAll)
	if err != nil {
		return nil, err
	}
	b.Revision = st.revision
	f.at = mark{epoch: st.epoch, revision: st.revision}
	if st.there != nil {
		f.at.committed = *st.there
	}
	f.mu.Lock()
	f.epoch = st.epoch
	f.mu.Unlock()
	f.saw(f.at)
	return []store.Batch{b}, nil
}

// changes reads the commits that follow. They are gone if the log was cut, or if
// this is another history.
func (f *follower) changes(ctx context.Context) (batches []store.Batch, gone bool, err error) {
	at := f.at
	st, err := f.read(ctx, func(c *changed) error {
		if c.revision > at.revision {
			gone = gone || c.revision != at.revision+1
			at.revision, at.committed = c.revision, *c.committed
			batches = append(batches, store.Batch{Revision: c.revision})
		}
		b := &batches[len(batches)-1]
		if c.deleted {
			b.Deletes = append(b.Deletes, c.ID)
			return nil
		}
		r, err := c.record(&f.o)
		b.Puts = append(b.Puts, r)
		return err
	}, selectChanges, f.at.revision, window)
	if err != nil {
		return nil, false, err
	}
	if st.before(f.at) {
		ctx, cancel := context.WithTimeout(ctx, f.o.TransactionTimeout)
		defer cancel()
		if err := f.renew(ctx, f.at); err != nil {
			return nil, false, err
		}
	}
	if gone || st.before(f.at) || st.epoch != f.at.epoch || len(batches) == 0 && st.revision > f.at.revision {
		return nil, true, nil
	}
	f.at = at
	f.saw(at)
	return batches, false, nil
}

// heard ends an outage.
func (f *follower) heard() {
	if f.failures > 0 {
		f.o.Log.Info("the store is followed again", "store", f.o.String(), "revision", f.at.revision)
	}
	f.failures = 0
}

// pause waits before the next attempt, longer each time, and not in step with
// other instances.
func (f *follower) pause(ctx context.Context, err error) {
	if f.failures == 0 {
		f.o.Log.Warn("the store cannot be followed; what is known of it stays in force", "store", f.o.String(), "error", f.o.explain(err))
	}
	most := min(firstPause<<min(f.failures, 10), lastPause)
	f.failures++
	timer := time.NewTimer(most/2 + rand.N(most/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *follower) hangUp() {
	if f.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	f.forget()
	_ = f.conn.Close(ctx) // it is not used any more
	f.conn = nil
}
