package incr_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api/incr"
)

// meeting returns a function that returns once n goroutines are in it, and at once
// ever after.
func meeting(n int) func() {
	var all sync.WaitGroup
	all.Add(n)
	var mu sync.Mutex
	left := n
	return func() {
		mu.Lock()
		if left > 0 {
			left--
			all.Done()
		}
		mu.Unlock()
		all.Wait()
	}
}

// Each worker is in the middle of one member before any reads the next, so the
// circle is closed across workers: it must be found, not waited for.
func TestCycleAcrossWorkers(t *testing.T) {
	for _, n := range []int{2, 3, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newSheet(t, incr.WithWorkers(n), incr.WithGrace(0))
			meet := meeting(n)
			var ring *incr.Query[int, int]
			ring = incr.NewQuery("ring", func(r *incr.Run, i int) int {
				meet()
				return ring.Get(r, (i+1)%n) + 1
			}, nil)
			told := make([]error, n)
			var releases []func()
			for i := range n {
				releases = append(releases, incr.Hold(s.e, ring.Ref(i), func(_ int, err error) { told[i] = err }))
			}
			r := s.e.Settle()
			if len(r.Failures) != n || r.Ran != n {
				t.Errorf("%+v", r)
			}
			for i, err := range told {
				if !errors.Is(err, incr.ErrCycle) || strings.Count(err.Error(), "ring(") != n+1 || err.Error() != told[0].Error() {
					t.Errorf("%d told %v", i, err)
				}
			}
			for _, release := range releases {
				release()
			}
			s.e.Settle()
			if st := s.e.Stats(); st.Nodes != 0 || st.Edges != 0 {
				t.Errorf("left: %+v", st)
			}
		})
	}
}

// A node that several workers want at once runs once; the others wait for it.
func TestWorkersShareANode(t *testing.T) {
	const n = 6
	s := newSheet(t, incr.WithWorkers(n))
	meet, started := meeting(n), make(chan struct{})
	shared := incr.NewQuery("shared", func(*incr.Run, int) *value {
		close(started) // panics if it runs twice
		return &value{7}
	}, nil)
	top := incr.NewQuery("top", func(r *incr.Run, _ int) *value {
		meet()
		return shared.Get(r, 0)
	}, nil)
	seen := map[*value]int{}
	for i := range n {
		incr.Hold(s.e, top.Ref(i), func(v *value, _ error) { seen[v]++ })
	}
	wantRound(t, s.e.Settle(), n+1, n+1, 0)
	if len(seen) != 1 {
		t.Errorf("%d values of one query", len(seen))
	}
	<-started
}

// A worker that waits for another is woken when that one is done, also by failure.
func TestWaitingForAFailure(t *testing.T) {
	s := newSheet(t, incr.WithWorkers(2))
	running := make(chan struct{})
	waiting := make(chan struct{})
	slow := incr.NewQuery("slow", func(*incr.Run, int) int {
		close(running)
		<-waiting
		panic("broken")
	}, nil)
	fast := incr.NewQuery("fast", func(r *incr.Run, _ int) int {
		<-running
		close(waiting)
		return slow.Get(r, 0) + 1
	}, nil)
	var a, b error
	incr.Hold(s.e, slow.Ref(0), func(_ int, err error) { a = err })
	incr.Hold(s.e, fast.Ref(0), func(v int, err error) { b = err })
	wantRound(t, s.e.Settle(), 2, 2, 1)
	var p *incr.PanicError
	if !errors.As(a, &p) || p.Value != "broken" || len(p.Stack) == 0 || b != nil {
		t.Errorf("slow: %v, fast: %v", a, b)
	}
}
