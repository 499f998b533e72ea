package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// errStandby: the connection leads to a server that takes no writes, as after a
// failover.
var errStandby = errors.New("the server is a standby, or read-only")

// commitGroup commits calls together. It does not end with the context of one of
// them.
func (s *Store) commitGroup(calls []*store.Call) {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.TransactionTimeout)
	defer cancel()
	if err := s.commit(ctx, calls); err != nil {
		err = fmt.Errorf("writing the store %s: %w", &s.o, s.o.explain(err))
		for _, c := range calls {
			// Also calls that wrote nothing, or failed, were judged by what the others
			// were about to write.
			c.Revision, c.Err = 0, err
		}
	}
}

// commit tries again once if the connection was dead from before: nothing can
// have been written then, and neither are the pool's others alive.
func (s *Store) commit(ctx context.Context, calls []*store.Call) error {
	for try := 0; ; try++ {
		c, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		tx := transaction{Store: s, conn: c}
		err = tx.begin(ctx, calls)
		if err == nil {
			err = tx.finish(ctx, calls)
			tx.release(ctx)
			return err
		}
		dead := c.Conn().IsClosed() || errors.Is(err, errStandby)
		tx.release(ctx)
		if !dead || try > 0 || ctx.Err() != nil {
			return err
		}
		s.pool.Reset()
	}
}

// transaction writes one group. Statements are sent together where the later do
// not depend on answers to the earlier, because every round trip prolongs the
// time in which other instances wait for the lock.
type transaction struct {
	*Store
	conn  *pgxpool.Conn
	known mark
	state state
	now   time.Time
	// rows are those that the calls name, as the transaction leaves them; nil where
	// there is none.
	rows map[api.ID]*store.Record
}

// limits end the transaction of an instance that was stopped in the middle of
// it, so that the others get the lock, and see to it that a commit is on the disk
// before it is acknowledged.
const limits = `SELECT set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
	set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)`

const selectRows = `SELECT ` + recordColumns + ` FROM atoll_rows
	JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS named(` + idColumns + `) USING (` + idColumns + `)`

// begin takes the lock and reads what the calls are judged by.
func (t *transaction) begin(ctx context.Context, calls []*store.Call) error {
	t.known, t.rows = t.newest(), map[api.ID]*store.Record{}
	var named columns
	for _, c := range calls {
		for i := range c.Ops {
			id := c.Ops[i].Record.ID
			if _, twice := t.rows[id]; !twice {
				t.rows[id] = nil
				named.id(id)
			}
		}
	}
	var b pgx.Batch
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	b.Queue(limits, fmt.Sprintf("%dms", t.o.TransactionTimeout.Milliseconds()))
	b.Queue(lockStatement, lock)
	var readOnly string
	b.Queue("SELECT "+stateColumns+", now(), current_setting('transaction_read_only') FROM atoll_store s", t.known.revision).QueryRow(func(row pgx.Row) error {
		return row.Scan(append(t.state.into(), &t.now, &readOnly)...)
	})
	b.Queue(selectRows, named.ids()...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			r, err := scan(rows, &t.o)
			if err != nil {
				return err
			}
			t.rows[r.ID] = &r
		}
		return rows.Err()
	})
	err := t.conn.SendBatch(ctx, &b).Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errEmpty
	case err != nil:
		return err
	case readOnly == "on":
		return errStandby
	}
	return t.state.known()
}

