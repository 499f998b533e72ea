package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/postgres"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
)

// The server is killed under writes, again and again: what was acknowledged is
// there, once, and the follower is told every commit once.
func TestKilled(t *testing.T) {
	at := postgrestest.Start(t)
	o := options(at, "postgres")
	stores := []*postgres.Store{open(t, o), open(t, o)}
	f := follow(t, stores[0])
	const writers, kills, between = 4, 3, 40
	acked := make(chan struct{})
	stop := make(chan struct{})
	revisions := make([]map[string]store.Revision, writers)
	var all sync.WaitGroup
	for w := range writers {
		revisions[w] = map[string]store.Revision{}
		all.Go(func() {
			for i := 0; ; i++ {
				op := mesh(fmt.Sprintf("m%d-%d", w, i), `{}`)
				op.Expect = store.Absent
				rev, err := stores[w%2].Apply(t.Context(), []store.Op{op})
				if err != nil && !errors.Is(err, store.ErrUnavailable) {
					t.Error(err)
					return
				}
				if err == nil {
					revisions[w][op.Record.Name] = rev
				}
				select {
				case acked <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for range kills {
		for range between {
			<-acked
		}
		at.Kill()
		if err := at.Start(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	f.until(apply(t, stores[1], mesh("last", `{}`)))
	seen := map[string]store.Revision{}
	for _, line := range f.order {
		var rev store.Revision
		var reset bool
		var name string
		if _, err := fmt.Sscanf(line, "%d %t [%s", &rev, &reset, &name); err != nil {
			continue // the first reset, which is empty
		}
		name = strings.TrimSuffix(name, "]")
		if seen[name] != 0 {
			t.Errorf("%s was applied at %d and at %d", name, seen[name], rev)
		}
		seen[name] = rev
	}
	n := 0
	for w := range revisions {
		for name, rev := range revisions[w] {
			n++
			if seen[name] != rev {
				t.Errorf("%s was acknowledged at %d and is at %d", name, rev, seen[name])
			}
		}
	}
	if n == 0 || f.resets != 1 {
		t.Errorf("%d writes acknowledged, %d resets", n, f.resets)
	}
}

func TestAway(t *testing.T) {
	at := postgrestest.Start(t)
	o := options(at, "postgres")
	o.TransactionTimeout, o.ConnectTimeout = 500*time.Millisecond, 500*time.Millisecond
	logged := logTo(&o)
	s := open(t, o)
	f := follow(t, s)
	f.until(apply(t, s, mesh("a", `{}`)))

	at.Stop()
	if _, err := s.Apply(t.Context(), []store.Op{mesh("b", `{}`)}); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), o.Host) {
		t.Errorf("written to a server that is not there: %v", err)
	}
	if _, err := postgres.Open(t.Context(), o); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), o.Host) {
		t.Errorf("opened without a server: %v", err)
	}
	next := make(chan error, 1)
	go func() {
		b, err, _ := f.next()
		if f.at = b.Revision; b.Reset {
			err = errors.New("a reset")
		}
		next <- err
	}()
	logged.wait(t, "cannot be followed")
	if err := at.Start(); err != nil {
		t.Fatal(err)
	}
	if rev := apply(t, s, mesh("b", `{}`)); <-next != nil || f.at != rev {
		t.Errorf("the follower was given revision %d, not %d", f.at, rev)
	}

	at.Freeze()
	_, err := s.Apply(t.Context(), []store.Op{mesh("c", `{}`)})
	at.Thaw()
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("written to a server that hangs: %v", err)
	}
	f.until(apply(t, s, mesh("d", `{}`)))
	if f.resets != 1 {
		t.Errorf("%d resets, batches %v", f.resets, f.order)
	}
}

func TestAnotherWriterHoldsTheLock(t *testing.T) {
	o := database(t)
	o.TransactionTimeout = 200 * time.Millisecond
	s := open(t, o)
	c := connect(t, o)
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "SELECT pg_advisory_lock(x'61746f6c6c'::bigint)"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), []store.Op{mesh("a", `{}`)}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Exec(t.Context(), "SELECT pg_advisory_unlock(x'61746f6c6c'::bigint)"); err != nil {
		t.Fatal(err)
	}
	apply(t, s, mesh("a", `{}`))
}

// An older state is put back under running instances: both see a new epoch and
// what is there, and no revision that they know is used again.
func TestRestoredWhileRunning(t *testing.T) {
	for name, afterwards := range map[string]func(t *testing.T, one, two *postgres.Store){
		"and found by a follower": func(*testing.T, *postgres.Store, *postgres.Store) {},
		"and found by a writer": func(t *testing.T, one, _ *postgres.Store) {
			apply(t, one, mesh("new", `{}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := database(t)
			o.Poll = 20 * time.Millisecond
			one, two := open(t, o), open(t, o)
			a, b := follow(t, one), follow(t, two)
			apply(t, one, mesh("old", `{}`))
			run(t, o, "CREATE TABLE s AS TABLE atoll_store", "CREATE TABLE r AS TABLE atoll_rows", "CREATE TABLE c AS TABLE atoll_changes")
			var rev store.Revision
			for i := range 5 {
				rev = apply(t, two, mesh(fmt.Sprint("lost", i), `{}`))
			}
			a.until(rev)
			b.until(rev)
			epoch := one.Epoch()
			run(t, o, `BEGIN; TRUNCATE atoll_store, atoll_rows, atoll_changes; INSERT INTO atoll_store TABLE s;
				INSERT INTO atoll_rows TABLE r; INSERT INTO atoll_changes TABLE c; COMMIT`)
			afterwards(t, one, two)
			for _, f := range []*follower{a, b} {
				for f.resets < 2 {
					f.step()
				}
				if f.rows["old"] == "" || f.rows["lost1"] != "" {
					t.Errorf("rows %v", f.rows)
				}
			}
			if one.Epoch() == epoch || one.Epoch() != two.Epoch() {
				t.Errorf("epochs %q and %q after %q", one.Epoch(), two.Epoch(), epoch)
			}
			next := apply(t, two, mesh("next", `{}`))
			if next <= rev {
				t.Errorf("revision %d is used again, %d was known", next, rev)
			}
			a.until(next)
			b.until(next)
		})
	}
}

// The same revision again with another commit is another history.
func TestRestoredAndOvertaken(t *testing.T) {
	o := database(t)
	o.Poll = 20 * time.Millisecond
	s := open(t, o)
	f := follow(t, s)
	f.until(apply(t, s, mesh("a", `{}`)))
	run(t, o, `UPDATE atoll_changes SET committed = committed - interval '1 hour'`, `SELECT pg_notify('atoll', '')`)
	for f.resets < 2 {
		f.step()
	}
}

func TestRestoredFromADump(t *testing.T) {
	o := database(t)
	s := open(t, o)
	rev := apply(t, s, mesh("a", `{}`))
	epoch := s.Epoch()
	s.Close()
	run(t, o, "ALTER TABLE atoll_store RENAME TO dumped", "CREATE TABLE atoll_store (LIKE dumped INCLUDING ALL)", "INSERT INTO atoll_store TABLE dumped", "DROP TABLE dumped")
	s = open(t, o)
	if f := follow(t, s); s.Epoch() == epoch || f.at != rev || len(f.rows) != 1 {
		t.Errorf("epoch %q as before, or other rows: %v at %d", s.Epoch(), f.rows, f.at)
	}
	epoch = s.Epoch()
	if _, err := postgres.Migrate(t.Context(), o, true); err != nil {
		t.Fatal(err)
	}
	if open(t, o).Epoch() == epoch {
		t.Error("no new epoch was begun")
	}
}
