package duty_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/zone/duty"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := duty.New(time.Now)
		began := time.Now()
		var turns []time.Duration
		next := time.Time{}
		working := make(chan struct{})
		close(working)
		done := make(chan error, 1)
		go func() {
			done <- d.Run(ctx, func(context.Context) time.Time {
				turns = append(turns, time.Since(began))
				<-working
				return next
			})
		}()
		want := func(what string, at ...time.Duration) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(turns, at) {
				t.Errorf("%s: turns at %v, want %v", what, turns, at)
			}
			turns = nil
		}
		after := func(wait time.Duration) {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		want("at the start", 0)
		after(time.Hour)
		want("nothing is due")

		// Pokes while a turn is under way are one turn after it.
		working = make(chan struct{})
		d.Poke()
		want("poked", time.Hour)
		d.Poke()
		d.Poke()
		want("busy")
		next = began.Add(2 * time.Hour)
		close(working)
		want("poked while busy", time.Hour)

		after(time.Hour)
		want("due", 2*time.Hour)
		next = time.Time{}
		after(least)
		want("due in the past: a little later", 2*time.Hour+least)
		after(time.Hour)
		want("nothing is due any more")

		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// least is the shortest wait.
const least = 10 * time.Millisecond

func TestEarlier(t *testing.T) {
	never, a, b := time.Time{}, time.Unix(1, 0), time.Unix(2, 0)
	for _, c := range [][3]time.Time{{a, b, a}, {b, a, a}, {never, b, b}, {a, never, a}, {never, never, never}} {
		if got := duty.Earlier(c[0], c[1]); got != c[2] {
			t.Errorf("the earlier of %v and %v: %v", c[0], c[1], got)
		}
	}
}
