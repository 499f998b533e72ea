package incr_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
)

// cell is a row of a spreadsheet: its value is n plus the values of the cells it
// reads, cut to cap; fault makes the query that reads it fail.
type cell struct {
	id    string
	n     int
	cap   int
	reads []string
	fault string // "", "fail", "panic"
	group string
}

// value is compared by content and tested for identity.
type value struct{ sum int }

// Static handles, shared by every engine of every test.
var (
	schema  = db.NewSchema()
	byGroup = db.NewIndex("group", func(c *cell) []string { return []string{c.group} })
	cells   = db.NewTable(schema, "cells", func(c *cell) string { return c.id }, byGroup)

	errBad = errors.New("bad cell")

	sum   *incr.Query[string, *value]
	group = incr.NewQuery("group", func(r *incr.Run, g string) int {
		n := 0
		for c := range byGroup.Of(r, g) {
			n += c.n
		}
		return n
	}, func(a, b int) bool { return a == b })
	parity = incr.NewQuery("parity", func(r *incr.Run, g string) bool { return group.Get(r, g)%2 == 0 },
		func(a, b bool) bool { return a == b })
	label = incr.NewQuery("label", func(r *incr.Run, g string) *value {
		if parity.Get(r, g) {
			return &value{0}
		}
		return &value{1}
	}, equal)
)

func equal(a, b *value) bool { return a.sum == b.sum }

// TestMain ties the knot of a query that reads itself at other keys; a package-level
// initialiser would be an initialisation cycle.
func TestMain(m *testing.M) {
	sum = incr.NewQuery("sum", func(r *incr.Run, id string) *value {
		c, ok := cells.Get(r, id)
		if !ok {
			return &value{}
		}
		n := c.n
		for _, k := range c.reads {
			n += sum.Get(r, k).sum
		}
		switch c.fault {
		case "fail":
			r.Fail(fmt.Errorf("%w: %s", errBad, id))
			return &value{-1}
		case "panic":
			panic(errBad)
		}
		if c.cap > 0 {
			n = min(n, c.cap)
		}
		return &value{n}
	}, equal)
	m.Run()
}

// naive computes the same without an engine.
func naive(s *db.Snapshot, id string) int {
	c, ok := cells.Get(s, id)
	if !ok {
		return 0
	}
	n := c.n
	for _, k := range c.reads {
		n += naive(s, k)
	}
	if c.cap > 0 {
		n = min(n, c.cap)
	}
	return n
}

// sheet is a database with an engine that is moved by hand.
type sheet struct {
	t       testing.TB
	d       *db.DB
	e       *incr.Engine
	last    db.Commit
	mu      sync.Mutex
	told    map[string]string // by root: value and failure as last published
	calls   int
	release map[string]func()
}

func newSheet(t testing.TB, opts ...incr.Option) *sheet {
	s := &sheet{t: t, d: db.New(schema), told: map[string]string{}, release: map[string]func(){}}
	s.d.OnCommit(func(c db.Commit) { s.last = c })
	s.e = incr.New(s.d.Snapshot(), opts...)
	return s
}

