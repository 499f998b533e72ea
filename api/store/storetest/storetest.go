// Package storetest is the suite that every store passes.
//
// It owns what "a store" means beyond the types: [Run] checks that a store does
// what [store.Store] says, and what the store itself states in its Guarantees.
// The tests of the stores call it; nothing else does.
//
// # Why
//
// A control plane must not know which store it runs on. Each property here is
// one that some caller relies on; a store that cannot give one states less, and
// is tested for that.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// Database is a new, empty database.
type Database struct {
	// Instances are handles on it, at least one. A store that several processes
	// can share gives two.
	Instances []store.Store
	// Reopen returns new handles after all others were closed.
	Reopen func(t *testing.T) []store.Store
}

// patience is how long a store may take for what should take milliseconds.
const patience = time.Minute

// Run runs the suite. open is called once or more per test; the suite closes
// the instances.
func Run(t *testing.T, open func(t *testing.T) Database) {
	for _, c := range []struct {
		name string
		f    func(*suite)
	}{
		{"a new store is empty", empty},
		{"every field survives", fields},
		{"expectations", expectations},
		{"a batch is all or nothing", atomic},
		{"one commit is one batch", oneBatch},
		{"nothing new is no commit", nothingNew},
		{"created is kept", created},
		{"deleted and made again", recreated},
		{"what no store can take", invalid},
		{"followers from the start and midway", midway},
		{"a slow follower blocks nobody", slow},
		{"writers at the same time", concurrent},
		{"compare and swap counts", counter},
		{"reopened", reopened},
		{"epochs", epochs},
		{"many records", many},
		{"the context ends a follower", cancelled},
		{"the context ends a write", cancelledApply},
		{"closing", closing},
		{"like a map", model},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			s := &suite{T: t, ctx: ctx, open: open}
			s.fresh()
			c.f(s)
		})
	}
}

type suite struct {
	*testing.T
	ctx  context.Context
	open func(t *testing.T) Database
	db   Database
}

// fresh opens a new database; the one before stays open.
func (s *suite) fresh() Database {
	s.Helper()
	s.db = s.open(s.T)
	s.closeLater(s.db.Instances)
	return s.db
}

func (s *suite) closeLater(instances []store.Store) {
	s.Cleanup(func() {
		for _, i := range instances {
			if err := i.Close(); err != nil {
				s.Errorf("close: %v", err)
			}
		}
	})
}

// at is one of the instances, whichever i is.
func (s *suite) at(i int) store.Store { return s.db.Instances[i%len(s.db.Instances)] }

func (s *suite) reopen() {
	s.Helper()
	for _, i := range s.db.Instances {
		if err := i.Close(); err != nil {
			s.Fatalf("close: %v", err)
		}
	}
	s.db.Instances = s.db.Reopen(s.T)
	s.closeLater(s.db.Instances)
}

func (s *suite) apply(i int, ops ...store.Op) store.Revision {
	s.Helper()
	rev, err := s.at(i).Apply(s.ctx, ops)
	if err != nil {
		s.Fatalf("apply: %v", err)
	}
	return rev
}

// now is any time; stores have no clock.
func now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC) }

func record(kind, name, spec string) store.Record {
	return store.Record{
		ID: api.ID{Kind: kind, Mesh: "default", Name: name}, Labels: map[string]string{"app": name},
		Created: now(), Modified: now(), Spec: []byte(spec),
	}
}

func put(r store.Record, e store.Expect) store.Op { return store.Op{Record: r, Expect: e} }

func remove(id api.ID, e store.Expect) store.Op {
	return store.Op{Record: store.Record{ID: id}, Delete: true, Expect: e}
}

// follower plays the part of a feeder: it keeps the state that the batches
// give, and what that state was at each revision.
type follower struct {
	s       *suite
	next    func() (store.Batch, error, bool)
	rows    map[api.ID]store.Record
	at      store.Revision
	batches []store.Batch
	// history is a digest of rows at each revision that was seen.
	history map[store.Revision]string
}

// follow begins to follow and takes the first batch.
func (s *suite) follow(i int) *follower {
	s.Helper()
	next, stop := iter.Pull2(s.at(i).Follow(s.ctx))
	s.Cleanup(stop)
	f := &follower{s: s, next: next, rows: map[api.ID]store.Record{}, history: map[store.Revision]string{}}
	if b := f.step(); !b.Reset {
		s.Fatal("the first batch is no reset")
	}
	return f
}

func (f *follower) step() store.Batch {
	f.s.Helper()
	b, err, ok := f.next()
	if err != nil || !ok {
		f.s.Fatalf("follow ended at revision %d: %v", f.at, err)
	}
	f.batches = append(f.batches, b)
	if b.Reset {
		clear(f.rows)
		if !slices.IsSortedFunc(b.Puts, store.ByID) || len(b.Deletes) > 0 {
			f.s.Error("a reset is not ordered by ID, or deletes")
		}
	} else if b.Revision <= f.at {
		f.s.Errorf("revision %d after %d", b.Revision, f.at)
	}
	for _, id := range b.Deletes {
		if _, ok := f.rows[id]; !ok {
			f.s.Errorf("revision %d deletes %s, which is not there", b.Revision, id)
		}
		delete(f.rows, id)
	}
	for _, r := range b.Puts {
		if r.Revision > b.Revision || !b.Reset && f.s.atomic() && r.Revision != b.Revision {
			f.s.Errorf("%s has revision %d in the batch of %d", r.ID, r.Revision, b.Revision)
		}
		f.rows[r.ID] = r
	}
	f.at = b.Revision
	f.history[b.Revision] = digest(f.rows)
	return b
}

// until takes batches until the follower has the revision.
func (f *follower) until(rev store.Revision) {
	f.s.Helper()
	for f.at < rev {
		f.step()
	}
}

func (s *suite) atomic() bool { return s.at(0).Guarantees().Atomic == store.BatchAtomic }

func (s *suite) needAtomic() {
	s.Helper()
	if !s.atomic() {
		s.Skip("the store does not state it")
	}
}

func digest(rows map[api.ID]store.Record) string {
	var b bytes.Buffer
	for _, r := range slices.SortedFunc(maps.Values(rows), store.ByID) {
		fmt.Fprintf(&b, "%s %d %s\n", r.ID, r.Revision, r.Spec)
	}
	return b.String()
}

// agree checks that the followers end equal and, if the store orders all
// commits, were equal at every revision that they both saw.
func (s *suite) agree(followers ...*follower) {
	s.Helper()
	first := followers[0]
	for i, f := range followers[1:] {
		if digest(first.rows) != digest(f.rows) {
			s.Errorf("followers 0 and %d end differently", i+1)
		}
		if s.at(0).Guarantees().Order != store.GlobalOrder {
			continue
		}
		for rev, state := range f.history {
			if other, ok := first.history[rev]; ok && other != state {
				s.Errorf("followers 0 and %d differ at revision %d:\n%s---\n%s", i+1, rev, other, state)
			}
		}
	}
}

func (s *suite) same(got, want store.Record) {
	s.Helper()
	if !got.Equal(&want) || !got.Created.Equal(want.Created) || !got.Modified.Equal(want.Modified) || got.Revision != want.Revision {
		s.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func (s *suite) fails(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got %v, want %v", err, want)
	}
}
