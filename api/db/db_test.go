package db_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api/db"
	"pgregory.net/rapid"
)

// pod has a method Copy, which must not make the tree copy rows.
type pod struct {
	name, zone string
	tags       []string
}

func (p *pod) Copy() *pod { panic("rows are shared, never copied") }

type note struct {
	id   string
	text string
}

// One static schema for all tests of the package, as in the product.
var (
	schema = db.NewSchema()
	byTag  = db.NewIndex("tag", func(p *pod) []string { return p.tags })
	byZone = db.NewIndex("zone", func(p *pod) []string { return []string{p.zone} })
	pods   = db.NewTable(schema, "pods", func(p *pod) string { return p.name }, byTag, byZone)
	notes  = db.NewTable(schema, "notes", func(n note) string { return n.id })
)

func put(t testing.TB, d *db.DB, rows ...*pod) db.Revision {
	t.Helper()
	rev, err := d.Write(func(tx *db.Tx) error {
		for _, r := range rows {
			pods.Put(tx, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func names(rows func(func(*pod) bool)) []string {
	var out []string
	for r := range rows {
		out = append(out, r.name)
	}
	return out
}

func touches(c db.Commit) string {
	var out []string
	for _, t := range c.Touched {
		out = append(out, t.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestCommitCarriesRowsAndTouches(t *testing.T) {
	d := db.New(schema)
	var got []db.Commit
	stop := d.OnCommit(func(c db.Commit) { got = append(got, c) })
	a := &pod{"a", "east", []string{"x", "y"}}
	b := &pod{"a", "west", []string{"y", "z"}}
	put(t, d, a)
	put(t, d, b)
	if want := "pods.tag[x] pods.tag[y] pods.tag[z] pods.zone[east] pods.zone[west] pods[*] pods[a]"; touches(got[1]) != want {
		t.Errorf("touched %s\nwant    %s", touches(got[1]), want)
	}
	if c := got[1].Changes; len(c) != 1 || c[0] != (db.Change{Table: "pods", Key: "a", Old: a, New: b}) {
		t.Errorf("changes %v", c)
	}
	if got[1].Snapshot != d.Snapshot() || d.Snapshot().Revision() != 2 {
		t.Errorf("the commit's snapshot is not the newest state")
	}
	// Several writes to one row are one change; a row that came and went is none.
	_, _ = d.Write(func(tx *db.Tx) error {
		pods.Put(tx, a)
		pods.Delete(tx, "a")
		pods.Put(tx, &pod{name: "brief"})
		pods.Delete(tx, "brief")
		return nil
	})
	if c := got[2].Changes; len(c) != 1 || c[0] != (db.Change{Table: "pods", Key: "a", Old: b}) {
		t.Errorf("changes %v", c)
	}
	stop()
	put(t, d, a)
	if len(got) != 3 {
		t.Errorf("told after stop")
	}
}

func TestFailurePublishesNothing(t *testing.T) {
	d := db.New(schema)
	put(t, d, &pod{name: "a", zone: "east"})
	d.OnCommit(func(db.Commit) { t.Error("told of a commit") })
	before := d.Snapshot()
	fault := errors.New("no")
	write := func(tx *db.Tx) {
		pods.Put(tx, &pod{name: "b", zone: "east"})
		pods.Delete(tx, "a")
	}
	if rev, err := d.Write(func(tx *db.Tx) error { write(tx); return fault }); !errors.Is(err, fault) || rev != 1 {
		t.Errorf("got %d, %v", rev, err)
	}
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = d.Write(func(tx *db.Tx) error { write(tx); panic("boom") })
	}()
	if rev, err := d.Write(func(tx *db.Tx) error { pods.Delete(tx, "absent"); return nil }); rev != 1 || err != nil {
		t.Errorf("a write without effect: %d, %v", rev, err)
	}
	if d.Snapshot() != before || !slices.Equal(names(byZone.Of(before, "east")), []string{"a"}) {
		t.Errorf("the state changed")
	}
}

func TestSupposingPublishesNothing(t *testing.T) {
	d := db.New(schema)
	put(t, d, &pod{name: "a", zone: "east"})
	d.OnCommit(func(db.Commit) { t.Error("told of a commit") })
	before := d.Snapshot()
	is, would, err := d.Suppose(func(tx *db.Tx) error {
		pods.Put(tx, &pod{name: "b", zone: "east"})
		pods.Delete(tx, "a")
		return nil
	})
	if err != nil || is != before || d.Snapshot() != before {
		t.Fatalf("the state changed: %v", err)
	}
	if got := names(byZone.Of(would, "east")); !slices.Equal(got, []string{"b"}) {
		t.Errorf("would be %v", got)
	}
	if got := names(byZone.Of(is, "east")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("is %v", got)
	}
	fault := errors.New("no")
	if _, would, err := d.Suppose(func(tx *db.Tx) error { pods.Delete(tx, "a"); return fault }); !errors.Is(err, fault) || would != nil {
		t.Errorf("got %v, %v", would, err)
	}
}

func TestTransactionReadsItsOwnWrites(t *testing.T) {
	d := db.New(schema)
	put(t, d, &pod{"a", "east", nil}, &pod{"b", "east", nil}, &pod{"c", "west", nil})
	_, err := d.Write(func(tx *db.Tx) error {
		pods.Put(tx, &pod{"d", "east", nil})
		// A loop may write to what it reads: it sees the rows as they were at its start.
		var seen []string
		for p := range byZone.Of(tx, "east") {
			seen = append(seen, p.name)
			pods.Put(tx, &pod{p.name, "north", nil})
			pods.Put(tx, &pod{p.name + "2", "east", nil})
		}
		if want := []string{"a", "b", "d"}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
		if got, want := names(byZone.Of(tx, "east")), []string{"a2", "b2", "d2"}; !slices.Equal(got, want) {
			t.Errorf("then %v, want %v", got, want)
		}
		for p := range pods.All(tx) {
			pods.Delete(tx, p.name)
		}
		if n := pods.Len(tx); n != 0 {
			t.Errorf("%d rows left", n)
		}
		if _, ok := pods.Get(d.Snapshot(), "a"); !ok {
			t.Errorf("others see writes before the commit")
		}
		return nil
	})
	if err != nil || pods.Len(d.Snapshot()) != 0 {
		t.Errorf("%v, %d rows", err, pods.Len(d.Snapshot()))
	}
}

func TestRange(t *testing.T) {
	d := db.New(schema)
	put(t, d, &pod{"a", "", []string{"k1", "k3"}}, &pod{"b", "", []string{"k2", "k1"}}, &pod{"c", "", []string{"k4"}})
	read := func(from, before string) (out []string) {
		for k, p := range byTag.Range(d.Snapshot(), from, before) {
			out = append(out, k+p.name)
		}
		return out
	}
	if got, want := read("k1", "k3"), []string{"k1a", "k1b", "k2b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := read("k3", ""), []string{"k3a", "k4c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMisuse(t *testing.T) {
	for name, f := range map[string]func(){
		"table after New": func() { s := db.NewSchema(); db.New(s); db.NewTable(s, "late", func(s string) string { return s }) },
		"table twice": func() {
			s := db.NewSchema()
			id := func(s string) string { return s }
			db.NewTable(s, "t", id)
			db.NewTable(s, "t", id)
		},
		"index of two tables": func() { s := db.NewSchema(); db.NewTable(s, "t", func(p *pod) string { return p.name }, byTag) },
		"foreign database":    func() { pods.Get(db.New(db.NewSchema()).Snapshot(), "a") },
		"finished transaction": func() {
			var kept *db.Tx
			_, _ = db.New(schema).Write(func(tx *db.Tx) error { kept = tx; return nil })
			pods.Put(kept, &pod{name: "a"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			f()
		})
	}
}

// noting is a Reader that collects touches, as a run of a query does.
type noting struct {
	*db.Snapshot
	seen map[db.Touch]bool
}

func (n noting) Read(t db.Touch) { n.seen[t] = true }

// Random transactions against plain maps. Every snapshot stays as it was, every
// commit explains the step from the state before, and a read that gives another
// answer than before has been touched.
func TestAgainstMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := db.New(schema)
		type state struct {
			snap *db.Snapshot
			rows map[string]*pod
		}
		var commits []db.Commit
		d.OnCommit(func(c db.Commit) { commits = append(commits, c) })
		history := []state{{d.Snapshot(), map[string]*pod{}}}
		name := rapid.StringOfN(rapid.RuneFrom([]rune("abcdefgh")), 1, 2, -1)
		key := rapid.StringOfN(rapid.RuneFrom([]rune("xyz")), 0, 1, -1)
		for range rapid.IntRange(1, 20).Draw(t, "transactions") {
			last := history[len(history)-1]
			rows := maps.Clone(last.rows)
			fails := rapid.IntRange(0, 4).Draw(t, "fails") == 0
			commits = nil
			_, err := d.Write(func(tx *db.Tx) error {
				for range rapid.IntRange(0, 12).Draw(t, "writes") {
					k := name.Draw(t, "name")
					if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
						_, had := rows[k]
						if pods.Delete(tx, k) != had {
							t.Fatalf("Delete(%s) is wrong", k)
						}
						delete(rows, k)
					} else {
						p := &pod{k, key.Draw(t, "zone"), rapid.SliceOfN(key, 0, 3).Draw(t, "tags")}
						pods.Put(tx, p)
						rows[k] = p
					}
				}
				check(t, tx, rows)
				if fails {
					return errors.New("failed")
				}
				return nil
			})
			if (err != nil) != fails {
				t.Fatalf("got %v", err)
			}
			next := state{d.Snapshot(), rows}
			if fails {
				next.rows = last.rows
			}
			explains(t, commits, last.rows, next.rows, last.snap, next.snap)
			history = append(history, next)
		}
		for _, s := range history {
			check(t, s.snap, s.rows)
		}
	})
}

func check(t *rapid.T, r db.Reader, want map[string]*pod) {
	if got := names(pods.All(r)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) || pods.Len(r) != len(want) {
		t.Fatalf("rows %v, want %v", got, want)
	}
	for k, p := range want {
		if got, ok := pods.Get(r, k); !ok || got != p {
			t.Fatalf("Get(%s) = %v", k, got)
		}
	}
	for _, k := range []string{"", "x", "y", "z"} {
		var tagged, zoned []string
		for _, n := range slices.Sorted(maps.Keys(want)) {
			if slices.Contains(want[n].tags, k) {
				tagged = append(tagged, n)
			}
			if want[n].zone == k {
				zoned = append(zoned, n)
			}
		}
		if got := names(byTag.Of(r, k)); !slices.Equal(got, tagged) {
			t.Fatalf("tag %q: %v, want %v", k, got, tagged)
		}
		if got := names(byZone.Of(r, k)); !slices.Equal(got, zoned) {
			t.Fatalf("zone %q: %v, want %v", k, got, zoned)
		}
	}
}

func explains(t *rapid.T, commits []db.Commit, before, after map[string]*pod, old, now *db.Snapshot) {
	replay := maps.Clone(before)
	touched := map[db.Touch]bool{}
	for _, c := range commits {
		for _, ch := range c.Changes {
			if was, ok := replay[ch.Key]; ok != (ch.Old != nil) || ok && ch.Old != any(was) {
				t.Fatalf("%s: old row %v, want %v", ch.Key, ch.Old, was)
			}
			delete(replay, ch.Key)
			if ch.New != nil {
				replay[ch.Key] = ch.New.(*pod)
			}
		}
		for _, touch := range c.Touched {
			if touched[touch] {
				t.Fatalf("%s touched twice", touch)
			}
			touched[touch] = true
		}
	}
	if !maps.Equal(replay, after) {
		t.Fatalf("replaying the changes gives %v, want %v", replay, after)
	}
	reads := map[string]func(db.Reader) []*pod{"all": func(r db.Reader) []*pod { return slices.Collect(pods.All(r)) }}
	for k := range maps.Keys(after) {
		reads[k] = func(r db.Reader) []*pod { p, _ := pods.Get(r, k); return []*pod{p} }
	}
	for _, k := range []string{"", "x", "y", "z"} {
		reads["tag "+k] = func(r db.Reader) []*pod { return slices.Collect(byTag.Of(r, k)) }
		reads["zone "+k] = func(r db.Reader) []*pod { return slices.Collect(byZone.Of(r, k)) }
	}
	for what, read := range reads {
		n := noting{now, map[db.Touch]bool{}}
		if slices.Equal(read(n), read(old)) {
			continue
		}
		hit := false
		for touch := range n.seen {
			hit = hit || touched[touch]
		}
		if !hit {
			t.Fatalf("%s reads differently and was not touched", what)
		}
	}
}

// Several databases of one schema, writers and readers at once: commits arrive in
// order, each before its Write returns, and no reader sees half a transaction.
func TestConcurrent(t *testing.T) {
	var all sync.WaitGroup
	for range 3 {
		d := db.New(schema)
		var mu sync.Mutex
		var seen []db.Revision
		d.OnCommit(func(c db.Commit) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, c.Snapshot.Revision())
		})
		for w := range 4 {
			all.Go(func() {
				for i := range 100 {
					rev, _ := d.Write(func(tx *db.Tx) error {
						pods.Put(tx, &pod{fmt.Sprint("p", w), fmt.Sprint(i), nil})
						notes.Put(tx, note{fmt.Sprint("p", w), fmt.Sprint(i)})
						return nil
					})
					mu.Lock()
					if !slices.Contains(seen, rev) {
						t.Errorf("revision %d was not delivered when Write returned", rev)
					}
					mu.Unlock()
				}
			})
			all.Go(func() {
				for range 100 {
					s := d.Snapshot()
					for p := range pods.All(s) {
						if n, ok := notes.Get(s, p.name); !ok || n.text != p.zone {
							t.Errorf("half a transaction: %v, %v", p, n)
						}
					}
				}
			})
		}
		t.Cleanup(func() {
			if len(seen) != 400 || !slices.IsSorted(seen) {
				t.Errorf("%d commits delivered, in order: %v", len(seen), slices.IsSorted(seen))
			}
		})
	}
	all.Wait()
}

func BenchmarkPut(b *testing.B) {
	d := db.New(schema)
	for i := range 10_000 {
		put(b, d, &pod{fmt.Sprint(i), "east", []string{"x"}})
	}
	i := 0
	for b.Loop() {
		i++
		put(b, d, &pod{fmt.Sprint(i % 10_000), "east", []string{"x"}})
	}
}
