package incr_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
)

// Loop in a bubble with fake time: commits during a wait are one round; holds wake it.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSheet(t)
		put := func(c *cell) {
			_, _ = s.d.Write(func(tx *db.Tx) error { cells.Put(tx, c); return nil })
		}
		s.hold("a")
		s.e.Settle()
		s.wantTold("a", "0")
		put(&cell{id: "a", n: 1}) // before Loop begins: must not be missed
		ctx, cancel := context.WithCancel(t.Context())
		var rounds []incr.Round
		done := make(chan error)
		go func() {
			done <- s.e.Loop(ctx, s.d, incr.WithWait(10*time.Millisecond), incr.WithAfter(func(r incr.Round) { rounds = append(rounds, r) }))
		}()
		settle := func() { <-time.After(time.Second); synctest.Wait() } // fake time
		settle()
		s.wantTold("a", "1")
		if err := s.e.Loop(ctx, s.d); !errors.Is(err, incr.ErrLooping) {
			t.Errorf("a second Loop: %v", err)
		}
		n := len(rounds)
		put(&cell{id: "a", n: 2})
		put(&cell{id: "b", n: 3})
		put(&cell{id: "a", n: 4})
		settle()
		s.wantTold("a", "4")
		if len(rounds) != n+1 || rounds[n].Revision != 4 || rounds[n].Ran != 1 {
			t.Errorf("rounds: %+v", rounds[n:])
		}
		s.hold("b")
		settle()
		s.wantTold("b", "3")
		n = len(rounds)
		settle() // nothing happens, nothing runs
		if len(rounds) != n {
			t.Errorf("idle rounds: %+v", rounds[n:])
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Loop returned %v", err)
		}
	})
}

// Two engines in one process, each with writers, holders, peekers and its Loop.
func TestEnginesTogether(t *testing.T) {
	var all sync.WaitGroup
	for range 2 {
		s := newSheet(t, incr.WithWorkers(3), incr.WithGrace(4))
		ctx, cancel := context.WithCancel(t.Context())
		reached := make(chan struct{})
		var loops, others sync.WaitGroup
		last := db.Revision(0)
		var lastMu sync.Mutex
		loops.Go(func() {
			_ = s.e.Loop(ctx, s.d, incr.WithAfter(func(r incr.Round) {
				lastMu.Lock()
				defer lastMu.Unlock()
				if last != 0 && r.Revision >= last {
					select {
					case <-reached:
					default:
						close(reached)
					}
				}
			}))
		})
		for w := range 3 {
			others.Go(func() {
				for i := range 100 {
					_, _ = s.d.Write(func(tx *db.Tx) error {
						cells.Put(tx, &cell{id: fmt.Sprint("x", w), n: i, reads: []string{"y"}})
						cells.Put(tx, &cell{id: "y", n: i * w})
						return nil
					})
				}
			})
			others.Go(func() {
				for i := range 100 {
					release := incr.Hold(s.e, sum.Ref(fmt.Sprint("x", i%3)), func(*value, error) {})
					if _, err := incr.Peek(s.e, sum.Ref(fmt.Sprint("x", w))); err != nil {
						t.Error(err)
					}
					release()
				}
			})
		}
		all.Go(func() {
			defer loops.Wait()
			defer cancel()
			others.Wait()
			lastMu.Lock()
			last, _ = s.d.Write(func(tx *db.Tx) error { cells.Put(tx, &cell{id: "y", n: 1000}); return nil })
			lastMu.Unlock()
			// The round of that write may have ended before last was set.
			_, _ = s.d.Write(func(tx *db.Tx) error { cells.Put(tx, &cell{id: "end"}); return nil })
			<-reached
			for w := range 3 {
				id := fmt.Sprint("x", w)
				if v, err := incr.Peek(s.e, sum.Ref(id)); err != nil || v.sum != naive(s.d.Snapshot(), id) {
					t.Errorf("%s = %v, %v", id, v, err)
				}
			}
			if st := s.e.Stats(); st.Held != 0 || st.Nodes > 4 {
				t.Errorf("%+v", st)
			}
		})
	}
	all.Wait()
}
