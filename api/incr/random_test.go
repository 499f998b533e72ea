package incr_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"pgregory.net/rapid"
)

// After any random writes, holds, releases and looks from outside, what the engine
// says equals what is computed from scratch, whatever the number of workers; a
// round runs each query at most once; and a graph that nobody uses goes to nothing.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	const n = 12
	id := func(i int) string { return fmt.Sprintf("c%02d", i) }
	rapid.Check(t, func(t *rapid.T) {
		d := db.New(schema)
		var last db.Commit
		d.OnCommit(func(c db.Commit) { last = c })
		e := incr.New(d.Snapshot(), incr.WithWorkers(rapid.IntRange(1, 4).Draw(t, "workers")), incr.WithGrace(rapid.IntRange(0, 3).Draw(t, "grace")))
		told := map[string]*value{}
		release := map[string]func(){}
		hold := func(k string) {
			release[k] = incr.Hold(e, sum.Ref(k), func(v *value, err error) {
				if err != nil {
					t.Errorf("%s failed: %v", k, err)
				}
				if old := told[k]; old != nil && (old == v || old.sum == v.sum) {
					t.Errorf("%s told of an equal value", k)
				}
				told[k] = v
			})
		}
		drop := func(k string) {
			release[k]()
			delete(release, k)
			delete(told, k)
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			k := id(rapid.IntRange(0, n-1).Draw(t, "cell"))
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				if release[k] == nil {
					hold(k)
				}
			case 1:
				if release[k] != nil {
					drop(k)
				}
			case 2:
				v, err := incr.Peek(e, sum.Ref(k))
				if err != nil || v.sum != naive(d.Snapshot(), k) {
					t.Fatalf("Peek(%s) = %v, %v", k, v, err)
				}
				continue
			}
			_, _ = d.Write(func(tx *db.Tx) error {
				for range rapid.IntRange(0, 4).Draw(t, "writes") {
					i := rapid.IntRange(0, n-1).Draw(t, "row")
					c := &cell{id: id(i), n: rapid.IntRange(0, 2).Draw(t, "n"), cap: rapid.IntRange(0, 3).Draw(t, "cap")}
					// Reads go upwards only, so there is no circle; any may repeat.
					for range rapid.IntRange(0, 3).Draw(t, "reads") {
						if i < n-1 {
							c.reads = append(c.reads, id(rapid.IntRange(i+1, n-1).Draw(t, "read")))
						}
					}
					if rapid.IntRange(0, 5).Draw(t, "delete") == 0 {
						cells.Delete(tx, c.id)
					} else {
						cells.Put(tx, c)
					}
				}
				return nil
			})
			before := e.Stats()
			r := e.Advance(d.Snapshot(), last.Touched)
			last.Touched = nil
			after := e.Stats()
			if uint64(r.Ran) != after.Ran["sum"]-before.Ran["sum"] || r.Ran > n || r.Changed > r.Ran || len(r.Failures) > 0 {
				t.Fatalf("%+v after %+v", r, before)
			}
			if r.Released < before.Nodes-after.Nodes {
				t.Fatalf("%+v after %+v", r, before)
			}
			for k := range release {
				if told[k] == nil || told[k].sum != naive(d.Snapshot(), k) {
					t.Fatalf("%s is told %v, want %d", k, told[k], naive(d.Snapshot(), k))
				}
			}
		}
		for k := range release {
			drop(k)
		}
		for range 5 {
			e.Settle()
		}
		if st := e.Stats(); st.Nodes+st.Edges+st.Reads+st.Touches+st.Held != 0 {
			t.Fatalf("left: %+v", st)
		}
	})
}

