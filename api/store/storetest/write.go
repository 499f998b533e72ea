package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

func empty(s *suite) {
	if f := s.follow(0); len(f.rows) != 0 {
		s.Errorf("rows in a new store: %v", f.rows)
	}
}

func fields(s *suite) {
	want := store.Record{
		ID:      api.ID{Kind: "MeshTimeout", Mesh: "m", Zone: "z", Namespace: "ns", Name: "n"},
		Labels:  map[string]string{"a": "b", "kuma.io/zone": "z", "empty": ""},
		Created: now(), Modified: now().Add(time.Nanosecond).In(time.FixedZone("far", 7*3600)),
		Source: api.Global, Owner: "somebody",
		Spec: []byte("{ \"b\":  \"<&>\u2028é\",\n\t\"a\": 1e3, \"a\": 10000000000000000000000001 }"),
	}
	bare := store.Record{ID: api.ID{Kind: "Mesh", Name: "bare"}}
	want.Revision = s.apply(0, put(want, store.Absent))
	bare.Revision = s.apply(0, put(bare, store.Absent))
	for range 2 {
		f := s.follow(1)
		f.until(bare.Revision)
		s.same(f.rows[want.ID], want)
		s.same(f.rows[bare.ID], bare)
		if string(f.rows[want.ID].Spec) != string(want.Spec) {
			s.Errorf("the spec is not as written: %s", f.rows[want.ID].Spec)
		}
		if s.db.Reopen == nil {
			return
		}
		s.reopen()
	}
}