func (s *sheet) write(rows ...*cell) incr.Round {
	s.t.Helper()
	if _, err := s.d.Write(func(tx *db.Tx) error {
		for _, c := range rows {
			cells.Put(tx, c)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return s.e.Advance(s.last.Snapshot, s.last.Touched)
}

func (s *sheet) hold(ids ...string) {
	for _, id := range ids {
		s.release[id] = incr.Hold(s.e, sum.Ref(id), func(v *value, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.calls++
			s.told[id] = show(v, err)
		})
	}
}

func show(v *value, err error) string {
	n := "none"
	if v != nil {
		n = fmt.Sprint(v.sum)
	}
	if err != nil {
		n += " but " + err.Error()
	}
	return n
}

func (s *sheet) wantTold(id, want string) {
	s.t.Helper()
	if got := s.told[id]; got != want {
		s.t.Errorf("%s is told %q, want %q", id, got, want)
	}
}

func wantRound(t testing.TB, r incr.Round, ran, changed, failures int) {
	t.Helper()
	if r.Ran != ran || r.Changed != changed || len(r.Failures) != failures {
		t.Errorf("ran %d, changed %d, failures %v; want %d, %d and %d failures", r.Ran, r.Changed, r.Failures, ran, changed, failures)
	}
}

func TestCostFollowsTheChange(t *testing.T) {
	s := newSheet(t)
	s.write(
		&cell{id: "top", reads: []string{"left", "right"}}, &cell{id: "other", reads: []string{"right"}},
		&cell{id: "left", n: 1, cap: 5}, &cell{id: "right", n: 10},
	)
	s.hold("top", "other")
	wantRound(t, s.e.Settle(), 4, 4, 0)
	s.wantTold("top", "11")
	wantRound(t, s.write(&cell{id: "left", n: 2, cap: 5}), 2, 2, 0) // left, top
	s.wantTold("top", "12")
	wantRound(t, s.write(&cell{id: "right", n: 11}), 3, 3, 0) // right, top, other
	wantRound(t, s.write(&cell{id: "right", n: 11}), 1, 0, 0) // the same again: right alone
	wantRound(t, s.write(&cell{id: "unread", n: 1}), 0, 0, 0) // nobody reads it
	wantRound(t, s.e.Settle(), 0, 0, 0)                       // nothing to do
	s.write(&cell{id: "left", n: 7, cap: 5})                  // 2 → 5
	wantRound(t, s.write(&cell{id: "left", n: 9, cap: 5}), 1, 0, 0)
	calls := s.calls
	wantRound(t, s.write(&cell{id: "top", reads: []string{"right"}}), 1, 1, 0)
	if s.calls != calls+1 {
		t.Errorf("%d calls, want one", s.calls-calls)
	}
	wantRound(t, s.write(&cell{id: "left", n: 1}), 0, 0, 0) // not in use any more
	if ran := s.e.Stats().Ran; ran["sum"] != 4+2+3+1+2+1+1 {
		t.Errorf("ran %v", ran)
	}
}

func TestEqualResultKeepsTheOldValue(t *testing.T) {
	s := newSheet(t)
	s.write(&cell{id: "a", n: 1, group: "g"})
	before, err := incr.Peek(s.e, label.Ref("g"))
	if err != nil || before.sum != 1 {
		t.Fatal(before, err)
	}
	release := incr.Hold(s.e, label.Ref("g"), func(v *value, err error) {
		if v != before || err != nil {
			t.Errorf("told %v, %v", v, err)
		}
	})
	defer release()
	wantRound(t, s.write(&cell{id: "a", n: 3, group: "g"}), 2, 1, 0) // group, parity; label not at all
	after, _ := incr.Peek(s.e, label.Ref("g"))
	if after != before {
		t.Errorf("an equal value is another pointer")
	}
	// A changed row whose query yields an equal, new pointer keeps the old one too.
	old, _ := incr.Peek(s.e, sum.Ref("a"))
	s.write(&cell{id: "a", n: 3, group: "g", cap: 9})
	if again, _ := incr.Peek(s.e, sum.Ref("a")); again != old {
		t.Errorf("an equal value is another pointer")
	}
}

// What a query would no longer read in the new state is not computed on the way.
func TestStopsAtTheFirstChange(t *testing.T) {
	s := newSheet(t)
	lookup := incr.NewQuery("lookup", func(r *incr.Run, id string) int {
		if group.Get(r, id) == 0 {
			return 0
		}
		return sum.Get(r, id).sum
	}, func(a, b int) bool { return a == b })
	s.write(&cell{id: "a", n: 1, group: "a"})
	incr.Hold(s.e, lookup.Ref("a"), func(int, error) {})
	wantRound(t, s.e.Settle(), 3, 3, 0)
	wantRound(t, s.write(&cell{id: "a", n: 0, group: "a"}), 2, 2, 0) // group and lookup; sum is not wanted
}

func TestReleaseAfterGrace(t *testing.T) {
	s := newSheet(t, incr.WithGrace(5))
	s.write(&cell{id: "top", reads: []string{"k0"}})
	s.hold("top")
	s.e.Settle()
	for i := range 1000 {
		s.write(&cell{id: "top", reads: []string{fmt.Sprint("k", i+1)}})
		st := s.e.Stats()
		if st.Nodes > 2+5+1 || st.Edges != 1 || st.Touches != st.Nodes || st.Reads != st.Nodes {
			t.Fatalf("after %d changes: %+v", i+1, st)
		}
	}
	s.release["top"]()
	released := 0
	for range 6 {
		released += s.e.Settle().Released
	}
	if st := s.e.Stats(); st.Nodes != 0 || st.Edges != 0 || st.Reads != 0 || st.Touches != 0 || st.Held != 0 || released == 0 {
		t.Errorf("what is left: %+v, released %d", st, released)
	}
}

func TestComingBackWithinTheGraceCostsNothing(t *testing.T) {
	s := newSheet(t, incr.WithGrace(3))
	s.write(&cell{id: "a", n: 1, reads: []string{"b"}}, &cell{id: "b", n: 1})
	s.hold("a")
	s.e.Settle()
	s.release["a"]()
	s.e.Settle()
	wantRound(t, s.write(&cell{id: "b", n: 2}), 0, 0, 0) // nobody holds it
	s.hold("a")
	wantRound(t, s.e.Settle(), 2, 2, 0) // made good when it is wanted
	s.wantTold("a", "3")
	s.release["a"]()
	s.e.Settle()
	s.hold("a")
	s.told["a"] = ""
	wantRound(t, s.e.Settle(), 0, 0, 0)
	s.wantTold("a", "3")
	for range 10 {
		s.e.Settle()
	}
	if n := s.e.Stats().Nodes; n != 2 {
		t.Errorf("%d nodes, the old release struck what is held again", n)
	}
}

func TestFailureKeepsTheLastGoodValue(t *testing.T) {
	for _, how := range []string{"fail", "panic"} {
		t.Run(how, func(t *testing.T) {
			s := newSheet(t)
			text := map[string]string{"fail": "bad cell: bad", "panic": "panic: bad cell"}[how]
			s.write(&cell{id: "top", n: 100, reads: []string{"bad", "good"}}, &cell{id: "bad", n: 1, reads: []string{"deep"}}, &cell{id: "good", n: 1}, &cell{id: "deep", n: 1})
			s.hold("top", "bad", "good")
			s.e.Settle()
			r := s.write(&cell{id: "bad", n: 5, fault: how}, &cell{id: "good", n: 2})
			wantRound(t, r, 3, 2, 1)
			if f := r.Failures[0]; f.Query != "sum" || f.Key != any("bad") || !errors.Is(f.Err, errBad) {
				t.Errorf("failure %v", f)
			}
			s.wantTold("bad", "2 but "+text)
			s.wantTold("top", "104") // goes on with the last good value
			s.wantTold("good", "2")
			// A read of the last good run brings it up again, though the failed run did not get there.
			if r := s.write(&cell{id: "deep", n: 2}); len(r.Failures) != 1 {
				t.Errorf("not tried again: %+v", r)
			}
			if f := s.e.Failing(); len(f) != 1 || f[0].Key != any("bad") {
				t.Errorf("failing: %v", f)
			}
			r = s.write(&cell{id: "bad", n: 7, reads: []string{"deep"}})
			if len(r.Mended) != 1 || r.Mended[0].Key != any("bad") || len(r.Failures) != 0 {
				t.Errorf("not mended: %+v", r)
			}
			s.wantTold("bad", "9")
			s.wantTold("top", "111")
			// Mended to the value that it had all along: told nonetheless, top does not run.
			s.write(&cell{id: "bad", fault: how})
			wantRound(t, s.write(&cell{id: "bad", n: 9}), 1, 0, 0)
			s.wantTold("bad", "9")
			if f := s.e.Failing(); len(f) != 0 {
				t.Errorf("failing: %v", f)
			}
		})
	}
}

// The reads of the last good run make a failing query try again each time, but are
// not computed as long as nobody wants them.
func TestKeptReads(t *testing.T) {
	s := newSheet(t)
	s.write(&cell{id: "bad", reads: []string{"old"}}, &cell{id: "old", n: 1}, &cell{id: "new", n: 5, cap: 5})
	s.hold("bad")
	s.e.Settle()
	wantRound(t, s.write(&cell{id: "bad", reads: []string{"new"}, fault: "fail"}), 2, 1, 1)
	for i := range 3 {
		wantRound(t, s.write(&cell{id: "old", n: i + 2}), 1, 0, 1) // bad alone
	}
	wantRound(t, s.write(&cell{id: "new", n: 6, cap: 5}), 1, 0, 0) // new, equal
	wantRound(t, s.write(&cell{id: "new", n: 4, cap: 5}), 2, 1, 1)
	wantRound(t, s.write(&cell{id: "bad", reads: []string{"old"}}), 2, 2, 0)
	s.wantTold("bad", "4")
}

func TestFailureWithoutGoodValue(t *testing.T) {
	s := newSheet(t)
	s.write(&cell{id: "top", n: 1, reads: []string{"a"}}, &cell{id: "a", fault: "fail"}, &cell{id: "b", fault: "panic"})
	s.hold("top", "a", "b")
	if r := s.e.Settle(); len(r.Failures) != 2 {
		t.Errorf("%+v", r)
	}
	s.wantTold("a", "-1 but bad cell: a") // what was returned beside Fail
	s.wantTold("b", "none but panic: bad cell")
	s.wantTold("top", "0")
	if _, err := incr.Peek(s.e, sum.Ref("a")); !errors.Is(err, errBad) {
		t.Errorf("Peek: %v", err)
	}
	s.write(&cell{id: "a", n: 2}, &cell{id: "b", n: 2})
	s.wantTold("top", "3")
	s.wantTold("b", "2")
	s.write(&cell{id: "a", fault: "fail"})
	s.release["a"]()
	s.release["top"]()
	var mended []incr.Failure
	for range 20 {
		mended = append(mended, s.e.Settle().Mended...)
	}
	if len(mended) != 1 || len(s.e.Failing()) != 0 {
		t.Errorf("the failure of a released query is not over: %v", mended)
	}
}

func TestCycleIsNamed(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			const want = "queries read each other in a circle: sum(a) → sum(b) → sum(c) → sum(a)"
			s := newSheet(t, incr.WithWorkers(workers), incr.WithGrace(2))
			row := func(id, reads string) *cell { return &cell{id: id, n: 1, reads: strings.Fields(reads)} }
			for range 50 {
				s.write(row("a", "b"), row("b", "c"), row("c", ""), row("outside", "a"))
				s.hold("c", "b", "a", "outside")
				s.e.Settle()
				s.wantTold("a", "3")
				r := s.write(row("c", "a"))
				if len(r.Failures) != 3 {
					t.Fatalf("failures: %v", r.Failures)
				}
				for _, f := range r.Failures {
					if !errors.Is(f.Err, incr.ErrCycle) || f.Err.Error() != want {
						t.Fatalf("got %v\nwant %s", f, want)
					}
				}
				s.wantTold("a", "3 but "+want)
				s.wantTold("outside", "4")
				s.write(row("b", "")) // opened elsewhere than where it was closed
				s.wantTold("a", "2")
				s.wantTold("c", "3")
				// A circle that nobody holds any more leaves, although its members use each other.
				s.write(row("b", "c"))
				for _, release := range s.release {
					release()
				}
				for range 4 {
					s.e.Settle()
				}
				if st := s.e.Stats(); st.Nodes != 0 || st.Edges != 0 || st.Touches != 0 || st.Failing != 0 {
					t.Fatalf("left: %+v", st)
				}
			}
		})
	}
}

