package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/lease"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

const term = 9 * time.Second

// instance does one duty: while it holds the lease it says so, and writes a secret
// for every message of write.
type instance struct {
	name  string
	db    *db.DB
	kill  func() // without giving anything up
	end   func()
	ended chan error
	gate  chan struct{} // taken by a test: nothing gets to the store

	write chan string
	wrote chan error
}

// duty is shared by the instances of a test.
type duty struct {
	data *memory.Database

	mu      sync.Mutex
	holders []string
	worst   int // how many held it at a time
}

func (d *duty) now() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.holders)
}

func (d *duty) enter(name string) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holders = append(d.holders, name)
	d.worst = max(d.worst, len(d.holders))
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, h := range d.holders {
			if h == name {
				d.holders = append(d.holders[:i], d.holders[i+1:]...)
				return
			}
		}
	}
}

func (d *duty) instance(t *testing.T, name string) *instance {
	i := &instance{name: name, db: db.New(api.Schema), ended: make(chan error, 1), gate: make(chan struct{}, 1), write: make(chan string), wrote: make(chan error, 1)}
	log := slog.New(slog.DiscardHandler)
	feeder := store.NewFeeder(d.data.Open(), i.db, api.Site{Zone: "east"}, log)
	ctx, cancel := context.WithCancel(context.Background())
	i.gate <- struct{}{}
	apply := func(ctx context.Context, ops []store.Op) (store.Revision, error) {
		select {
		case <-i.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		defer func() { i.gate <- struct{}{} }()
		return feeder.Apply(ctx, ops)
	}
	k := &lease.Keeper{DB: i.db, Apply: apply, Holder: name, Term: term, Log: log}
	var all sync.WaitGroup
	all.Go(func() { _ = feeder.Run(ctx) })
	all.Go(func() {
		<-feeder.Ready()
		i.ended <- k.Do(ctx, "chores", func(ctx context.Context, held *lease.Held) error {
			defer d.enter(name)()
			for {
				select {
				case <-ctx.Done():
					return nil
				case secret := <-i.write:
					if secret == "" {
						return errors.New("the work failed")
					}
					_, err := held.Apply(context.WithoutCancel(ctx), []store.Op{{Record: store.RecordFor(api.GlobalSecrets, api.ID{Name: secret}, api.Secret{})}})
					i.wrote <- err
				}
			}
		})
	})
	i.end = func() { cancel(); all.Wait() }
	i.kill = func() {
		<-i.gate
		cancel()
	}
	t.Cleanup(i.end)
	return i
}

func (d *duty) secrets(i *instance) (names []string) {
	for s := range api.GlobalSecrets.All(i.db.Snapshot()) {
		names = append(names, s.Name)
	}
	return names
}

func (d *duty) expect(t *testing.T, what, holders string) {
	t.Helper()
	synctest.Wait()
	if got := d.now(); got != holders {
		t.Errorf("%s: %s, want %s", what, got, holders)
	}
}

func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &duty{data: memory.New()}
		a := d.instance(t, "a")
		d.expect(t, "alone", "[a]")
		b, c := d.instance(t, "b"), d.instance(t, "c")
		time.Sleep(10 * term)
		d.expect(t, "renewed", "[a]")
		a.end()
		synctest.Wait()
		if now := d.now(); now != "[b]" && now != "[c]" {
			t.Errorf("given up: %s, want another at once", now)
		}
		b.kill()
		time.Sleep(term + time.Second)
		d.expect(t, "the second is dead", "[c]")
		c.end()
		if d.worst != 1 {
			t.Errorf("%d held it at a time", d.worst)
		}
	})
}

// TestDeadHolder: what a holder leaves behind holds for a term, and no longer.
func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &duty{data: memory.New()}
		a := d.instance(t, "a")
		d.expect(t, "alone", "[a]")
		d.instance(t, "b")
		a.kill()
		time.Sleep(term - time.Second)
		d.expect(t, "not yet", "[]")
		time.Sleep(2 * time.Second)
		d.expect(t, "after the term", "[b]")
	})
}

// TestPausedHolder: a holder that slept through its lease writes nothing any more,
// and goes on as one of those who wait.
func TestPausedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &duty{data: memory.New()}
		a := d.instance(t, "a")
		d.expect(t, "alone", "[a]")
		b := d.instance(t, "b")
		<-a.gate
		a.write <- "late" // it has looked at its clock, and is paused before it writes
		synctest.Wait()
		time.Sleep(2 * term)
		d.expect(t, "taken over", "[a b]")
		b.write <- "new"
		if err := <-b.wrote; err != nil {
			t.Error(err)
		}
		a.gate <- struct{}{}
		if err := <-a.wrote; !errors.Is(err, lease.ErrLost) {
			t.Errorf("the late write: %v", err)
		}
		d.expect(t, "woken up", "[b]")
		if got := fmt.Sprint(d.secrets(b)); got != "[new]" {
			t.Errorf("stored: %s", got)
		}
		b.kill()
		time.Sleep(term + time.Second)
		d.expect(t, "its turn again", "[a]")
	})
}

// TestStoreAway: while the store is away nobody takes over, and who cannot renew
// stops; when it is back the duty is done again.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &duty{data: memory.New()}
		a := d.instance(t, "a")
		d.expect(t, "alone", "[a]")
		b := d.instance(t, "b")
		<-a.gate
		<-b.gate
		time.Sleep(3 * term)
		a.gate <- struct{}{}
		b.gate <- struct{}{}
		time.Sleep(2 * term)
		synctest.Wait()
		if now := d.now(); now != "[a]" && now != "[b]" {
			t.Errorf("the store is back: %s", now)
		}
	})
}

// TestWorkFails: an error of the work is the caller's, and others do the duty.
func TestWorkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &duty{data: memory.New()}
		a := d.instance(t, "a")
		d.expect(t, "alone", "[a]")
		d.instance(t, "b")
		a.write <- ""
		if err := <-a.ended; err == nil || err.Error() != "chores: the work failed" {
			t.Errorf("%v", err)
		}
		d.expect(t, "the other", "[b]")
	})
}