func expectations(s *suite) {
	a := record("MeshTimeout", "a", `{"v":1}`)
	first := s.apply(0, put(a, store.Absent))
	a.Spec = []byte(`{"v":2}`)
	second := s.apply(1, put(a, store.At(first)))
	if second <= first {
		s.Errorf("revision %d after %d", second, first)
	}
	none := api.ID{Kind: "MeshTimeout", Mesh: "default", Name: "none"}
	other := store.Record{ID: none, Spec: []byte(`{}`)}
	for _, c := range []struct {
		what  string
		op    store.Op
		want  error
		found store.Revision
	}{
		{"absent, but there", put(a, store.Absent), store.ErrConflict, second},
		{"older revision", put(a, store.At(first)), store.ErrConflict, second},
		{"newer revision", put(a, store.At(second+1)), store.ErrConflict, second},
		{"revision of nothing", put(other, store.At(second)), store.ErrConflict, 0},
		{"revision 0", put(other, store.At(0)), store.ErrConflict, 0},
		{"delete an older revision", remove(a.ID, store.At(first)), store.ErrConflict, second},
		{"delete what should be absent", remove(a.ID, store.Absent), store.ErrConflict, second},
		{"delete a revision of nothing", remove(none, store.At(second)), store.ErrNotFound, 0},
	} {
		_, err := s.at(0).Apply(s.ctx, []store.Op{c.op})
		if !errors.Is(err, c.want) {
			s.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
		if !strings.Contains(fmt.Sprint(err), c.op.Record.Name) {
			s.Errorf("%s: the error does not name the record: %v", c.what, err)
		}
		var conflict *store.Conflict
		if errors.As(err, &conflict) && (conflict.ID != c.op.Record.ID || conflict.Found != c.found || conflict.Expected != c.op.Expect) {
			s.Errorf("%s: %+v", c.what, conflict)
		}
	}
	a.Spec = []byte(`{"v":3}`)
	s.apply(0, put(a, store.Any))
	last := s.apply(0, remove(a.ID, store.Any))
	f := s.follow(0)
	f.until(last)
	if len(f.rows) != 0 {
		s.Errorf("left: %v", f.rows)
	}
}

func atomic(s *suite) {
	s.needAtomic()
	a, b := record("Mesh", "a", `{}`), record("MeshTimeout", "b", `{}`)
	rev := s.apply(0, put(a, store.Absent))
	_, err := s.at(0).Apply(s.ctx, []store.Op{put(b, store.Absent), remove(a.ID, store.Any), put(record("Mesh", "c", `{}`), store.At(rev))})
	s.fails(err, store.ErrConflict)
	f := s.follow(0)
	if len(f.rows) != 1 || f.at != rev {
		s.Errorf("a batch that failed left %v at %d", f.rows, f.at)
	}
}

func oneBatch(s *suite) {
	s.needAtomic()
	a, b, c := record("Mesh", "a", `{}`), record("MeshTimeout", "b", `{}`), record("Zone", "c", `{}`)
	f := s.follow(1)
	s.apply(0, put(a, store.Any), put(b, store.Any))
	rev := s.apply(0, remove(a.ID, store.Any), put(c, store.Any))
	f.until(rev)
	last := f.batches[len(f.batches)-1]
	if len(f.batches) != 3 || len(last.Puts) != 1 || len(last.Deletes) != 1 || last.Deletes[0] != a.ID || last.Puts[0].ID != c.ID {
		s.Errorf("batches: %+v", f.batches)
	}
}

func nothingNew(s *suite) {
	a := record("Mesh", "a", `{"x":1}`)
	rev := s.apply(0, put(a, store.Absent))
	a.Modified = a.Modified.Add(time.Hour)
	for _, op := range []store.Op{
		put(a, store.Any), put(a, store.At(rev)), remove(api.ID{Kind: "Mesh", Name: "none"}, store.Any),
		remove(api.ID{Kind: "Never", Name: "seen"}, store.Absent),
	} {
		if got := s.apply(1, op); got != rev {
			s.Errorf("revision %d, want %d as before", got, rev)
		}
	}
	if got := s.apply(0); got != rev {
		s.Errorf("no operations: revision %d, want %d", got, rev)
	}
	_, err := s.at(0).Apply(s.ctx, []store.Op{put(a, store.Absent)})
	s.fails(err, store.ErrConflict)
	for i, change := range []func(*store.Record){
		func(r *store.Record) { r.Spec = []byte(`{"x": 1}`) },
		func(r *store.Record) { r.Labels = map[string]string{"app": "b"} },
		func(r *store.Record) { r.Labels = nil },
		func(r *store.Record) { r.Source = "east" },
		func(r *store.Record) { r.Owner = "proxy" },
	} {
		change(&a)
		next := s.apply(0, put(a, store.At(rev)))
		if next <= rev {
			s.Errorf("change %d made no commit", i)
		}
		rev = next
	}
}

func created(s *suite) {
	a := record("Mesh", "a", `{"v":1}`)
	s.apply(0, put(a, store.Absent))
	want := a
	want.Spec, want.Modified = []byte(`{"v":2}`), now().Add(time.Hour)
	next := want
	next.Created = time.Time{}
	want.Revision = s.apply(0, put(next, store.Any))
	f := s.follow(0)
	f.until(want.Revision)
	s.same(f.rows[a.ID], want)
}

func recreated(s *suite) {
	a := record("Mesh", "a", `{}`)
	f := s.follow(1)
	first := s.apply(0, put(a, store.Absent))
	s.apply(0, remove(a.ID, store.At(first)))
	third := s.apply(1, put(a, store.Absent))
	_, err := s.at(0).Apply(s.ctx, []store.Op{put(record("Mesh", "a", `{"v":2}`), store.At(first))})
	s.fails(err, store.ErrConflict)
	f.until(third)
	a.Revision = third
	s.same(f.rows[a.ID], a)
}

func invalid(s *suite) {
	ok := record("Mesh", "ok", `{}`)
	long := record("Mesh", strings.Repeat("x", store.MaxID-len("Mesh")-len("default")+1), `{}`)
	for _, ops := range [][]store.Op{
		{put(ok, store.Any), put(store.Record{ID: api.ID{Kind: "Mesh"}}, store.Any)},
		{put(ok, store.Any), put(store.Record{ID: api.ID{Name: "a"}}, store.Any)},
		{put(ok, store.Any), put(record("Mesh", "a\x00b", `{}`), store.Any)},
		{put(ok, store.Any), put(record("Mesh", "a\xffb", `{}`), store.Any)},
		{put(ok, store.Any), put(store.Record{ID: api.ID{Kind: "Mesh", Name: "a"}, Owner: "a\xff"}, store.Any)},
		{put(ok, store.Any), put(store.Record{ID: api.ID{Kind: "Mesh", Name: "a"}, Source: "a\x00"}, store.Any)},
		{put(ok, store.Any), put(store.Record{ID: api.ID{Kind: "Mesh", Name: "a"}, Labels: map[string]string{"a": "\xff"}}, store.Any)},
		{put(ok, store.Any), put(ok, store.Any)},
		{put(ok, store.Any), put(long, store.Any)},
	} {
		_, err := s.at(0).Apply(s.ctx, ops)
		s.fails(err, store.ErrInvalid)
	}
	if f := s.follow(0); s.atomic() && len(f.rows) != 0 {
		s.Errorf("stored: %v", f.rows)
	}
	long.Name = incompressible(len(long.Name) - 1)
	s.apply(0, put(long, store.Absent)) // what is just allowed is kept
	if f := s.follow(0); len(f.rows[long.ID].Spec) == 0 {
		s.Error("the longest ID is not found")
	}
}

// incompressible is a name that no index can make shorter.
func incompressible(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(rand.IntN(26))
	}
	return string(b)
}