// With circles, panics and errors at random no round hangs, whatever cannot reach a
// fault is right, each circle names itself, and once all is mended all is right.
func TestFaultsAtRandom(t *testing.T) {
	const n = 8
	id := func(i int) string { return fmt.Sprintf("c%02d", i) }
	rapid.Check(t, func(t *rapid.T) {
		d := db.New(schema)
		var last db.Commit
		d.OnCommit(func(c db.Commit) { last = c })
		e := incr.New(d.Snapshot(), incr.WithWorkers(rapid.IntRange(1, 4).Draw(t, "workers")), incr.WithGrace(1))
		told, fails := map[string]*value{}, map[string]error{}
		var releases []func()
		for i := range n {
			k := id(i)
			releases = append(releases, incr.Hold(e, sum.Ref(k), func(v *value, err error) { told[k], fails[k] = v, err }))
		}
		write := func(rows ...*cell) {
			_, _ = d.Write(func(tx *db.Tx) error {
				for _, c := range rows {
					cells.Put(tx, c)
				}
				return nil
			})
			e.Advance(last.Snapshot, last.Touched)
		}
		now := map[string]*cell{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			var rows []*cell
			for range rapid.IntRange(1, 3).Draw(t, "rows") {
				c := &cell{id: id(rapid.IntRange(0, n-1).Draw(t, "cell")), n: rapid.IntRange(0, 3).Draw(t, "n")}
				c.fault = rapid.SampledFrom([]string{"", "", "", "fail", "panic"}).Draw(t, "fault")
				for range rapid.IntRange(0, 2).Draw(t, "reads") {
					c.reads = append(c.reads, id(rapid.IntRange(0, n-1).Draw(t, "read")))
				}
				rows = append(rows, c)
				now[c.id] = c
			}
			write(rows...)
			for i := range n {
				k := id(i)
				switch reach, circle := trouble(now, k); {
				case !reach && (fails[k] != nil || told[k].sum != naive(d.Snapshot(), k)):
					t.Fatalf("%s is far from any fault and told %v, %v; want %d", k, told[k], fails[k], naive(d.Snapshot(), k))
				case errors.Is(fails[k], incr.ErrCycle) && !circle:
					t.Fatalf("%s is in no circle and told %v", k, fails[k])
				case now[k] != nil && now[k].fault != "" && fails[k] == nil:
					t.Fatalf("%s does not fail", k)
				}
			}
		}
		var mend []*cell
		for _, c := range now {
			mend = append(mend, &cell{id: c.id, n: 5})
		}
		write(mend...)
		for i := range n {
			if k := id(i); fails[k] != nil || told[k].sum != naive(d.Snapshot(), k) {
				t.Fatalf("%s is mended and told %v, %v", k, told[k], fails[k])
			}
		}
		for _, release := range releases {
			release()
		}
		for range 4 {
			e.Settle()
		}
		if st := e.Stats(); st.Nodes+st.Edges+st.Reads+st.Touches+st.Held+st.Failing != 0 {
			t.Fatalf("left: %+v", st)
		}
	})
}

// trouble tells whether from k a fault or a circle can be reached, and whether k is
// itself in a circle.
func trouble(rows map[string]*cell, k string) (reaches, circle bool) {
	below := under(rows, k)
	for at := range below {
		reaches = reaches || under(rows, at)[at] || rows[at] != nil && rows[at].fault != ""
	}
	return reaches || rows[k] != nil && rows[k].fault != "", below[k]
}

// under is what k reads, directly or not.
func under(rows map[string]*cell, k string) map[string]bool {
	seen := map[string]bool{}
	for todo := []string{k}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if c := rows[at]; c != nil {
			for _, next := range c.reads {
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
	}
	return seen
}

// One row changed among many nodes must cost what it costs among few.
func BenchmarkOneRow(b *testing.B) {
	cost := map[int]float64{}
	for _, nodes := range []int{100, 10_000} {
		b.Run(fmt.Sprint(nodes, "nodes"), func(b *testing.B) {
			s := newSheet(b)
			var rows []*cell
			for i := range nodes / 2 {
				rows = append(rows, &cell{id: fmt.Sprint("leaf", i)}, &cell{id: fmt.Sprint("top", i), reads: []string{fmt.Sprint("leaf", i)}})
			}
			s.write(rows...)
			for i := range nodes / 2 {
				s.hold(fmt.Sprint("top", i))
			}
			s.e.Settle()
			i, ran := 0, 0
			for b.Loop() {
				i++
				ran += s.write(&cell{id: "leaf7", n: i}).Ran
			}
			if ran != 2*i {
				b.Errorf("%d changes ran %d queries", i, ran)
			}
			cost[nodes] = float64(b.Elapsed()) / float64(i)
			if small := cost[100]; nodes != 100 && small > 0 {
				b.ReportMetric(cost[nodes]/small, "×100nodes")
			}
		})
	}
}

// A thousand proxies of fifty services each, all at once.
func BenchmarkFirstRound(b *testing.B) {
	for b.Loop() {
		s := newSheet(b)
		var rows []*cell
		for i := range 1000 {
			c := &cell{id: fmt.Sprint("proxy", i)}
			for j := range 50 {
				c.reads = append(c.reads, fmt.Sprint("svc", (i*7+j*37)%500))
			}
			rows = append(rows, c)
		}
		s.write(rows...)
		for i := range 1000 {
			s.hold(fmt.Sprint("proxy", i))
		}
		s.e.Settle()
	}
}

// What a node costs to keep, with its value (16 bytes), key, edges and touch: fifty
// thousand nodes, each read by two of a thousand roots.
func BenchmarkMemory(b *testing.B) {
	const roots, nodes = 1000, 50_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		s := newSheet(b)
		var rows []*cell
		for i := range roots {
			c := &cell{id: fmt.Sprint("root", i)}
			for j := range 2 * nodes / roots {
				c.reads = append(c.reads, fmt.Sprint("node", (i*100+j)%nodes))
			}
			rows = append(rows, c)
		}
		s.write(rows...)
		for i := range roots {
			s.hold(fmt.Sprint("root", i))
		}
		before := heap()
		s.e.Settle()
		b.ReportMetric(float64(heap()-before)/float64(s.e.Stats().Nodes), "B/node")
	}
}
