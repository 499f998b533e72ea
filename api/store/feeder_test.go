package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is a control plane as far as its store goes.
type instance struct {
	*store.Feeder
	db      *db.DB
	log     *bytes.Buffer
	commits *[]db.Commit
	stop    func() error
}

func start(t *testing.T, s store.Store) instance {
	t.Helper()
	return startOn(t, s, db.New(api.Schema))
}

func startOn(t *testing.T, s store.Store, d *db.DB) instance {
	t.Helper()
	i := instance{db: d, log: &bytes.Buffer{}, commits: new([]db.Commit)}
	i.Feeder = store.NewFeeder(s, d, api.Site{Zone: "east"}, slog.New(slog.NewTextHandler(i.log, nil)))
	unsubscribe := d.OnCommit(func(c db.Commit) { *i.commits = append(*i.commits, c) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	stopped := false
	i.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		unsubscribe()
		return <-ended
	}
	t.Cleanup(func() { i.stop() }) //nolint:errcheck // judged where it matters
	<-i.Ready()
	return i
}

func record(kind, name, spec string) store.Record {
	return store.Record{
		ID: api.ID{Kind: kind, Mesh: "default", Name: name}, Labels: map[string]string{"app": name},
		Created: time.Unix(1, 0), Modified: time.Unix(2, 0), Spec: []byte(spec),
	}
}

const timeouts = `{"to":[{"targetRef":{"kind":"Mesh"},"default":{"connectionTimeout":"7s"}}]}`

func put(r store.Record) store.Op { return store.Op{Record: r} }

func write(t *testing.T, i instance, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := i.Apply(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestReadYourWrites(t *testing.T) {
	s := memory.New()
	one, two := start(t, s.Open()), start(t, s.Open())
	r := record("MeshTimeout", "a", timeouts)
	r.Source, r.Owner = "west", "somebody"
	r.Zone = "west"
	rev := write(t, one, put(r))
	row, ok := api.MeshTimeouts.Get(one.db.Snapshot(), r.ID)
	if !ok {
		t.Fatal("the row is not in the database")
	}
	if row.Core != api.SyncName(api.MeshTimeouts, r.ID) || row.Revision != uint64(rev) || row.Spec.To[0].Default.ConnectionTimeout == nil {
		t.Errorf("row: %+v", row)
	}
	back := store.RecordOf(row)
	if !back.Equal(&r) || !back.Created.Equal(r.Created) || !back.Modified.Equal(r.Modified) || back.Revision != rev {
		t.Errorf("record of the row: %+v", back)
	}
	if err := two.Wait(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	if _, ok := api.MeshTimeouts.Get(two.db.Snapshot(), r.ID); !ok {
		t.Error("the row is not in the other instance")
	}
	write(t, two, store.Op{Record: store.Record{ID: r.ID}, Delete: true, Expect: store.At(rev)})
	if _, ok := api.MeshTimeouts.Get(two.db.Snapshot(), r.ID); ok {
		t.Error("the row is still there")
	}
}

// One batch is one commit of the database, and the same record again is none.
func TestCost(t *testing.T) {
	i := start(t, memory.New().Open())
	a, b := record("MeshTimeout", "a", timeouts), record("MeshTimeout", "b", timeouts)
	if n := len(*i.commits); n != 1 || len((*i.commits)[0].Changes) != 1 {
		t.Fatalf("an empty store: %d commits, want one with its revision", n)
	}
	write(t, i, put(a), put(b))
	if n := len(*i.commits); n != 2 || len((*i.commits)[1].Changes) != 3 {
		t.Fatalf("%d commits, want a second with both rows and the revision", n)
	}
	write(t, i, put(a), put(b))
	if n := len(*i.commits); n != 2 {
		t.Errorf("the same records again: %d commits", n)
	}
}

// A follower that begins anew finds the database as it left it, and changes
// only what differs.
func TestResetIsADifference(t *testing.T) {
	s := memory.New()
	first := start(t, s.Open())
	write(t, first, put(record("MeshTimeout", "stays", " "+timeouts)), put(record("MeshTimeout", "goes", timeouts)), put(record("MeshTimeout", "changes", timeouts)))
	write(t, first, put(record("MeshTimeout", "odd", `{"to":5}`)))
	first.stop() //nolint:errcheck // the context's
	again := startOn(t, s.Open(), first.db)
	if n := len(*again.commits); n != 0 {
		t.Fatalf("following anew what is the same made %d commits", n)
	}
	if len(again.Conditions()) != 1 {
		t.Errorf("conditions: %v", again.Conditions())
	}
	again.stop() //nolint:errcheck // the context's
	changed := record("MeshTimeout", "changes", strings.Replace(timeouts, "7s", "8s", 1))
	if _, err := s.Open().Apply(t.Context(), []store.Op{put(changed), {Record: record("MeshTimeout", "goes", ""), Delete: true}}); err != nil {
		t.Fatal(err)
	}
	third := startOn(t, s.Open(), first.db)
	if n := len(*third.commits); n != 1 || len((*third.commits)[0].Changes) != 3 {
		t.Errorf("commits: %+v", *third.commits)
	}
	if _, ok := api.MeshTimeouts.Get(first.db.Snapshot(), record("MeshTimeout", "stays", "").ID); !ok {
		t.Error("a row that is stored was removed")
	}
}

func TestNotUnderstood(t *testing.T) {
	i := start(t, memory.New().Open())
	const permission = `{"rules":[{"default":{"allow":[{"spiffeID":{"type":"Prefix","value":"spiffe://x/y"}}]}}]}`
	good := record("MeshTimeout", "a", timeouts)
	guard := record("MeshTrafficPermission", "p", permission)
	write(t, i, put(good), put(guard))
	if c := i.Conditions(); len(c) != 0 {
		t.Fatalf("conditions of good records: %+v", c)
	}

	unknown, bad, half := good, good, guard
	unknown.Spec = []byte(strings.Replace(timeouts, `{"to"`, `{"newer":1,"to"`, 1))
	write(t, i, put(unknown))
	row, _ := api.MeshTimeouts.Get(i.db.Snapshot(), good.ID)
	if f := i.Unknown(good.ID); len(f) != 1 || !strings.Contains(f[0], "newer") || !strings.Contains(string(row.Written), "newer") {
		t.Errorf("unknown %v, written %s", f, row.Written)
	}

	// What cannot be read leaves the last good row, and does not stop the others.
	bad.Spec = []byte(`{"to":"everything"}`)
	half.Spec = []byte(strings.Replace(permission, `{"rules"`, `{"newer":1,"rules"`, 1))
	odd := record("FromTheFuture", "f", `{}`)
	other := record("MeshTimeout", "other", timeouts)
	rev := write(t, i, put(bad), put(half), put(odd), put(other), put(record("MeshTrafficPermission", "fresh", string(half.Spec))))
	snap := i.db.Snapshot()
	if kept, ok := api.MeshTimeouts.Get(snap, good.ID); !ok || kept != row {
		t.Errorf("the last good row: %v", kept)
	}
	if kept, ok := api.MeshTrafficPermissions.Get(snap, guard.ID); !ok || string(kept.Written) != permission {
		t.Errorf("the last good permission: %v", kept)
	}
	if half, ok := api.MeshTrafficPermissions.Named(snap, "default", "fresh"); ok {
		t.Errorf("half a permission is acted upon: %v", half)
	}
	if _, ok := api.MeshTimeouts.Get(snap, other.ID); !ok {
		t.Error("a good record is missing")
	}
	var got []string
	for _, c := range i.Conditions() {
		got = append(got, fmt.Sprintf("%s %v", c.ID.Name, errors.Is(c.Err, store.ErrFieldsNotUnderstood)))
		if c.Err == nil || c.Revision != rev {
			t.Errorf("condition: %+v", c)
		}
	}
	if want := "[f false a false fresh true p true]"; fmt.Sprint(got) != want {
		t.Errorf("conditions %v, want %s", got, want)
	}
	i.stop() //nolint:errcheck // the context's; the log is at rest now
	if n := strings.Count(i.log.String(), "\n"); n != 5 {
		t.Errorf("%d lines in the log:\n%s", n, i.log)
	}
}

func TestConditionEnds(t *testing.T) {
	i := start(t, memory.New().Open())
	bad := record("MeshTimeout", "a", `{"to":"everything"}`)
	write(t, i, put(bad), put(record("MeshTimeout", "b", string(bad.Spec))))
	good := bad
	good.Spec = []byte(timeouts)
	write(t, i, put(good), store.Op{Record: record("MeshTimeout", "b", ""), Delete: true})
	if c := i.Conditions(); len(c) != 0 {
		t.Errorf("conditions: %+v", c)
	}
}

// Each waiter wakes with its own revision and not before.
func TestWaitWakesExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		h := s.Open()
		i := start(t, h)
		woken := map[store.Revision]bool{}
		results := make(chan store.Revision)
		for _, rev := range []store.Revision{3, 1, 2, 3} {
			go func() {
				if err := i.Wait(t.Context(), rev); err != nil {
					t.Error(err)
				}
				results <- rev
			}()
		}
		for at := store.Revision(1); at <= 3; at++ {
			synctest.Wait()
			if _, err := h.Apply(t.Context(), []store.Op{put(record("MeshTimeout", fmt.Sprint("r", at), timeouts))}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for n := 1 + int(at)/3; n > 0; n-- {
				if rev := <-results; rev != at {
					t.Errorf("at %d the waiter of %d woke", at, rev)
				}
				woken[at] = true
			}
			select {
			case rev := <-results:
				t.Errorf("at %d the waiter of %d woke too", at, rev)
			default:
			}
		}
		if len(woken) != 3 {
			t.Errorf("woken: %v", woken)
		}
		if err := i.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memory.New().Open()
		i := start(t, h)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := i.Wait(ctx, 7); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a revision that never comes: %v", err)
		}
		waits := make(chan error)
		go func() { waits <- i.Wait(t.Context(), 7) }()
		synctest.Wait()
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waits; !errors.Is(err, store.ErrClosed) {
			t.Errorf("a store that is closed: %v", err)
		}
		if err := i.Wait(t.Context(), 7); !errors.Is(err, store.ErrClosed) {
			t.Errorf("after it was closed: %v", err)
		}
		if err := i.stop(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("run: %v", err)
		}
	})
}