func cancelledApply(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.at(0).Apply(ctx, []store.Op{put(record("Mesh", "a", `{}`), store.Any)})
	s.fails(err, context.Canceled)
	if f := s.follow(0); len(f.rows) != 0 {
		s.Errorf("stored: %v", f.rows)
	}
}

// model compares with a plain map, over random batches, instances and reopened
// stores.
func model(s *suite) {
	names := rapid.SampledFrom([]string{"a", "b", "c"})
	kinds := rapid.SampledFrom([]string{"Mesh", "Zone", "MeshTimeout"})
	rapid.Check(s.T, func(t *rapid.T) {
		db := s.open(s.T)
		defer func() {
			for _, i := range db.Instances {
				i.Close() //nolint:errcheck // the store is thrown away
			}
		}()
		ctx, cancel := context.WithTimeout(s.T.Context(), patience) // of one history, not of all
		defer cancel()
		sub := &suite{T: s.T, ctx: ctx, db: db}
		rows := map[api.ID]store.Record{}
		early := sub.follow(0)
		var rev store.Revision
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				r := store.Record{
					ID:   api.ID{Kind: kinds.Draw(t, "kind"), Name: names.Draw(t, "name")},
					Spec: []byte(rapid.SampledFrom([]string{``, `{}`, `{"v":1}`}).Draw(t, "spec")),
				}
				old, exists := rows[r.ID]
				op := store.Op{Record: r, Delete: rapid.Bool().Draw(t, "delete")}
				holds := true
				switch rapid.IntRange(0, 2).Draw(t, "expect") {
				case 1:
					op.Expect, holds = store.Absent, !exists
				case 2:
					guess := store.Revision(rapid.Uint64Range(0, uint64(rev)).Draw(t, "revision"))
					if exists && rapid.Bool().Draw(t, "right") {
						guess = old.Revision
					}
					op.Expect, holds = store.At(guess), exists && old.Revision == guess
				}
				got, err := sub.at(rapid.IntRange(0, 1).Draw(t, "instance")).Apply(ctx, []store.Op{op})
				changes := holds && (op.Delete && exists || !op.Delete && !(exists && r.Equal(&old)))
				switch {
				case (err == nil) != holds:
					t.Fatalf("%+v on %+v: %v", op, old, err)
				case err != nil:
					return
				case changes != (got > rev):
					t.Fatalf("%+v on %+v: revision %d after %d", op, old, got, rev)
				}
				rev = got
				if changes {
					delete(rows, r.ID)
					if !op.Delete {
						r.Revision = got
						rows[r.ID] = r
					}
				}
			},
			"": func(t *rapid.T) {
				if early.until(rev); digest(early.rows) != digest(rows) {
					t.Fatalf("followed:\n%s\nwant:\n%s", digest(early.rows), digest(rows))
				}
			},
		})
		late := sub.follow(1)
		if late.until(rev); digest(late.rows) != digest(rows) {
			t.Fatalf("stored:\n%s\nwant:\n%s", digest(late.rows), digest(rows))
		}
	})
}