func TestRecursionIsBounded(t *testing.T) {
	s := newSheet(t, incr.WithGrace(0))
	var endless *incr.Query[int, int]
	endless = incr.NewQuery("endless", func(r *incr.Run, n int) int { return endless.Get(r, n+1) + 1 }, nil)
	_, err := incr.Peek(s.e, endless.Ref(0))
	if !errors.Is(err, incr.ErrDepth) || len(err.Error()) > 1000 {
		t.Errorf("got %v", err)
	}
	s.e.Settle()
	if n := s.e.Stats().Nodes; n != 0 {
		t.Errorf("%d nodes left", n)
	}
}

func TestThousandsOfHolds(t *testing.T) {
	s := newSheet(t, incr.WithWorkers(4))
	var rows []*cell
	var roots []string
	for i := range 100 {
		rows = append(rows, &cell{id: fmt.Sprint("svc", i), n: i})
	}
	for i := range 3000 {
		id := fmt.Sprint("proxy", i)
		roots = append(roots, id)
		rows = append(rows, &cell{id: id, reads: []string{fmt.Sprint("svc", i%100), fmt.Sprint("svc", (i+1)%100)}})
	}
	s.write(rows...)
	s.hold(roots...)
	wantRound(t, s.e.Settle(), 3100, 3100, 0)
	if st := s.e.Stats(); st.Nodes != 3100 || st.Edges != 6000 || st.Held != 3000 || s.calls != 3000 {
		t.Errorf("%+v, %d calls", st, s.calls)
	}
	s.hold("one more") // costs its own work alone
	wantRound(t, s.e.Settle(), 1, 1, 0)
	wantRound(t, s.write(&cell{id: "svc7", n: 70}), 61, 61, 0)
	if s.calls != 3000+1+60 {
		t.Errorf("%d calls", s.calls)
	}
	for _, release := range s.release {
		release()
	}
	for range 20 {
		s.e.Settle()
	}
	if st := s.e.Stats(); st.Nodes != 0 || st.Touches != 0 {
		t.Errorf("after all disconnected: %+v", st)
	}
}

