package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/postgres"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
	"github.com/atoll-mesh/atoll/api/store/storetest"
)

// shared is the server of the tests that leave it as it was. A database takes
// longer to make than a test takes, so that they are used again.
var shared struct {
	sync.Mutex
	server    *postgrestest.Server
	err       error
	databases int
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.Close()
		os.RemoveAll(shared.server.Dir)
	}
	os.Exit(code)
}

// server starts the shared server.
func server(t testing.TB) *postgrestest.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		dir, err := os.MkdirTemp("", "atoll-postgres-")
		if err != nil {
			t.Fatal(err)
		}
		if shared.server, shared.err = postgrestest.Open(dir); shared.err != nil {
			os.RemoveAll(dir)
		}
	}
	if errors.Is(shared.err, postgrestest.ErrNone) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// database is an empty database of the shared server.
func database(t testing.TB) postgres.Options {
	t.Helper()
	at := server(t)
	shared.Lock()
	defer shared.Unlock()
	admin := options(at, "postgres")
	if name := ask[string](t, admin, `SELECT coalesce(min(datname), '') FROM pg_database
		WHERE datname LIKE 'd%' AND datname NOT IN (SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL)`); name != "" {
		run(t, options(at, name), "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "GRANT USAGE ON SCHEMA public TO PUBLIC")
		return options(at, name)
	}
	shared.databases++
	name := fmt.Sprint("d", shared.databases)
	run(t, admin, "CREATE DATABASE "+name)
	return options(at, name)
}

func options(s *postgrestest.Server, database string) postgres.Options {
	return postgres.Options{Host: s.Dir, Port: s.Port, User: postgrestest.User, Database: database}
}

func connect(t testing.TB, o postgres.Options) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s database=%s sslmode=disable", o.Host, o.Port, postgrestest.User, o.Database))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func run(t testing.TB, o postgres.Options, statements ...string) {
	t.Helper()
	c := connect(t, o)
	defer c.Close(context.Background())
	for _, s := range statements {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// ask returns what a query of one value answers.
func ask[V any](t testing.TB, o postgres.Options, query string) (v V) {
	t.Helper()
	c := connect(t, o)
	defer c.Close(context.Background())
	if err := c.QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func open(t testing.TB, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// The second instance keeps a change log of two commits, which makes many
// batches a reset.
func TestStore(t *testing.T) {
	server(t) // its goroutine is none of the store's
	storetest.Run(t, func(t *testing.T) storetest.Database {
		long := database(t)
		short := long
		short.Keep = 2
		two := func(t *testing.T) []store.Store { return []store.Store{open(t, long), open(t, short)} }
		return storetest.Database{Instances: two(t), Reopen: two}
	})
}

func mesh(name, spec string) store.Op {
	return store.Op{Record: store.Record{ID: api.ID{Kind: "Mesh", Name: name}, Spec: []byte(spec)}}
}

func apply(t testing.TB, s store.Store, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := s.Apply(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// follower keeps what it is told, and checks that it is told it once and in
// order.
type follower struct {
	t      testing.TB
	next   func() (store.Batch, error, bool)
	at     store.Revision
	rows   map[string]string
	resets int
	order  []string // what each commit changed
}

func follow(t testing.TB, s store.Store) *follower {
	t.Helper()
	next, stop := iter.Pull2(s.Follow(t.Context()))
	t.Cleanup(stop)
	f := &follower{t: t, next: next}
	f.step()
	return f
}

func (f *follower) step() store.Batch {
	f.t.Helper()
	b, err, ok := f.next()
	if err != nil || !ok {
		f.t.Fatalf("the follower ended at %d: %v", f.at, err)
	}
	if b.Reset {
		f.rows, f.resets = map[string]string{}, f.resets+1
	} else if b.Revision != f.at+1 {
		f.t.Errorf("revision %d after %d", b.Revision, f.at)
	}
	f.at = b.Revision
	for _, r := range b.Puts {
		f.rows[r.Name] = string(r.Spec)
	}
	for _, id := range b.Deletes {
		delete(f.rows, id.Name)
	}
	f.order = append(f.order, fmt.Sprint(b.Revision, b.Reset, names(b)))
	return b
}

func names(b store.Batch) (out []string) {
	for _, r := range b.Puts {
		out = append(out, r.Name)
	}
	return out
}

func (f *follower) until(rev store.Revision) {
	f.t.Helper()
	for f.at < rev {
		f.step()
	}
}

// said collects what a store logs.
type said struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.more)
	s.more = make(chan struct{})
	return s.text.Write(b)
}

// wait returns when the text was logged.
func (s *said) wait(t testing.TB, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		had, more := strings.Contains(s.text.String(), text), s.more
		s.mu.Unlock()
		if had {
			return
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("not logged: %s", text)
		}
	}
}

func logTo(o *postgres.Options) *said {
	s := &said{more: make(chan struct{})}
	o.Log = slog.New(slog.NewTextHandler(s, nil))
	return s
}

// Writers of two instances: every follower sees the same commits in one order,
// and calls that wait share a transaction.
func TestTwoInstances(t *testing.T) {
	o := database(t)
	one, two := open(t, o), open(t, o)
	a, b := follow(t, one), follow(t, two)
	const writers, each = 6, 20
	var all sync.WaitGroup
	for w := range writers {
		s := []store.Store{one, two}[w%2]
		all.Go(func() {
			for i := range each {
				if _, err := s.Apply(t.Context(), []store.Op{mesh(fmt.Sprintf("m%d-%d", w, i), `{}`)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	a.until(writers * each)
	b.until(writers * each)
	if !slices.Equal(a.order, b.order) || len(a.order) != writers*each+1 {
		t.Errorf("%d and %d batches, or another order", len(a.order), len(b.order))
	}
	if n := one.Groups() + two.Groups(); n > writers*each {
		t.Errorf("%d transactions for %d calls", n, writers*each)
	}
	if n := ask[int](t, o, "SELECT max(revision) - count(*) FROM atoll_changes"); n != 0 {
		t.Errorf("%d revisions are missing", n)
	}
}

// A follower whose connection is cut resumes at its revision.
func TestCutConnections(t *testing.T) {
	o := database(t)
	s := open(t, o)
	logged := logTo(&o)
	other := open(t, o)
	f := follow(t, other)
	for i := range 5 {
		f.until(apply(t, s, mesh(fmt.Sprint("a", i), `{}`)))
		cut(t, o)
		rev := apply(t, s, mesh(fmt.Sprint("b", i), `{}`), mesh("a0", fmt.Sprint(i))) // over a dead connection of the pool
		f.until(rev)
	}
	logged.wait(t, "the store is followed again")
	if f.resets != 1 || len(f.order) != 11 || f.rows["a0"] != "4" {
		t.Errorf("%d resets, batches %v", f.resets, f.order)
	}
}

func cut(t testing.TB, o postgres.Options) {
	t.Helper()
	run(t, o, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
}

// silence makes a database that loses all notifications.
func silence(t testing.TB, o postgres.Options) {
	t.Helper()
	run(t, o, "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''",
		"ALTER DATABASE "+o.Database+" SET search_path = public, pg_catalog")
	t.Cleanup(func() {
		if err := server(t).Exec(context.Background(), o.Database, "ALTER DATABASE "+o.Database+" RESET search_path"); err != nil {
			t.Error(err)
		}
	})
}

func TestLostNotifications(t *testing.T) {
	o := database(t)
	silence(t, o)
	o.Poll = 20 * time.Millisecond
	s := open(t, o)
	f := follow(t, s)
	for i := range 5 {
		f.until(apply(t, s, mesh(fmt.Sprint("m", i), `{}`)))
	}
	if f.resets != 1 || len(f.order) != 6 {
		t.Errorf("batches %v", f.order)
	}
}

// The log is cut while a follower is far behind: it begins anew, and then goes
// on commit by commit.
func TestCompaction(t *testing.T) {
	o := database(t)
	o.Keep = 20
	s := open(t, o)
	slow := follow(t, s)
	var rev store.Revision
	for i := range 200 {
		rev = apply(t, s, mesh(fmt.Sprint("m", i%7), fmt.Sprint(i)))
	}
	if n := ask[int](t, o, "SELECT count(*) FROM atoll_changes"); n < 20 || n > 30 {
		t.Errorf("%d changes are kept", n)
	}
	slow.until(rev)
	if slow.resets != 2 || len(slow.rows) != 7 || slow.rows["m3"] != "199" {
		t.Errorf("%d resets, rows %v", slow.resets, slow.rows)
	}
	slow.until(apply(t, s, mesh("last", `{}`)))
	if slow.resets != 2 {
		t.Error("a follower that caught up is reset again")
	}
	// A log that has grown under a larger limit is cut bit by bit.
	o.Keep = 1_000_000
	larger := open(t, o)
	ops := make([]store.Op, 300)
	for i := range ops {
		ops[i] = mesh(fmt.Sprint("m", i%7), fmt.Sprint("x", i))
		apply(t, larger, ops[i])
	}
	o.Keep = 20
	smaller := open(t, o)
	for i := range 100 {
		apply(t, smaller, mesh("m", fmt.Sprint(i)))
	}
	if n := ask[int](t, o, "SELECT count(*) FROM atoll_changes"); n > 30 {
		t.Errorf("%d changes are kept in the end", n)
	}
}

func TestInvalidTextsDoNotHarmOthers(t *testing.T) {
	s := open(t, database(t))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			op := mesh(fmt.Sprint("m", i), `{}`)
			if i%2 == 0 {
				op.Record.Name = "\xff"
			}
			if _, err := s.Apply(t.Context(), []store.Op{op}); errors.Is(err, store.ErrInvalid) != (i%2 == 0) || err != nil && i%2 == 1 {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestDamagedRecord(t *testing.T) {
	o := database(t)
	s := open(t, o)
	apply(t, s, mesh("a", `{}`))
	run(t, o, "UPDATE atoll_rows SET created = 'soon'")
	var corrupt *store.Corrupt
	for _, err := range s.Follow(t.Context()) {
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "Mesh") {
			t.Errorf("followed: %v", err)
		}
	}
	if _, err := s.Apply(t.Context(), []store.Op{mesh("a", `{"v":1}`)}); !errors.As(err, &corrupt) {
		t.Errorf("applied: %v", err)
	}
}