const (
	insertChanges = `INSERT INTO atoll_changes (` + recordColumns + `, deleted)
	SELECT ` + recordColumns0 + `, deleted FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
		$6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::boolean[])
		AS changed(` + recordColumns + `, deleted)`
	recordColumns0 = idColumns + ", revision, created, modified, source, owner, labels::json, spec"
	// fold brings the rows to what the changes after a revision say.
	fold = `WITH latest AS (
		SELECT DISTINCT ON (` + idColumns + `) * FROM atoll_changes WHERE revision > $1 ORDER BY ` + idColumns + `, atoll_changes.revision DESC
	), gone AS (
		DELETE FROM atoll_rows USING latest WHERE deleted AND (atoll_rows.kind, atoll_rows.mesh, atoll_rows.zone, atoll_rows.namespace, atoll_rows.name)
			= (latest.kind, latest.mesh, latest.zone, latest.namespace, latest.name)
	)
	INSERT INTO atoll_rows (` + recordColumns + `) SELECT ` + recordColumns + ` FROM latest WHERE NOT deleted
	ON CONFLICT (` + idColumns + `) DO UPDATE SET (revision, created, modified, source, owner, labels, spec)
		= (EXCLUDED.revision, EXCLUDED.created, EXCLUDED.modified, EXCLUDED.source, EXCLUDED.owner, EXCLUDED.labels, EXCLUDED.spec)`
	// compact removes old changes, but never so many that others wait long.
	compact = `DELETE FROM atoll_changes WHERE revision <= $1
		AND revision < (SELECT min(revision) FROM atoll_changes) + $2`
)

// finish judges the calls in order, each on top of those before it, and writes
// what the successful ones change.
func (t *transaction) finish(ctx context.Context, calls []*store.Call) error {
	epoch, at := t.state.epoch, t.state.revision
	renewed := t.state.before(t.known)
	if renewed {
		epoch, at = t.renewal(&t.state, t.known)
	}
	before := at
	var changed columns
	for _, c := range calls {
		var b store.Batch
		b, c.Err = store.Resolve(c.Ops, at+1, func(id api.ID) (store.Record, bool, error) {
			if r := t.rows[id]; r != nil {
				return *r, true, nil
			}
			return store.Record{}, false, nil
		})
		if c.Err != nil {
			continue
		}
		if !b.Empty() {
			changed.batch(&b)
			for i := range b.Puts {
				t.rows[b.Puts[i].ID] = &b.Puts[i]
			}
			for _, id := range b.Deletes {
				t.rows[id] = nil
			}
			at = b.Revision
		}
		c.Revision = at
	}
	if at == before && !renewed {
		return nil // release ends the transaction, which wrote nothing
	}
	var b pgx.Batch
	if at > before {
		b.Queue(insertChanges, changed.all()...)
		b.Queue(fold, before)
	}
	// The log is cut now and then, by a bounded number of commits.
	if every := store.Revision(max(1, min(t.o.Keep/4, 256))); before/every != at/every && at > store.Revision(t.o.Keep) {
		b.Queue(compact, at-store.Revision(t.o.Keep), max(4*every, 2*(at-before)))
	}
	b.Queue("UPDATE atoll_store SET epoch = $1, revision = $2", epoch, at)
	b.Queue("SELECT pg_notify('"+channel+"', $1)", hint(epoch, at))
	var ended string
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error { ended = tag.String(); return nil })
	err := t.conn.SendBatch(ctx, &b).Close()
	switch {
	case err == nil && ended == "COMMIT":
		t.saw(mark{epoch: epoch, revision: at, committed: t.now})
		return nil
	case err == nil:
		return fmt.Errorf("the database answered COMMIT with %s", ended)
	case t.conn.Conn().IsClosed():
		return fmt.Errorf("it is not known whether the write was stored: %w", err)
	}
	return err
}

// release gives the connection back without a transaction.
func (t *transaction) release(ctx context.Context) {
	if c := t.conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		_, _ = c.Exec(ctx, "ROLLBACK") // a connection that cannot is closed by Release
	}
	t.conn.Release()
}

// hint is what a notification says: what the sender knew. A follower that has it
// need not look.
func hint(epoch string, at store.Revision) string { return fmt.Sprintf("%s/%d", epoch, at) }

func (m *mark) hinted(payload string) bool {
	epoch, at, _ := strings.Cut(payload, "/")
	var revision store.Revision
	_, err := fmt.Sscan(at, &revision)
	return err == nil && epoch == m.epoch && revision <= m.revision
}