// Holds and releases made by a callback take effect in the same round.
func TestHoldInCallback(t *testing.T) {
	s := newSheet(t, incr.WithGrace(0))
	s.write(&cell{id: "plan", n: 1}, &cell{id: "part1", n: 10}, &cell{id: "part2", n: 20})
	var log []string
	var release func()
	incr.Hold(s.e, sum.Ref("plan"), func(v *value, _ error) {
		log = append(log, fmt.Sprint("plan ", v.sum))
		if release != nil {
			release()
		}
		release = incr.Hold(s.e, sum.Ref(fmt.Sprint("part", v.sum)), func(v *value, _ error) {
			log = append(log, fmt.Sprint("part ", v.sum))
		})
	})
	wantRound(t, s.e.Settle(), 2, 2, 0)
	r := s.write(&cell{id: "plan", n: 2})
	wantRound(t, r, 2, 2, 0)
	if r.Released != 1 || !slices.Equal(log, []string{"plan 1", "part 10", "plan 2", "part 20"}) {
		t.Errorf("released %d, told %v", r.Released, log)
	}
}

// Reads that repeat, change their order or come and go leave each edge once.
func TestWideReads(t *testing.T) {
	s := newSheet(t, incr.WithGrace(0))
	var up, down []string
	for i := range 40 {
		up = append(up, fmt.Sprint("leaf", i))
		down = append(down, fmt.Sprint("leaf", 39-i))
	}
	s.write(&cell{id: "top", reads: append(slices.Clone(up), up...)}, &cell{id: "leaf3", n: 1})
	s.hold("top")
	wantRound(t, s.e.Settle(), 41, 41, 0)
	s.wantTold("top", "2")
	for i, reads := range [][]string{down, append(slices.Clone(up[20:]), down...), up} {
		wantRound(t, s.write(&cell{id: "top", n: i * 10, reads: reads}), 1, 1, 0)
		if st := s.e.Stats(); st.Nodes != 41 || st.Edges != 40 || st.Reads != 41 || st.Touches != 41 {
			t.Errorf("%+v", st)
		}
		wantRound(t, s.write(&cell{id: "leaf3", n: i + 2}), 2, 2, 0)
		s.wantTold("top", fmt.Sprint(i*10+i+2))
	}
	s.write(&cell{id: "top", reads: down[:2]})
	if st := s.e.Stats(); st.Nodes != 3 || st.Edges != 2 || st.Touches != 3 {
		t.Errorf("%+v", st)
	}
}

func TestSeveralErrors(t *testing.T) {
	s := newSheet(t)
	other := errors.New("other")
	q := incr.NewQuery("several", func(r *incr.Run, _ int) int {
		r.Fail(errBad)
		r.Fail(nil)
		r.Fail(other)
		return 0
	}, nil)
	if _, err := incr.Peek(s.e, q.Ref(0)); !errors.Is(err, errBad) || !errors.Is(err, other) {
		t.Errorf("got %v", err)
	}
	// What Peek found out is told by the next round, as a failure and not as its work.
	wantRound(t, s.e.Settle(), 0, 0, 1)
}

func TestReleasedBeforeItsRound(t *testing.T) {
	s := newSheet(t)
	s.hold("a")
	s.release["a"]()
	s.release["a"]()
	wantRound(t, s.e.Settle(), 0, 0, 0)
	if s.calls != 0 || s.e.Stats().Held != 0 {
		t.Errorf("%d calls", s.calls)
	}
}

func TestRefsAreComparable(t *testing.T) {
	m := map[incr.Ref[*value]]int{sum.Ref("a"): 1, label.Ref("a"): 2}
	if m[sum.Ref("a")] != 1 || m[label.Ref("a")] != 2 || sum.Ref("a") == sum.Ref("b") || sum.Ref("a") == label.Ref("a") {
		t.Errorf("references are not equal by query and key")
	}
	if sum.Ref("a").String() != "sum(a)" || !(incr.Ref[*value]{}).IsZero() {
		t.Errorf("%s", sum.Ref("a"))
	}
	s := newSheet(t)
	s.write(&cell{id: "a", n: 4})
	twice := incr.NewQuery("twice", func(r *incr.Run, f incr.Ref[*value]) int { return 2 * f.Get(r).sum }, nil)
	if n, err := incr.Peek(s.e, twice.Ref(sum.Ref("a"))); n != 8 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestRunIsUselessAfterwards(t *testing.T) {
	s := newSheet(t)
	var kept *incr.Run
	leak := incr.NewQuery("leak", func(r *incr.Run, _ int) int { kept = r; return 0 }, nil)
	if _, err := incr.Peek(s.e, leak.Ref(0)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a Run that outlived its query still reads")
		}
	}()
	cells.Get(kept, "a")
}
